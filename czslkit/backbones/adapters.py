"""Adapters: small trainable layers at the frozen sub-layers of a tower, and the modes in which they run."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..linear import Linear

#: Places of adapters in a block: parallel to the attention or the MLP, and on the output of the attention or the MLP.
ADAPTER_KINDS = ("attention", "mlp", "after_attention", "after_mlp")
#: A function of tokens ``[N, L, width]``, such as an adapter.
TokenFunction = Callable[[Tensor], Tensor]
_mode: ContextVar[str] = ContextVar("czslkit_adapter_mode", default="")


@contextmanager
def adapter_mode(mode: str) -> Iterator[None]:
    """Run the towers in a mode inside the ``with`` block; every :class:`ModalAdapter` computes by it."""
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


class Adapter(nn.Module):
    """A bottleneck parallel to a residual branch: ``0.1 * up(dropout(relu(down(x))))``.

    The initial output is zero, so that adapters do not change the model before training. Chen et al., "AdaptFormer",
    NeurIPS 2022. https://arxiv.org/abs/2205.13535

    Args:
        width: width of input and output.
        bottleneck: width between ``down`` and ``up``.
        dropout: dropout before ``up``.
    """

    def __init__(self, width: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up = Linear(width, bottleneck), Linear(bottleneck, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return 0.1 * self.up(self.dropout(F.relu(self.down(x))))


class ModalAdapter(nn.Module, ABC):
    """An adapter that computes differently in each of several modes; see :func:`adapter_mode`."""

    @abstractmethod
    def forward(self, x: Tensor, mode: str) -> Tensor:
        """Return what is added to the tokens, in a mode; empty outside of :func:`adapter_mode`."""

    def in_current_mode(self) -> TokenFunction:
        """Return the adapter in the current mode, which stays when a block is computed again for its gradient."""
        return functools.partial(self, mode=_mode.get())


class Bottleneck(nn.Module):
    """The two layers of a bottleneck, with QuickGELU between them.

    The initial weights are torch's and the initial biases zero, so that an adapter changes the model from the start.

    Args:
        width: width of input and output.
        bottleneck: width between ``down`` and ``up``.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down, self.up = Linear(width, bottleneck), Linear(bottleneck, width)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def latent(self, x: Tensor) -> Tensor:
        """Return the numbers between the two layers, ``[..., bottleneck]``."""
        hidden = self.down(x)
        return hidden * torch.sigmoid(1.702 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        raised: Tensor = self.up(self.latent(x))
        return raised


class ConceptAdapters(ModalAdapter):
    """A bottleneck for each of several concepts; a pass through the tower uses that of its mode.

    In the mode of the ``mixture``, all bottlenecks work together: the mixture raises the mean of the latent numbers of
    all, each other one raises its own latent numbers, and the result is the mean of what they raise.

    Args:
        width: width of input and output.
        bottleneck: width between the two layers of a bottleneck.
        concepts: names of the concepts, which are the modes.
        mixture: name of the concept that stands for all; None for no such concept.
    """

    def __init__(self, width: int, bottleneck: int, concepts: Sequence[str], mixture: str | None = None) -> None:
        super().__init__()
        self.mixture = mixture
        names = [*concepts, *([mixture] if mixture else [])]
        self.concepts = nn.ModuleDict({name: Bottleneck(width, bottleneck) for name in names})

    def forward(self, x: Tensor, mode: str) -> Tensor:
        if mode not in self.concepts:
            raise ValueError(
                f"adapters of {', '.join(self.concepts)} run in the mode {mode!r}, expected one of these: encode in a "
                "with block of adapter_mode"
            )
        if mode != self.mixture:
            added: Tensor = self.concepts[mode](x)
            return added
        layers: dict[str, Any] = dict(self.concepts.items())
        latent = {name: layer.latent(x) for name, layer in layers.items()}
        latent[mode] = torch.stack([*latent.values()]).mean(0)
        return torch.stack([layer.up(latent[name]) for name, layer in layers.items()]).mean(0)


class BlockAdapters(nn.ModuleList):
    """The adapters in the blocks of a tower, in the order in which they were added."""

    def __init__(self, adapters: Iterable[nn.Module] = ()) -> None:
        super().__init__(adapters)
        self.places: list[tuple[int, str]] = []  # block and kind of each adapter

    def add(
        self,
        make: Callable[[int], nn.Module],
        width: int,
        depth: int,
        blocks: Sequence[int] | None,
        kinds: Sequence[str],
    ) -> None:
        """Add an adapter at every place; the arguments are those of ``Backbone.add_adapters``.

        Args:
            width: width of the tower's tokens.
            depth: number of blocks of the tower.

        Raises:
            ValueError: there is no such block or kind, no place at all, or ``make`` returns no module.
        """
        if isinstance(kinds, str):
            raise ValueError(f"kinds of adapters are {kinds!r}, expected several: write kinds=({kinds!r},)")
        places = [(block, kind) for kind in kinds for block in (range(depth) if blocks is None else blocks)]
        for block, kind in places:
            if block not in range(depth) or kind not in ADAPTER_KINDS:
                raise ValueError(
                    f"an adapter of kind {kind!r} for block {block}, expected a kind of {', '.join(ADAPTER_KINDS)} and "
                    f"a block from 0 to {depth - 1}"
                )
        if not places:
            raise ValueError(
                f"adapters for blocks {blocks!r} and kinds {kinds!r} have no place, expected at least one "
                "block and one kind"
            )
        made = [make(width) for _ in places]
        for adapter in made:
            if not isinstance(adapter, nn.Module):
                raise ValueError(
                    f"make({width}) returned a {type(adapter).__name__}, expected an nn.Module: return the adapter for "
                    f"tokens of width {width}"
                )
        self.extend(made)
        self.places += places

    def of_block(self, block: int) -> dict[str, list[TokenFunction]]:
        """Return the adapters of a block in the current mode, by kind."""
        found: dict[str, list[TokenFunction]] = {kind: [] for kind in ADAPTER_KINDS}
        for (at, kind), adapter in zip(self.places, self, strict=True):
            if at == block:
                found[kind].append(adapter.in_current_mode() if isinstance(adapter, ModalAdapter) else adapter)
        return found
