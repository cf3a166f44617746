"""The values that travel between components.

Axis letters, the same in every docstring::

    B images      T visual tokens     P pairs       A attributes   O objects   N texts
    D joint width V visual width      W token width L prompt length
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Texts = TypeVar("Texts", bound="TextFeatures")


@dataclass(frozen=True)
class ImageFeatures:
    """What a backbone, and then an aggregator, knows about a batch of images."""

    pooled: Tensor  # [B, D], not normalised
    layers: tuple[Tensor, ...] = ()  # each [B, T, D]: the layers asked for, in the order asked for
    tokens: Tensor | None = None  # [B, T, V], the last layer before its projection
    levels: tuple[Tensor, ...] = ()  # each [B, T, D]; what the aggregator made of the layers

    def first(self, images: int) -> ImageFeatures:
        """Those of the first few images."""

        def cut(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(cut, value))
            return value[:images] if isinstance(value, Tensor) else value

        return replace(self, **{name: cut(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Batch:
    """Images with their labels."""

    images: Tensor | ImageFeatures  # [B, 3, H, W] float, normalised; or what a backbone made of them
    attr: Tensor  # [B] long
    obj: Tensor  # [B] long


@dataclass(frozen=True)
class TextFeatures:
    """What a prompt, and then an interaction, knows about the candidates."""

    pairs: Tensor  # [P, 2] long: attribute and object index of each pair
    pair: Tensor | None = None  # [P, D], or [B, P, D] once an interaction has seen the images
    attr: Tensor | None = None  # [A, D] or [B, A, D]
    obj: Tensor | None = None  # [O, D] or [B, O, D]
    tokens: Tensor | None = None  # [P, L, W], before the final norm; only where a prompt keeps them

    def rows(self: Texts, which: Tensor | slice) -> Texts:
        """Those of some of the pairs, before an interaction has seen them; attributes and objects stay."""
        chosen: dict[str, Any] = {name: None if of is None else of[which] for name, of in self.by_pair().items()}
        return replace(self, **chosen)

    def by_pair(self) -> dict[str, Tensor | None]:
        """What has a row for each pair; subclasses that hold more of that kind add it."""
        return {"pairs": self.pairs, "pair": self.pair, "tokens": self.tokens}


@dataclass(frozen=True)
class Scores:
    """Raw logits of each branch; nothing is normalised or fused."""

    pair: Tensor  # [B, P]
    attr: Tensor | None = None  # [B, A]
    obj: Tensor | None = None  # [B, O]


@dataclass(frozen=True)
class Setting:
    """Where scores are going to be compared; published score fusions differ by it."""

    phase: str = "val"  # or "test"
    world: str = "closed"  # or "open"
    columns: int = 0  # pairs that are scored in all, over every chunk of them


#: That of choosing an epoch.
VALIDATION = Setting()


@dataclass(frozen=True, eq=False)
class PairSpace:
    """What a dataset can predict, and which combinations were trained on.

    Args:
        attrs: attribute names, length ``A``.
        objs: object names, length ``O``.
        pairs: ``[P, 2]`` long, attribute and object index of each known pair.
        seen: ``[P]`` bool, whether the pair occurs in training.

    Raises:
        ValueError: the four do not describe one label space.

    >>> space = PairSpace(("dry", "wet"), ("cat", "dog"), torch.tensor([[0, 0], [1, 1]]), torch.tensor([True, False]))
    >>> space.open().pairs.tolist(), space.open().seen.tolist()
    ([[0, 0], [0, 1], [1, 0], [1, 1]], [True, False, False, False])
    """

    attrs: tuple[str, ...]
    objs: tuple[str, ...]
    pairs: Tensor
    seen: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", tuple(self.attrs))
        object.__setattr__(self, "objs", tuple(self.objs))
        object.__setattr__(self, "pairs", torch.as_tensor(self.pairs, dtype=torch.long).cpu().reshape(-1, 2))
        object.__setattr__(self, "seen", torch.as_tensor(self.seen, dtype=torch.bool).cpu())
        for kind, names in (("attribute", self.attrs), ("object", self.objs)):
            if not names:
                raise ValueError(f"a label space needs at least one {kind}, got none")
            if doubled := sorted({n for n in names if names.count(n) > 1}):
                raise ValueError(f"{kind} names must differ, {', '.join(doubled)} is there more than once")
        if self.seen.shape != (len(self.pairs),):
            raise ValueError(
                f"{len(self.pairs)} pairs but seen is {list(self.seen.shape)}, expected [{len(self.pairs)}]"
            )
        size = torch.tensor([len(self.attrs), len(self.objs)])
        outside = ((self.pairs < 0) | (self.pairs >= size)).any(1)
        if outside.any():
            pair = tuple(self.pairs[outside][0].tolist())
            raise ValueError(f"pair {pair} is outside {len(self.attrs)} attributes x {len(self.objs)} objects")
        if len(self.flat().unique()) != len(self.pairs):
            raise ValueError(f"{len(self.pairs)} pairs, of which only {len(self.flat().unique())} differ")

    def flat(self) -> Tensor:
        """``[P]`` row of each pair in ``product(attrs, objs)``."""
        return self.pairs[:, 0] * len(self.objs) + self.pairs[:, 1]

    def open(self) -> PairSpace:
        """The same words with every combination a pair, in ``product(attrs, objs)`` order."""
        pairs = torch.cartesian_prod(torch.arange(len(self.attrs)), torch.arange(len(self.objs)))
        seen = torch.zeros(len(pairs), dtype=torch.bool)
        seen[self.flat()[self.seen]] = True
        return PairSpace(self.attrs, self.objs, pairs, seen)


def pair_targets(batch: Batch, pairs: Tensor) -> Tensor:
    """Row of ``pairs`` ``[P, 2]`` that each image shows, ``[B]``.

    Raises:
        ValueError: an image shows a pair that is not a candidate.

    >>> batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([1, 0]), torch.tensor([2, 0]))
    >>> pair_targets(batch, torch.tensor([[0, 0], [1, 2]])).tolist()
    [1, 0]
    """
    match = (pairs[:, 0] == batch.attr[:, None]) & (pairs[:, 1] == batch.obj[:, None])  # [B, P]
    missing = ~match.any(1)
    if missing.any():
        i = int(missing.nonzero()[0])
        raise ValueError(
            f"image {i} of the batch shows pair ({int(batch.attr[i])}, {int(batch.obj[i])}), "
            f"which is not among the {len(pairs)} candidates"
        )
    return match.int().argmax(1)


#: By branch: ``"pair"`` with ``N = P`` texts, ``"attr"`` with ``N = A`` and ``"obj"`` with ``N = O``.
Branches = Mapping[str, Tensor]


@dataclass(frozen=True)
class AttentionMaps:
    """What an interaction's texts read, by stage, in the order of reading, and by branch.

    ``contribution`` is how much of what the image did to a text each stage did. A stage turns texts ``t`` into
    ``t + d``, and a fusion weighs what the stages made of them; what it returns is a multiple of the first
    stage's texts, channel by channel, plus a multiple of every ``d``. The contribution of a stage is the Euclidean
    norm of its weighted ``d`` over the sum of these norms: from 0 to 1, and 1 in all. It has no sign: a stage
    with a large contribution may have spoken for the text or against it. Where stages build on one another, what a
    later one reads depends on what an earlier one has read, and counts as the later one's.
    """

    attention: Mapping[str, Branches]  # [B, N, T], mean over heads and layers; sums to 1 over T, class token first
    weights: Mapping[str, Branches]  # [B, N, D], of what the stage made of the texts, where it joins them
    contribution: Mapping[str, Branches]  # [B, N]


@dataclass(frozen=True)
class Explanation(AttentionMaps):
    """How a method came to score images as it did; without gradients."""

    pairs: Tensor  # [P, 2] long: attribute and object index of each pair
    scores: Scores
    ranked: Tensor  # [B, P], what pairs are sorted by
