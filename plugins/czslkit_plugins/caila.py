"""CAILA: a CLIP with adapters for attributes, objects and pairs, and a joint pass over the tokens of two passes.

Zheng, Zhu and Nevatia, "CAILA: Concept-Aware Intra-Layer Adapters for Compositional Zero-Shot Learning", WACV 2024.
https://arxiv.org/abs/2305.16681

An image goes through the lower blocks once with the adapters of attributes and once with those of objects. The upper
blocks then attend to the tokens of both passes, with all adapters together. Concept shift, an augmentation, takes the
tokens of one of the two passes from another image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from czslkit.backbones import load_backbone
from czslkit.backbones.adapters import ConceptAdapters, adapter_mode
from czslkit.components import Backbone, Head, cosine
from czslkit.loss_parts import report
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.training_hooks import TrainingData
from czslkit.translation import State, Translation
from czslkit.types import Batch, ImageFeatures, PairSpace, Scores, TextFeatures, pair_targets

from .caila_prompts import ATTR, OBJ, PAIR, ConceptPrompts

#: The two passes of an image, which are the modes of the image tower, and the mode of the joint pass.
CONCEPTS, MIXTURE = (ATTR, OBJ), "mixture"
#: Parameters of a CLIP that learn: its layer norms, both projections, its logit scale and its token embeddings.
LEARNED = r"(.*\.)?(ln_\w+\.(weight|bias)|proj|text_projection(\.\w+)?|logit_scale|token_embedding\.weight)"


@dataclass(frozen=True)
class ConceptFeatures(ImageFeatures):
    """Image features with those of the attribute pass and the object pass, ``[B, D]`` each, for the loss."""

    attr: Tensor | None = None
    obj: Tensor | None = None


class ConceptCosine(Head):
    """A head with a plain cosine for the ranking, and scaled cosines of pair, attribute and object for the loss.

    In training mode, the scores are the logits of the loss.

    Args:
        backbone: its ``scale`` is that of pairs, which may learn; those of attributes and objects start at 20 times it.
        dropout: dropout on the normalised feature of an image, only for pairs.
    """

    version = 1

    def __init__(self, backbone: Backbone, dropout: float = 0.0) -> None:
        super().__init__()
        self._backbone = [backbone]  # in a list, since an attribute would be a second copy in the state dict
        self.attr_scale, self.obj_scale = (nn.Parameter(backbone.scale.detach() + math.log(20)) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        if self.training:
            return self.logits(image, text)
        assert text.pair is not None
        return Scores(cosine(image.pooled, text.pair, text.pair.new_zeros(())))

    def logits(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        """Return the logits of the loss; those of attributes and objects need :class:`ConceptFeatures`."""
        assert text.pair is not None and text.attr is not None and text.obj is not None
        view = self.dropout(F.normalize(image.pooled, dim=-1))  # not normalised again
        scores = Scores(self._backbone[0].scale.exp() * view @ F.normalize(text.pair, dim=-1).T)
        if not isinstance(image, ConceptFeatures) or image.attr is None or image.obj is None:
            return scores
        attr, obj = cosine(image.attr, text.attr, self.attr_scale), cosine(image.obj, text.obj, self.obj_scale)
        return replace(scores, attr=attr, obj=obj)

    def score_scale(self) -> float:
        return float(self._backbone[0].scale.detach().exp())

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        """Return the sum of the three cross-entropies.

        Args:
            scores: what ``logits`` returned.
        """
        assert scores.attr is not None and scores.obj is not None
        branches = (scores.pair, pair_targets(batch, pairs)), (scores.obj, batch.obj), (scores.attr, batch.attr)
        losses = (F.cross_entropy(*branch) for branch in branches)
        return torch.stack([*map(report, ("pair", "obj", "attr"), losses)]).sum()


@dataclass(frozen=True)
class CailaOptions:
    """The options of CAILA."""

    backbone: str = option("ViT-L-14-quickgelu/openai", "CLIP model and weights")
    fusion_start: int | None = option(
        None, "first block of the joint pass, counted from 0; the middle of the tower if not set", minimum=0
    )
    reduction: int = option(4, "width of the tokens divided by the width inside the adapters", minimum=1)
    text_adapters: bool = option(True, "true puts adapters into the text tower, too")
    dropout: float = option(0.5, "dropout on the normalised feature of an image", minimum=0, maximum=1)
    shift: float = option(0.1, "probability of a concept shift of an image", minimum=0, maximum=1)
    object_share: float = option(0.5, "share of the shifts that shift the object", minimum=0, maximum=1)


def _adapter_name(match: re.Match[str]) -> str:
    """Return the authors' name of an adapter's tensor; a block has two adapters, after its attention and its MLP."""
    tower, number = "text" if match[1] else "vision", int(match[2])
    place = f"layers.{number // 2}.adapter{1 + number % 2}"
    return f"clip_model.{tower}_model.encoder.{place}.{match[3]}.{match[4]}_sampler"


def _sizes(state: State) -> dict[str, Any]:
    """Return the options that the names and shapes of the authors' tensors determine."""
    found = [
        (match[1], int(match[2]), match[3], tensor.shape)
        for name, tensor in state.items()
        if (match := re.fullmatch(r"clip_model\.(\w+)_model\..*\.(\d+)\.adapter1\.(\w+)\.down_sampler\.weight", name))
    ]
    sizes: dict[str, Any] = {"text_adapters": any(tower == "text" for tower, *_ in found)}
    if fused := [block for _, block, concept, _ in found if concept == MIXTURE]:
        sizes["fusion_start"] = min(fused)
    if found and len(shape := found[0][3]) == 2 and shape[0]:
        sizes["reduction"] = max(1, shape[1] // shape[0])
    return sizes


@METHODS.register("caila")
class Caila(Method):
    """CAILA: adapters for each concept, two passes of the image tower, and a joint pass over their tokens."""

    version = 1
    display_name = "CAILA"
    citation = """
@inproceedings{zheng2024caila,
  author = {Zheng, Zhaoheng and Zhu, Haidong and Nevatia, Ram},
  title = {{CAILA}: Concept-Aware Intra-Layer Adapters for Compositional Zero-Shot Learning},
  booktitle = {Winter Conference on Applications of Computer Vision},
  year = {2024}
}
"""
    Options = CailaOptions
    recipe: ClassVar[Mapping[str, Any]] = {
        "lr": 1e-5,
        "weight_decay": 5e-5,
        "batch_size": 16,
        "schedule": "constant",
        "epochs": 21,
    }
    translation = Translation(
        names={
            r"backbone\.(text_)?adapters\.(\d+)\.concepts\.(\w+)\.(down|up)": _adapter_name,
            r"head\.(attr|obj)_scale": r"\1_logit_scale",
        },
        settings={
            "concept_shift_prob": "shift",
            "enable_text_adapter": "text_adapters",
            "fusion_start_layer": "fusion_start",
            "img_dropout": "dropout",
            "obj_shift_ratio": "object_share",
            "reduction_factor": "reduction",
        },
        fixed={
            "adapter_start_layer": 0,
            "combination_ops": "mean",
            "combine_latent": True,
            "enable_vision_adapter": True,
            "mixup_ratio": 0,
        },
        sizes=_sizes,
        sections={"net": ""},
        inside_clip=r".*\.adapter[12]\..*",
        ignored=tuple(
            """
            adapter_end_layer batch_size clean_only clip_config combine_output config cpu_eval cv_dir data_dir device
            dist_url distributed eval_val_every fp16 fusion_end_layer lambda_hsic learnable_prompt load logpath lrg
            margin max_epochs model name norm_family num_negs pair_dropout save_every splitname subset
            test_batch_size test_set train_only wd workers world_size
            """.split()  # noqa: SIM905
        ),
    )

    def __init__(self, options: CailaOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        depth = backbone.depth
        start = depth // 2 if options.fusion_start is None else options.fusion_start
        if start >= depth:
            raise ValueError(
                f"fusion_start is {start}, but the backbone has {depth} visual blocks; expected one of the "
                "blocks, counted from 0, of a CLIP with a vision transformer"
            )
        _add_adapters(backbone, options, start)
        for name, parameter in backbone.named_parameters():
            if re.fullmatch(LEARNED, name):
                parameter.requires_grad_(True)
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=ConceptPrompts(backbone, space),
            head=ConceptCosine(backbone, options.dropout),
        )
        self.lower, self.upper = range(start), range(start, depth)
        self.shift, self.object_share = options.shift, options.object_share

    def encode(self, images: Tensor) -> ImageFeatures:
        """Return the pair feature of images; in training mode also the features of the two passes."""
        return self.encode_views(dict.fromkeys(CONCEPTS, images), concepts=self.training)

    def encode_views(self, views: Mapping[str, Tensor], *, concepts: bool) -> ConceptFeatures:
        """Return the features of images of which each pass may have another view.

        Args:
            views: pixels for the attribute pass and for the object pass, ``[B, 3, H, W]`` each.
            concepts: also finish the two passes, for the loss.
        """
        streams, features = {}, {}
        for concept, images in views.items():
            with adapter_mode(concept):
                tokens = self.backbone.run_image_blocks(self.backbone.embed_image(images), self.lower)
                streams[concept] = tokens  # [B, T, V]
                if concepts:
                    last = self.backbone.run_image_blocks(tokens, self.upper)[:, 0]
                    features[concept] = self.backbone.project_image(last)
        with adapter_mode(MIXTURE):
            joint = self.backbone.run_image_blocks(torch.cat([streams[concept] for concept in CONCEPTS], 1), self.upper)
        classes = (joint[:, 0] + joint[:, streams[ATTR].shape[1]]) / 2  # the class tokens of both passes
        pooled = self.backbone.project_image(classes)
        return ConceptFeatures(pooled, attr=features.get(ATTR), obj=features.get(OBJ))

    def companions(self, data: TrainingData, index: Tensor, generator: Generator) -> Mapping[str, Tensor]:
        """Draw the partners of the images that are shifted: for the new attribute, or for the new object.

        The new attribute (object) is seen in training with the object (attribute) of the image, and is another one if
        there is any. The partner is a training image of it, whatever its object (attribute).
        """
        if not self.shift:
            return {}

        def one_of(values: Tensor) -> Tensor:
            return values[torch.randint(len(values), (), generator=generator)]

        labels = {ATTR: data.attr, OBJ: data.obj}
        partners = {concept: torch.full((len(index),), -1) for concept in CONCEPTS}
        is_object = torch.rand(len(index), generator=generator) < self.object_share
        for row in (torch.rand(len(index), generator=generator) < self.shift).nonzero()[:, 0].tolist():
            new, kept = (OBJ, ATTR) if is_object[row] else (ATTR, OBJ)
            image = index[row]
            known = labels[new][labels[kept] == labels[kept][image]].unique()
            others = known[known != labels[new][image]]
            value = one_of(others if len(others) else known)
            partners[new][row] = one_of((labels[new] == value).nonzero()[:, 0])
        return partners

    def shifted(self, batch: Batch, pairs: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        """Return a batch with the labels after the concept shift, and the images that each pass encodes.

        A shift to a pair that is not among the candidates ``pairs`` is left out.
        """
        assert isinstance(batch.images, Tensor)
        views = dict.fromkeys(CONCEPTS, batch.images)
        for concept, partner in batch.companions.items():
            assert isinstance(partner.images, Tensor) and partner.rows is not None
            rows = partner.rows
            labels = {ATTR: batch.attr[rows], OBJ: batch.obj[rows]}
            shown = labels | {concept: partner.attr if concept == ATTR else partner.obj}
            kept = (torch.stack([shown[ATTR], shown[OBJ]], 1)[:, None] == pairs).all(-1).any(1)  # [k]
            images = torch.where(kept[:, None, None, None], partner.images, batch.images[rows])
            views[concept] = batch.images.index_copy(0, rows, images)
            new = torch.where(kept, shown[concept], labels[concept])
            if concept == ATTR:
                batch = replace(batch, attr=batch.attr.index_copy(0, rows, new))
            else:
                batch = replace(batch, obj=batch.obj.index_copy(0, rows, new))
        return batch, views

    def loss(self, batch: Batch, pairs: Tensor) -> Tensor:
        return self._loss(batch, self.text(pairs))

    def validation_loss(
        self, batch: Batch, text: TextFeatures, *, fused: bool = False
    ) -> Tensor | Mapping[str, Tensor]:
        return super().validation_loss(batch, text, fused=True) if fused else self._loss(batch, text)

    def _loss(self, batch: Batch, text: TextFeatures) -> Tensor:
        assert isinstance(self.head, ConceptCosine)
        batch, views = self.shifted(batch, text.pairs)
        logits = self.head.logits(self.encode_views(views, concepts=True), text)
        return self.head.loss(logits, batch, text.pairs)


def _add_adapters(backbone: Backbone, options: CailaOptions, fusion_start: int) -> None:
    """Add adapters after the attention and the MLP of every block, block by block."""

    def add(tower: str, block: int, concepts: Sequence[str], mixture: str | None) -> None:
        def make(width: int) -> ConceptAdapters:
            return ConceptAdapters(width, max(1, width // options.reduction), concepts, mixture)

        backbone.add_adapters(make, tower=tower, blocks=[block], kinds=("after_attention", "after_mlp"))

    for block in range(backbone.depth):
        add("visual", block, CONCEPTS, MIXTURE if block >= fusion_start else None)
    for block in range(backbone.text_depth if options.text_adapters else 0):
        add("text", block, (PAIR, *CONCEPTS), None)
