"""The compiled loss of a training, for ``train.compile``."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import ConfigError
from ..method import Method

#: Random numbers, such as those of dropout, are drawn as without a compiler, so that losses differ by rounding only.
_OPTIONS: dict[str, Any] = {"fallback_random": True}


def compiled_loss(method: Method) -> Any:
    """Return ``method.loss``, compiled when it is first called; the method itself does not change.

    Raises:
        ConfigError: ``torch.compile`` does not work here, for example because there is no compiler.
    """
    try:
        torch.compile(_double, options=_OPTIONS)(torch.zeros(2, device=method.device))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(
            [
                f"train.compile is true, but torch.compile does not work on {method.device}: {reason}. It needs a C++ "
                "compiler on a CPU, and triton on a GPU: install it, or set train.compile to false"
            ]
        ) from error
    return torch.compile(method.loss, options=_OPTIONS)


def _double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x
