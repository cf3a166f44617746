"""DFSP: texts are taken apart into attributes and objects, mixed with the image, and put together.

Lu et al., "Decomposed Soft Prompt Guided Fusion Enhancing for Compositional Zero-Shot
Learning", CVPR 2023. https://arxiv.org/abs/2211.10681

Four variants: ``dfsp-i2t`` lets texts read the image, ``dfsp-t2i`` the image read texts,
``dfsp-bif`` both, ``dfsp-spm`` neither (the soft prompt alone).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.backbones import load_backbone
from czslkit.backbones.openai_format import HEAD_WIDTH
from czslkit.components import HEADS, INTERACTIONS, Backbone, Head, Interaction, cosine
from czslkit.interactions import QuickGELU
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import SoftPrompt, in_parts
from czslkit.translation import State, Translation, count
from czslkit.types import Batch, ImageFeatures, PairSpace, Scores, TextFeatures, pair_targets

PAIRS = 1024  # scored at a time


@dataclass(frozen=True)
class Image(ImageFeatures):
    before: Tensor | None = None  # [B, D], ``pooled`` before texts were mixed in


@dataclass(frozen=True)
class Text(TextFeatures):
    """``pair`` is the soft prompt alone; the rest is what is mixed in."""

    parts: Tensor | None = None  # [A + O, L, W]; mean over the pairs of each attribute and object
    read: Tensor | None = None  # [B, A + O, W], at the end mark, once texts have read the image
    refined: Tensor | None = None  # [P, D], where texts only pass self-attention

    def by_pair(self) -> dict[str, Tensor | None]:
        return super().by_pair() | {"refined": self.refined}


class Block(nn.Module):
    """Pre-norm attention and MLP, both residual, on ``[N, L, W]``; reads itself or a second sequence."""

    def __init__(self, width: int, *, cross: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, max(1, width // HEAD_WIDTH), batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.norm_other = nn.LayerNorm(width) if cross else None
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), QuickGELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        query = self.norm(x)
        context = query if self.norm_other is None else self.norm_other(other)
        x = x + self.attn(query, context, context, need_weights=False)[0]
        mixed: Tensor = x + self.mlp(self.norm_mlp(x))
        return mixed


def refine(width: int, layers: int) -> nn.Sequential:
    """The self-attention that follows every fusion."""
    return nn.Sequential(*(Block(width, dropout=0.3) for _ in range(layers)))


class ImageToText(nn.Module):
    """The parts of the texts read an image's tokens, which are first mapped onto as many places.

    Args:
        visual_width, width: of image tokens ``V`` and text tokens ``W``.
        tokens: of an image, ``T``.
        parts: attributes and objects, ``A + O``.
        length: tokens of a prompt, ``L``.
        layers: of self-attention afterwards.
        mixing: ``original`` lets the images of a batch see each other as in the released program.
    """

    def __init__(
        self, visual_width: int, width: int, tokens: int, parts: int, length: int, layers: int, mixing: str
    ) -> None:
        super().__init__()
        self.parts, self.length, self.mixing = parts, length, mixing
        self.project, self.place = nn.Linear(visual_width, width), nn.Linear(tokens, length * parts)
        self.dropout = nn.Dropout(0.3)
        self.cross, self.refine = Block(width, cross=True), refine(width, layers)

    def forward(self, tokens: Tensor, parts: Tensor) -> Tensor:
        """``[B, T, V]`` and ``[A + O, L, W]`` to ``[B, A + O, L, W]``."""
        images = len(tokens)
        placed = self.place(self.project(tokens).transpose(1, 2)).transpose(1, 2)  # [B, L * (A + O), W]
        placed = self.dropout(placed)
        if self.mixing == "original":  # images are the inner axis when places are told apart
            placed = placed.transpose(0, 1).reshape(1, images * self.length, self.parts, -1)
        else:
            placed = placed.reshape(images, self.length, self.parts, -1)
        groups = len(placed)  # that do not see each other: images, or the batch as a whole
        context = placed.transpose(1, 2).flatten(0, 1)  # [groups * (A + O), ..., W]
        query = parts.repeat(groups, images // groups, 1)
        read: Tensor = self.refine(self.cross(query, context))
        read = read.view(groups, self.parts, images // groups, self.length, -1)
        return read.transpose(1, 2).flatten(0, 1)


class TextToImage(nn.Module):
    """The image's tokens read the parts of the texts, which are first mapped onto as many places.

    Args: see :class:`ImageToText`.
    """

    def __init__(self, visual_width: int, width: int, tokens: int, parts: int, length: int) -> None:
        super().__init__()
        self.project, self.place = nn.Linear(width, visual_width), nn.Linear(length * parts, tokens)
        self.dropout = nn.Dropout(0.3)
        self.cross = Block(visual_width, cross=True)

    def forward(self, tokens: Tensor, parts: Tensor) -> Tensor:
        """``[B, T, V]`` and ``[A + O, L, W]`` to ``[B, T, V]``."""
        flat = self.project(parts).transpose(0, 1).flatten(0, 1)  # [L * (A + O), V]
        placed = self.dropout(self.place(flat.T)).T  # [T, V], the same for every image
        mixed: Tensor = self.cross(tokens, placed.expand(len(tokens), -1, -1))
        return mixed


@INTERACTIONS.register("decomposed_fusion")
class DecomposedFusion(Interaction):
    """Image tokens and the parts of texts read each other, as the variant says.

    Args:
        backbone: supplies widths and the number of visual tokens.
        parts: attributes and objects, ``A + O``.
        length: tokens of a prompt, ``L``.
        end: where a prompt is read.
        image_to_text, text_to_image: which way information goes.
        layers: of self-attention after the fusion.
        keep: share of the features without fusion in the mixture.
        mixing: see :class:`ImageToText`.
    """

    def __init__(
        self,
        backbone: Backbone,
        parts: int,
        length: int,
        end: int,
        *,
        image_to_text: bool,
        text_to_image: bool,
        layers: int = 1,
        keep: float = 0.8,
        mixing: str = "none",
    ) -> None:
        super().__init__()
        if (image_to_text or text_to_image) and not backbone.visual_tokens:
            raise ValueError("the fusion needs the tokens of a vision transformer, the backbone returns none")
        self.end, self.keep = end, keep
        sizes = backbone.visual_width, backbone.token_width, backbone.visual_tokens, parts, length
        self.image_to_text = ImageToText(*sizes, layers, mixing) if image_to_text else None
        self.text_to_image = TextToImage(*sizes) if text_to_image else None
        self.reads_tokens = fuses = image_to_text or text_to_image
        self.refine_image = refine(backbone.visual_width, layers) if fuses else None
        self.refine_text = refine(backbone.token_width, layers) if text_to_image and not image_to_text else None

    def refined(self, text: TextFeatures, backbone: Backbone) -> Tensor:
        """What self-attention alone makes of texts that do not read the image, ``[P, D]``."""
        assert self.refine_text is not None
        return backbone.project_text(self.refine_text(text.tokens)[:, self.end])

    def forward(
        self, image: ImageFeatures, text: TextFeatures, backbone: Backbone
    ) -> tuple[ImageFeatures, TextFeatures]:
        assert isinstance(text, Text) and text.parts is not None
        if not self.reads_tokens:
            return Image(image.pooled, before=image.pooled), text
        assert image.tokens is not None and self.refine_image is not None
        tokens = image.tokens
        if self.image_to_text is not None:
            text = replace(text, read=self.image_to_text(tokens, text.parts)[:, :, self.end])
        if self.text_to_image is not None:
            tokens = self.text_to_image(tokens, text.parts)
        fused = backbone.project_image(self.refine_image(tokens)[:, 0])
        return Image(self.keep * image.pooled + (1 - self.keep) * fused, before=image.pooled), text


@dataclass(frozen=True)
class DfspScores(Scores):
    soft: Tensor | None = None  # [B, P], of the soft prompt and the image, neither mixed with the other


@HEADS.register("decomposed")
class DecomposedHead(Head):
    """Cosine of the mixtures; attributes and objects score the mean of their pairs without fusion.

    Args:
        backbone: projects what is put together.
        num_attrs, num_objs: ``A`` and ``O``.
        compose: texts have read the image in parts, which are multiplied into pairs.
        keep: share of the features without fusion in the mixture.
        primitive_weight, soft_weight: of the cross-entropies of both primitives and of the soft prompt.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_attrs: int,
        num_objs: int,
        *,
        compose: bool,
        keep: float = 0.8,
        primitive_weight: float = 0.01,
        soft_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.register_buffer("scale", backbone.scale.detach().clone(), persistent=False)
        self.scale: Tensor
        self.num_attrs, self.num_objs, self.keep = num_attrs, num_objs, keep
        self.primitive_weight, self.soft_weight = primitive_weight, soft_weight
        width = backbone.token_width
        self.compose = nn.Linear(width, width) if compose else None
        self._project = backbone.project_text

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        assert isinstance(image, Image) and isinstance(text, Text) and text.pair is not None
        assert image.before is not None
        chunks = torch.arange(len(text.pairs), device=text.pairs.device).split(PAIRS)
        mixed = torch.cat([cosine(image.pooled, self._mixture(text, rows), self.scale) for rows in chunks], 1)
        soft = cosine(image.before, text.pair, self.scale)  # [B, P]
        attr, obj = (
            _means(soft, index, size) for index, size in zip(text.pairs.T, (self.num_attrs, self.num_objs), strict=True)
        )
        return DfspScores(mixed, attr, obj, soft)

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        assert isinstance(scores, DfspScores)
        assert scores.attr is not None and scores.obj is not None and scores.soft is not None
        target = pair_targets(batch, pairs)
        primitives = F.cross_entropy(scores.attr, batch.attr) + F.cross_entropy(scores.obj, batch.obj)
        soft = F.cross_entropy(scores.soft, target)
        return F.cross_entropy(scores.pair, target) + self.primitive_weight * primitives + self.soft_weight * soft

    def _mixture(self, text: Text, rows: Tensor) -> Tensor:
        """What some pairs are compared with, ``[N, D]`` or ``[B, N, D]``."""
        assert text.pair is not None
        pair = text.pair[rows]
        if self.compose is not None:
            assert text.read is not None
            attr, obj = text.pairs[rows].T
            fused = self._project(self.compose(text.read[:, attr] * text.read[:, self.num_attrs + obj]))
        elif text.refined is not None:
            fused = text.refined[rows]
        else:
            return pair
        return self.keep * pair + (1 - self.keep) * fused


