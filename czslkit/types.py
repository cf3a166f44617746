"""The values that components pass to each other.

Axis letters, the same in every docstring::

    B images      T visual tokens     P pairs       A attributes   O objects   N texts
    D joint width V visual width      W token width L prompt length
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .deferred import check
from .errors import ConfigError

#: Ways to bring an image to a square: crop what is too long, pad what is too short, or change the proportions.
RESIZE_MODES = ("shortest", "longest", "squash")
#: Pillow's filters, by the names that open_clip, timm and torchvision use.
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes the input of an image encoder. The defaults are those of OpenAI's CLIP.

    Raises:
        ConfigError: a value is none of those that are possible; the message has all of them.
    """

    size: int = 224  # height and width of the input in pixels
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # of each channel, from 0 to 1
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)  # of each channel
    mode: str = "shortest"  # side that is resized; "squash" resizes both and changes the proportions
    interpolation: str = "bicubic"
    crop: float = 1.0  # share of the resized side that the middle crop keeps
    fill: tuple[int, ...] = (0, 0, 0)  # colour of what the mode "longest" adds, from 0 to 255

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value!r}, expected {expected}"
            for name, value, expected, right in (
                ("the image size", self.size, "a whole number from 1", isinstance(self.size, int) and self.size > 0),
                ("the resize mode", self.mode, ", ".join(RESIZE_MODES), self.mode in RESIZE_MODES),
                ("interpolation", self.interpolation, ", ".join(INTERPOLATIONS), self.interpolation in INTERPOLATIONS),
                ("crop", self.crop, "a number above 0, at most 1", 0 < self.crop <= 1),
                ("mean", self.mean, "3 numbers", len(self.mean) in (1, 3)),
                ("std", self.std, "3 numbers above 0", len(self.std) in (1, 3) and min(self.std) > 0),
            )
            if not right
        ]
        if problems:
            raise ConfigError(problems)

    @property
    def resizing(self) -> str:
        """Everything apart from the size that decodes a file to other pixels; empty for OpenAI's CLIP."""
        if (self.mode, self.interpolation, self.crop) == ("shortest", "bicubic", 1):
            return ""
        fill = "-".join(map(str, self.fill)) if self.mode == "longest" else ""
        return "-".join(filter(None, (self.mode, self.interpolation, str(self.crop), fill)))

    @property
    def record(self) -> dict[str, Any]:
        """All values apart from the size, ready for JSON; empty for OpenAI's CLIP."""
        if self == Preprocessing(self.size):
            return {}
        values = {name: getattr(self, name) for name in ("mode", "interpolation", "crop")}
        if self.mode == "longest":
            values["fill"] = list(self.fill)
        return values | {"mean": list(self.mean), "std": list(self.std)}


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a batch of images. A backbone returns them, and an aggregator adds ``levels``."""

    pooled: Tensor  # [B, D], not normalised
    layers: tuple[Tensor, ...] = ()  # requested visual layers in the requested order, [B, T, D] each
    tokens: Tensor | None = None  # last visual layer before its projection, [B, T, V]
    levels: tuple[Tensor, ...] = ()  # layers joined by the aggregator, [B, T, D] each

    def take(self, images: int) -> ImageFeatures:
        """Return the features of the first ``images`` images of the batch."""

        def cut(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(cut, value))
            return value[:images] if isinstance(value, Tensor) else value

        return replace(self, **{name: cut(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Batch:
    """Images with their labels."""

    images: Tensor | ImageFeatures  # normalised pixels [B, 3, H, W] float, or encoded images
    attr: Tensor  # attribute index of each image, [B] long
    obj: Tensor  # object index of each image, [B] long
    index: Tensor | None = None  # row of each image in its split, [B] long
    extra: Mapping[str, Tensor] = field(default_factory=dict)  # other tensors of the dataset for each image, [B, ...]
    companions: Mapping[str, Batch] = field(default_factory=dict)  # images that ``Method.companions`` asked for
    rows: Tensor | None = None  # of companions: place of each in what ``Method.companions`` returned, [B] long


@dataclass(frozen=True)
class TextFeatures:
    """Features of the candidate pairs. A prompt returns them, and an interaction may change them."""

    pairs: Tensor  # attribute and object index of each pair, [P, 2] long
    pair: Tensor | None = None  # [P, D]; [B, P, D] after an interaction with the images
    attr: Tensor | None = None  # [A, D] or [B, A, D]
    obj: Tensor | None = None  # [O, D] or [B, O, D]
    tokens: Tensor | None = None  # hidden states before the final norm, [P, L, W]; None unless the prompt returns them

    def rows(self, which: Tensor | slice) -> TextFeatures:
        """Return the features of some pairs and of all attributes and objects. Call it only before an interaction."""
        chosen: dict[str, Any] = {
            name: None if tensor is None else tensor[which] for name, tensor in self.by_pair().items()
        }
        return replace(self, **chosen)

    def by_pair(self) -> dict[str, Tensor | None]:
        """Return the fields that have a row for each pair, by name; a subclass adds its fields."""
        return {"pairs": self.pairs, "pair": self.pair, "tokens": self.tokens}


@dataclass(frozen=True)
class Scores:
    """Raw logits of each branch, neither normalised nor fused."""

    pair: Tensor  # [B, P]
    attr: Tensor | None = None  # [B, A]
    obj: Tensor | None = None  # [B, O]


@dataclass(frozen=True)
class Setting:
    """Split, world and number of candidates of an evaluation; the score fusion of some methods depends on them."""

    split: str = "val"  # "val" or "test"
    world: str = "closed"  # "closed" or "open"
    columns: int = 0  # number of candidate pairs, over all chunks


#: Setting in which training chooses the best epoch.
VALIDATION = Setting()


@dataclass(frozen=True, eq=False)
class PairSpace:
    """Attributes, objects and pairs of a dataset, and which pairs are seen in training.

    Args:
        attrs: attribute names, length ``A``.
        objs: object names, length ``O``.
        pairs: ``[P, 2]`` long, attribute and object index of each known pair.
        seen: ``[P]`` bool, whether the pair occurs in training.

    Raises:
        ValueError: the four arguments do not describe one label space.

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
            if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
                raise ValueError(f"{kind} names must differ, got more than once: {', '.join(repeated)}")
        if self.seen.shape != (len(self.pairs),):
            raise ValueError(
                f"{len(self.pairs)} pairs but seen is {list(self.seen.shape)}, expected [{len(self.pairs)}]"
            )
        size = torch.tensor([len(self.attrs), len(self.objs)])
        outside = ((self.pairs < 0) | (self.pairs >= size)).any(1)
        if outside.any():
            pair = tuple(self.pairs[outside][0].tolist())
            raise ValueError(f"pair {pair} is outside {len(self.attrs)} attributes x {len(self.objs)} objects")
        if (distinct := len(self.flat().unique())) != len(self.pairs):
            raise ValueError(f"pairs must differ, got {len(self.pairs)} pairs of which {distinct} are distinct")

    def flat(self) -> Tensor:
        """Return the position of each pair in ``product(attrs, objs)``, ``[P]``."""
        return self.pairs[:, 0] * len(self.objs) + self.pairs[:, 1]

    def open(self) -> PairSpace:
        """Return the label space of the open world: every combination, in ``product(attrs, objs)`` order."""
        pairs = torch.cartesian_prod(torch.arange(len(self.attrs)), torch.arange(len(self.objs)))
        seen = torch.zeros(len(pairs), dtype=torch.bool)
        seen[self.flat()[self.seen]] = True
        return PairSpace(self.attrs, self.objs, pairs, seen)


