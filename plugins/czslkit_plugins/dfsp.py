"""DFSP: decompose soft prompts into attributes and objects, fuse them with the image, and compose them again.

Lu et al., "Decomposed Soft Prompt Guided Fusion Enhancing for Compositional Zero-Shot
Learning", CVPR 2023. https://arxiv.org/abs/2211.10681

Four variants differ in the fusion: in ``dfsp-i2t`` texts attend to the image, in ``dfsp-t2i`` the image attends to
texts, in ``dfsp-bif`` both do, and ``dfsp-spm`` is the soft prompt without fusion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from czslkit.backbones import load_backbone
from czslkit.components import HEADS, INTERACTIONS, Backbone, Head, Interaction, cosine
from czslkit.linear import Linear
from czslkit.loss_parts import report
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import LearnedWordOptions, SoftPrompt, in_parts
from czslkit.types import Batch, ImageFeatures, PairSpace, Scores, TextFeatures, pair_targets

from .dfsp_checkpoints import CITATION, translation_of
from .dfsp_fusion import ImageToText, TextToImage, self_attention

PAIRS_PER_CHUNK = 1024  # pairs scored at a time


@dataclass(frozen=True)
class DfspImage(ImageFeatures):
    """Image features with a ``pooled`` that is fused with texts."""

    unfused: Tensor | None = None  # ``pooled`` before the fusion, [B, D]


@dataclass(frozen=True)
class DfspText(TextFeatures):
    """Text features with the soft prompt before the fusion as ``pair``."""

    decomposed: Tensor | None = None  # mean over the pairs of each attribute and object, [A + O, L, W]
    fused: Tensor | None = None  # decomposed texts after attention to the image, at the end mark, [B, A + O, W]
    self_attended: Tensor | None = None  # pairs after self-attention, if texts do not attend to the image, [P, D]

    def by_pair(self) -> dict[str, Tensor | None]:
        return super().by_pair() | {"self_attended": self.self_attended}


@dataclass(frozen=True)
class FusionSettings:
    """Directions and sizes of a variant's fusion; the default is no fusion."""

    image_to_text: bool = False  # texts attend to the image
    text_to_image: bool = False  # the image attends to texts
    layers: int = 0  # self-attention layers after the fusion
    residual_weight: float = 1.0  # weight of the features before the fusion, from 0 to 1
    batch_mixing: str = "none"  # see ``ImageToText``


@INTERACTIONS.register("decomposed_fusion")
class DecomposedFusion(Interaction):
    """The fusion of image tokens and decomposed texts.

    Args:
        backbone: CLIP that determines the widths and the number of visual tokens.
        primitives: number of attributes and objects, ``A + O``.
        length: number of tokens in a prompt, ``L``.
        end: position of the end mark in the prompt of a pair.
        settings: directions and sizes of the fusion.

    Raises:
        ValueError: the backbone returns no visual tokens.
    """

    version = 1

    def __init__(self, backbone: Backbone, primitives: int, length: int, end: int, settings: FusionSettings) -> None:
        super().__init__()
        self.reads_tokens = settings.image_to_text or settings.text_to_image
        if self.reads_tokens and not backbone.visual_tokens:
            raise ValueError("the fusion needs the tokens of a vision transformer, the backbone returns none")
        self.end, self.residual_weight = end, settings.residual_weight
        sizes = backbone.visual_width, backbone.token_width, backbone.visual_tokens, primitives, length
        self.image_to_text = (
            ImageToText(*sizes, settings.layers, settings.batch_mixing) if settings.image_to_text else None
        )
        self.text_to_image = TextToImage(*sizes) if settings.text_to_image else None
        self.refine_image = self_attention(backbone.visual_width, settings.layers) if self.reads_tokens else None
        only_text_to_image = settings.text_to_image and not settings.image_to_text
        self.refine_text = self_attention(backbone.token_width, settings.layers) if only_text_to_image else None

    def self_attend(self, text: TextFeatures, backbone: Backbone) -> Tensor:
        """Return the pairs ``[P, D]`` after self-attention, for texts that do not attend to the image."""
        assert self.refine_text is not None
        return backbone.project_text(self.refine_text(text.tokens)[:, self.end])

    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        assert isinstance(text, DfspText) and text.decomposed is not None
        if not self.reads_tokens:
            return DfspImage(image.pooled, unfused=image.pooled), text
        assert image.tokens is not None and self.refine_image is not None
        tokens = image.tokens
        if self.image_to_text is not None:
            text = replace(text, fused=self.image_to_text(tokens, text.decomposed)[:, :, self.end])
        if self.text_to_image is not None:
            tokens = self.text_to_image(tokens, text.decomposed)
        fused = backbone.project_image(self.refine_image(tokens)[:, 0])
        pooled = self.residual_weight * image.pooled + (1 - self.residual_weight) * fused
        return DfspImage(pooled, unfused=image.pooled), text