def _means(scores: Tensor, index: Tensor, size: int) -> Tensor:
    """Mean over the columns of ``scores`` ``[B, P]`` that ``index`` ``[P]`` puts together, ``[B, size]``.

    What no column belongs to can never be right: it gets the least number there is.
    """
    counts = index.bincount(minlength=size)
    sums = scores.new_zeros(len(scores), size).index_add(1, index, scores)
    return (sums / counts.clamp(min=1)).masked_fill(counts == 0, torch.finfo(scores.dtype).min)


@dataclass(frozen=True)
class DfspOptions:
    backbone: str = option("ViT-L-14-quickgelu/openai", "CLIP model and weights")
    context: str = option("a photo of", "words that the learned context starts from")
    context_length: int = option(8, "tokens of a prompt, marks included", minimum=5)
    word_dropout: float = option(0.3, "dropout on the learned words", minimum=0, maximum=1)
    primitive_loss_weight: float = option(0.01, "of the attribute and object cross-entropies", minimum=0)
    soft_loss_weight: float = option(0.1, "of the soft prompt's cross-entropy", minimum=0)


@dataclass(frozen=True)
class FusionOptions(DfspOptions):
    layers: int = option(1, "self-attention layers after the fusion", minimum=0)
    keep: float = option(0.8, "share of the features without fusion", minimum=0, maximum=1)


