"""Adapters: small trainable layers parallel to the frozen sub-layers of a tower."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..linear import Linear

#: Places of adapters in a block: parallel to the attention, and parallel to the MLP.
ADAPTER_KINDS = ("attention", "mlp")


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

    def of_block(self, block: int) -> dict[str, list[nn.Module]]:
        """Return the adapters of a block, by kind."""
        found: dict[str, list[nn.Module]] = {kind: [] for kind in ADAPTER_KINDS}
        for (at, kind), adapter in zip(self.places, self, strict=True):
            if at == block:
                found[kind].append(adapter)
        return found