@dataclass(frozen=True)
class DfspScores(Scores):
    """Scores with ``pair`` from fused features, and the scores of the soft prompt."""

    soft: Tensor | None = None  # cosine of soft prompt and image before the fusion, [B, P]


@HEADS.register("decomposed")
class DecomposedHead(Head):
    """A head with the cosine of fused image and pair; attribute and object scores are means over unfused pairs.

    Args:
        backbone: CLIP that projects composed pairs into the joint space.
        num_attrs, num_objs: number of attributes ``A`` and of objects ``O``.
        compose: compose pairs from the product of their fused attribute and fused object.
        residual_weight: weight of the pair features before the fusion, from 0 to 1.
        primitive_weight: weight of the cross-entropies of attribute and object.
        soft_weight: weight of the cross-entropy of the soft prompt.
    """

    version = 1

    def __init__(
        self,
        backbone: Backbone,
        num_attrs: int,
        num_objs: int,
        *,
        compose: bool,
        residual_weight: float = 0.8,
        primitive_weight: float = 0.01,
        soft_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.register_buffer("scale", backbone.scale.detach().clone(), persistent=False)
        self.scale: Tensor
        self.num_attrs, self.num_objs, self.residual_weight = num_attrs, num_objs, residual_weight
        self.primitive_weight, self.soft_weight = primitive_weight, soft_weight
        width = backbone.token_width
        self.compose = Linear(width, width) if compose else None
        self._project = backbone.project_text

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        assert isinstance(image, DfspImage) and isinstance(text, DfspText) and text.pair is not None
        assert image.unfused is not None
        chunks = torch.arange(len(text.pairs), device=text.pairs.device).split(PAIRS_PER_CHUNK)
        fused = torch.cat([cosine(image.pooled, self._fused_pairs(text, rows), self.scale) for rows in chunks], 1)
        soft = cosine(image.unfused, text.pair, self.scale)  # [B, P]
        attr, obj = (
            _primitive_means(soft, index, size)
            for index, size in zip(text.pairs.T, (self.num_attrs, self.num_objs), strict=True)
        )
        return DfspScores(fused, attr, obj, soft)

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        assert isinstance(scores, DfspScores)
        assert scores.attr is not None and scores.obj is not None and scores.soft is not None
        target = pair_targets(batch, pairs)
        primitives = F.cross_entropy(scores.attr, batch.attr) + F.cross_entropy(scores.obj, batch.obj)
        soft = F.cross_entropy(scores.soft, target)
        pair = report("pair", F.cross_entropy(scores.pair, target))
        return pair + report("primitives", self.primitive_weight * primitives) + report("soft", self.soft_weight * soft)

    def _fused_pairs(self, text: DfspText, rows: Tensor) -> Tensor:
        """Return the fused features of the pairs in ``rows``, ``[B, N, D]``, or ``[N, D]`` if equal for all images."""
        assert text.pair is not None
        pair = text.pair[rows]
        if self.compose is not None:
            assert text.fused is not None
            attr, obj = text.pairs[rows].T
            fused = self._project(self.compose(text.fused[:, attr] * text.fused[:, self.num_attrs + obj]))
        elif text.self_attended is not None:
            fused = text.self_attended[rows]
        else:
            return pair
        return self.residual_weight * pair + (1 - self.residual_weight) * fused


def counted(index: Tensor, size: int) -> Tensor:
    """Return how often each number below ``size`` is in ``index``; ``torch.bincount`` would wait for a GPU.

    >>> counted(torch.tensor([2, 0, 2]), 4).tolist()
    [1, 0, 2, 0]
    """
    return index.new_zeros(size).index_add(0, index, torch.ones_like(index))


def _primitive_means(scores: Tensor, index: Tensor, size: int) -> Tensor:
    """Return the mean score of the pairs of each attribute, or of each object, ``[B, size]``.

    Args:
        scores: ``[B, P]``.
        index: attribute or object of each pair, ``[P]``.
        size: number of attributes or objects. Without a pair, the score is the lowest finite number.
    """
    counts = counted(index, size)
    sums = scores.new_zeros(scores.shape[0], size).index_add(1, index, scores)
    return (sums / counts.clamp(min=1)).masked_fill(counts == 0, torch.finfo(scores.dtype).min)


@dataclass(frozen=True)
class DfspOptions(LearnedWordOptions):
    """The options of ``dfsp-spm``, which all variants have."""

    primitive_loss_weight: float = option(0.01, "weight of the attribute and object cross-entropies", minimum=0)
    soft_loss_weight: float = option(0.1, "weight of the soft prompt's cross-entropy", minimum=0)


@dataclass(frozen=True)
class FusionOptions(DfspOptions):
    """The options of ``dfsp-t2i``, which all variants with a fusion have."""

    layers: int = option(1, "self-attention layers after the fusion", minimum=0)
    keep: float = option(0.8, "weight of the features before the fusion", minimum=0, maximum=1)


@dataclass(frozen=True)
class ImageToTextOptions(FusionOptions):
    """The options of ``dfsp-i2t`` and ``dfsp-bif``."""

    batch_mixing: Literal["none", "original"] = option("none", "original mixes images of a batch, none does not")


class Dfsp(Method):
    """A method with a decomposed soft prompt, a fusion with the image and four cross-entropies.

    Subclasses choose the fusion.
    """

    version = 1
    Options = DfspOptions
    chunkable = False  # scores of attributes and objects are means over the candidates

    def __init__(self, options: DfspOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = SoftPrompt(
            backbone,
            space,
            context=options.context,
            learn_context=True,
            keep_tokens=True,
            dropout=options.word_dropout,
            context_length=options.context_length,
        )
        num_attrs, num_objs = len(space.attrs), len(space.objs)
        settings = self.fusion(options)
        interaction = DecomposedFusion(backbone, num_attrs + num_objs, options.context_length, prompt.end, settings)
        head = DecomposedHead(
            backbone,
            num_attrs,
            num_objs,
            compose=settings.image_to_text,
            residual_weight=settings.residual_weight,
            primitive_weight=options.primitive_loss_weight,
            soft_weight=options.soft_loss_weight,
        )
        super().__init__(space=space, backbone=backbone, prompt=prompt, interaction=interaction, head=head)
        self.independent = settings.batch_mixing == "none"

    def fusion(self, options: DfspOptions) -> FusionSettings:
        """Return the directions and sizes of the variant's fusion."""
        return FusionSettings()

    def text(self, pairs: Tensor) -> DfspText:
        """Return the soft prompts of ``pairs`` ``[P, 2]`` and their decomposed texts.

        The decomposed text of an attribute or object without a pair is zero.
        """
        num_attrs, interaction = len(self.space.attrs), self.interaction
        assert isinstance(interaction, DecomposedFusion)
        sums = torch.zeros((), device=pairs.device)  # sum of tokens for each attribute and object, [A + O, L, W]

        def encode(rows: slice) -> Tensor:  # [n, D], or [n, 2 * D] with the pairs after self-attention
            nonlocal sums
            text, (attr, obj) = Method.text(self, pairs[rows]), pairs[rows].T
            assert text.tokens is not None and text.pair is not None
            if not sums.ndim:
                sums = text.tokens.new_zeros(num_attrs + len(self.space.objs), *text.tokens.shape[1:])
            sums = sums.index_add(0, attr, text.tokens).index_add(0, num_attrs + obj, text.tokens)
            if interaction.refine_text is None:
                return text.pair
            return torch.cat((text.pair, interaction.self_attend(text, self.backbone)), 1)

        encoded = in_parts(len(pairs), encode)
        counts = counted(torch.cat((pairs[:, 0], num_attrs + pairs[:, 1])), len(sums)).clamp(min=1)
        pair, *rest = encoded.split(self.backbone.dim, 1)
        decomposed = sums / counts[:, None, None]
        return DfspText(pairs, pair, decomposed=decomposed, self_attended=rest[0] if rest else None)


@METHODS.register("dfsp-i2t")
class DfspI2T(Dfsp):
    """DFSP with image-to-text fusion: texts attend to the image."""

    version = 1
    display_name = "DFSP (i2t)"
    citation = CITATION
    Options = ImageToTextOptions
    translation = translation_of("img2txt")

    def fusion(self, options: ImageToTextOptions) -> FusionSettings:  # type: ignore[override]
        return FusionSettings(
            image_to_text=True,
            layers=options.layers,
            residual_weight=options.keep,
            batch_mixing=options.batch_mixing,
        )


@METHODS.register("dfsp-t2i")
class DfspT2I(Dfsp):
    """DFSP with text-to-image fusion: the image attends to texts."""

    version = 1
    display_name = "DFSP (t2i)"
    citation = CITATION
    Options = FusionOptions
    translation = translation_of("txt2img")

    def fusion(self, options: FusionOptions) -> FusionSettings:  # type: ignore[override]
        return FusionSettings(text_to_image=True, layers=options.layers, residual_weight=options.keep)


@METHODS.register("dfsp-bif")
class DfspBif(Dfsp):
    """DFSP with bidirectional fusion: texts and image attend to each other."""

    version = 1
    display_name = "DFSP (BiF)"
    citation = CITATION
    Options = ImageToTextOptions
    translation = translation_of("BiFusion")

    def fusion(self, options: ImageToTextOptions) -> FusionSettings:  # type: ignore[override]
        return FusionSettings(
            image_to_text=True,
            text_to_image=True,
            layers=options.layers,
            residual_weight=options.keep,
            batch_mixing=options.batch_mixing,
        )


@METHODS.register("dfsp-spm")
class DfspSpm(Dfsp):
    """DFSP without fusion: only the soft prompt."""

    version = 1
    display_name = "DFSP (SPM)"
    citation = CITATION
    translation = translation_of("OnlySPM")