@dataclass(frozen=True)
class ReadingOptions(FusionOptions):
    batch_mixing: Literal["none", "original"] = option("none", "original lets the images of a batch see each other")


def _sizes(state: State) -> dict[str, int]:
    sizes = {}
    if blocks := count(state, r"fusion\.resblocks_img\.(\d+)\."):
        sizes["layers"] = blocks
    if (positions := state.get("clip.positional_embedding")) is not None:
        sizes["context_length"] = len(positions)
    return sizes


def _without_layers(state: State) -> dict[str, int]:
    return {option: size for option, size in _sizes(state).items() if option != "layers"}


def _translation(fusion: str) -> Translation:
    """Of the variant that the authors call ``fusion``."""
    return Translation(
        names={
            r"prompt\.words": "soft_att_obj",
            r"prompt\.context\.0": "soft_prompt",
            r"interaction\.image_to_text\.(cross|refine)": r"interaction.\1_text",
            r"interaction\.text_to_image\.cross": "interaction.cross_image",
            r"interaction\.cross_(text|image)\.norm\.": r"interaction.cross_\1.ln_x.",
            r"\.norm_other\.": ".ln_y.",
            r"\.norm\.": ".ln_1.",
            r"\.norm_mlp\.": ".ln_2.",
            r"\.mlp\.0\.": ".mlp.c_fc.",
            r"\.mlp\.3\.": ".mlp.c_proj.",
            r"interaction\.image_to_text\.": "fusion.img2txt_transform_",
            r"interaction\.text_to_image\.": "fusion.txt2img_transform_",
            r"_transform_project": "_transform_layer1",
            r"_transform_place": "_transform_layer2",
            r"interaction\.cross_text": "fusion.crossblock_txt",
            r"interaction\.cross_image": "fusion.crossblock_img",
            r"interaction\.refine_text": "fusion.resblocks_txt",
            r"interaction\.refine_image": "fusion.resblocks_img",
            r"head\.compose": "fusion.txt_fine_tune",
        },
        unused=r"fusion\.((img2txt|txt2img)_transform_layer[12]|crossblock_(img|txt)|resblocks_(img|txt)\.\d+|"
        r"txt_fine_tune)\..*",
        settings={
            "attr_dropout": "word_dropout",
            "att_obj_w": "primitive_loss_weight",
            "sp_w": "soft_loss_weight",
            **({} if fusion == "OnlySPM" else {"SA_K": "layers", "res_w": "keep"}),
        },
        fixed={"fusion": fusion},
        unseen=("fusion",),
        sizes=_without_layers if fusion == "OnlySPM" else _sizes,
    )


