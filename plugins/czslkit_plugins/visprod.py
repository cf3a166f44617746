"""VisProd: one classifier for attributes, one for objects, and the product of their probabilities.

This is the classical baseline of Misra, Gupta and Hebert, CVPR 2017. The name is from Nagarajan and Grauman,
"Attributes as Operators", ECCV 2018. https://arxiv.org/abs/1803.09851
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from czslkit.backbones import load_backbone
from czslkit.components import HEADS, Head
from czslkit.loss_parts import report
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.precision import at_least_fp32, unrounded
from czslkit.types import Batch, ImageFeatures, PairSpace, Scores, TextFeatures


class CandidatesOnly(nn.Module):
    """The prompt of a method without text, which returns the candidates without features."""

    version = 1

    def forward(self, backbone: nn.Module, pairs: Tensor) -> TextFeatures:
        return TextFeatures(pairs)


@HEADS.register("two_classifiers")
class TwoClassifiers(Head):
    """A head with two classifiers on the pooled image; the score of a pair is ``log p(attribute) + log p(object)``.

    Args:
        dim: width of the image features.
        attrs, objs: number of attributes ``A`` and of objects ``O``.
        hidden: width of a hidden layer; 0 for a linear classifier.
        dropout: dropout before every linear layer.
    """

    version = 1

    def __init__(self, dim: int, attrs: int, objs: int, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()

        def classifier(classes: int) -> nn.Sequential:
            hidden_layer = [nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout)] if hidden else []
            return nn.Sequential(nn.Dropout(dropout), *hidden_layer, nn.Linear(hidden or dim, classes))

        self.attr, self.obj = classifier(attrs), classifier(objs)

    def forward(self, image: ImageFeatures, text: TextFeatures) -> Scores:
        with unrounded(image.pooled.device):  # bfloat16 would leave 2 or 3 digits of a score
            pooled = at_least_fp32(image.pooled)
            attr, obj = self.attr(pooled), self.obj(pooled)
        pair = attr.log_softmax(-1)[:, text.pairs[:, 0]] + obj.log_softmax(-1)[:, text.pairs[:, 1]]
        return Scores(pair, attr, obj)

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        assert scores.attr is not None and scores.obj is not None
        attr, obj = F.cross_entropy(scores.attr, batch.attr), F.cross_entropy(scores.obj, batch.obj)
        return report("attr", attr) + report("obj", obj)


@dataclass(frozen=True)
class VisprodOptions:
    """The options of VisProd."""

    backbone: str = option("timm/resnet18", "image tower")
    image_size: int | None = option(None, "height and width in pixels; the tower's size if not set", minimum=8)
    tune: Literal["head", "all"] = option("head", "head trains the classifiers, all also trains the tower")
    hidden: int = option(0, "width of a hidden layer in each classifier; 0 for no hidden layer", minimum=0)
    dropout: float = option(0.0, "dropout before every linear layer of the classifiers", minimum=0, maximum=1)


@METHODS.register("visprod")
class Visprod(Method):
    """VisProd: separate attribute and object classifiers on an image tower."""

    version = 1
    display_name = "VisProd"
    citation = """
@inproceedings{misra2017redwine,
  author = {Misra, Ishan and Gupta, Abhinav and Hebert, Martial},
  title = {From Red Wine to Red Tomato: Composition with Context},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year = {2017}
}
"""
    Options = VisprodOptions

    def __init__(self, options: VisprodOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone, trainable=options.tune == "all")
        backbone.image_size = options.image_size or backbone.image_size
        super().__init__(
            space=space,
            backbone=backbone,
            prompt=CandidatesOnly(),
            head=TwoClassifiers(backbone.dim, len(space.attrs), len(space.objs), options.hidden, options.dropout),
        )