def pair_targets(batch: Batch, pairs: Tensor) -> Tensor:
    """Return the row of ``pairs`` ``[P, 2]`` that each image shows, ``[B]``.

    Raises:
        ValueError: an image shows a pair that is not a candidate.

    >>> batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([1, 0]), torch.tensor([2, 0]))
    >>> pair_targets(batch, torch.tensor([[0, 0], [1, 2]])).tolist()
    [1, 0]
    """
    match = (pairs[:, 0] == batch.attr[:, None]) & (pairs[:, 1] == batch.obj[:, None])  # [B, P]
    found, attr, obj, candidates = match.any(1), batch.attr, batch.obj, len(pairs)

    def error() -> ValueError:
        i = int((~found).nonzero()[0])
        return ValueError(
            f"image {i} of the batch shows pair ({int(attr[i])}, {int(obj[i])}), "
            f"which is not among the {candidates} candidates"
        )

    check(found.all(), error)
    return match.int().argmax(1)


#: A tensor for each branch: ``"pair"`` with ``N = P`` texts, ``"attr"`` with ``N = A`` and ``"obj"`` with ``N = O``.
Branches = Mapping[str, Tensor]


@dataclass(frozen=True)
class AttentionMaps:
    """The attention of texts to an image's tokens, for each stage of an interaction in order, and for each branch.

    A stage turns texts ``t`` into ``t + d``. In every channel, the texts after the fusion are a multiple of the texts
    before the first stage plus a weighted ``d`` of each stage. The contribution of a stage is the Euclidean norm of
    its weighted ``d`` divided by the sum of these norms over all stages. Contributions are from 0 to 1 and sum to 1.
    They have no sign: a stage with a large contribution may raise or lower the score of a text. If a stage starts from
    the texts of an earlier stage, the effect of the earlier stage on ``d`` counts for the later stage.
    """

    attention: Mapping[str, Branches]  # mean over heads and layers, [B, N, T]; sums to 1 over T, class token first
    weights: Mapping[str, Branches]  # weights of the stage in the fusion, [B, N, D]
    contribution: Mapping[str, Branches]  # contribution of the stage, [B, N]


@dataclass(frozen=True)
class Explanation(AttentionMaps):
    """The scores of a method for some images, and the attention that led to them, without gradients."""

    pairs: Tensor  # attribute and object index of each pair, [P, 2] long
    scores: Scores  # raw logits of every branch
    ranked: Tensor  # scores by which pairs are ranked, [B, P]