class Dfsp(Method):
    """A soft prompt, the fusion of its parts with the image, and four cross-entropies."""

    Options = DfspOptions
    #: Attributes and objects are means over the candidates.
    chunkable = False
    image_to_text: ClassVar[bool] = False
    text_to_image: ClassVar[bool] = False

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
        interaction = DecomposedFusion(
            backbone,
            len(space.attrs) + len(space.objs),
            options.context_length,
            prompt.end,
            image_to_text=self.image_to_text,
            text_to_image=self.text_to_image,
            layers=getattr(options, "layers", 0),
            keep=getattr(options, "keep", 1.0),
            mixing=getattr(options, "batch_mixing", "none"),
        )
        head = DecomposedHead(
            backbone,
            len(space.attrs),
            len(space.objs),
            compose=self.image_to_text,
            keep=interaction.keep,
            primitive_weight=options.primitive_loss_weight,
            soft_weight=options.soft_loss_weight,
        )
        super().__init__(space=space, backbone=backbone, prompt=prompt, interaction=interaction, head=head)
        self.independent = getattr(options, "batch_mixing", "none") == "none"

    def text(self, pairs: Tensor) -> Text:
        """Soft prompts of ``pairs`` ``[P, 2]`` and the parts they come apart into.

        An attribute or object that no pair holds has a part of zeros.
        """
        num_attrs, fusion = len(self.space.attrs), self.interaction
        assert isinstance(fusion, DecomposedFusion)
        sums = torch.zeros((), device=pairs.device)  # of tokens by attribute and by object, [A + O, L, W]

        def encode(rows: slice) -> Tensor:  # [n, D], or [n, 2 * D] with what self-attention makes of them
            nonlocal sums
            text, (attr, obj) = Method.text(self, pairs[rows]), pairs[rows].T
            assert text.tokens is not None and text.pair is not None
            if not sums.ndim:
                sums = text.tokens.new_zeros(num_attrs + len(self.space.objs), *text.tokens.shape[1:])
            sums = sums.index_add(0, attr, text.tokens).index_add(0, num_attrs + obj, text.tokens)
            if fusion.refine_text is None:
                return text.pair
            return torch.cat((text.pair, fusion.refined(text, self.backbone)), 1)

        found = in_parts(len(pairs), encode)
        counts = torch.cat((pairs[:, 0], num_attrs + pairs[:, 1])).bincount(minlength=len(sums)).clamp(min=1)
        pair, *refined = found.split(self.backbone.dim, 1)
        return Text(pairs, pair, parts=sums / counts[:, None, None], refined=refined[0] if refined else None)


@METHODS.register("dfsp-i2t")
class DfspI2T(Dfsp):
    """DFSP: texts read the image."""

    Options = ReadingOptions
    image_to_text = True
    translation = _translation("img2txt")


@METHODS.register("dfsp-t2i")
class DfspT2I(Dfsp):
    """DFSP: the image reads texts."""

    Options = FusionOptions
    text_to_image = True
    translation = _translation("txt2img")


@METHODS.register("dfsp-bif")
class DfspBif(Dfsp):
    """DFSP: texts and image read each other."""

    Options = ReadingOptions
    image_to_text = text_to_image = True
    translation = _translation("BiFusion")


@METHODS.register("dfsp-spm")
class DfspSpm(Dfsp):
    """DFSP: the soft prompt alone, without fusion."""

    translation = _translation("OnlySPM")
