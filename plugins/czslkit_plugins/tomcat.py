"""TOMCAT: CLIP with adapters and a soft prompt, which adapts to the test images while it names them.

Yan et al., "TOMCAT: Test-time Comprehensive Knowledge Accumulation for Compositional Zero-Shot Learning", NeurIPS 2025.
https://arxiv.org/abs/2510.20162

This module adds the stream of test images. The adapters are those of Troika.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.online import AdamWTable, EntropyQueues, entropy
from czslkit.options import option
from czslkit.precision import unrounded
from czslkit.prompts import LearnedWordOptions, SoftPrompt
from czslkit.translation import Translation
from czslkit.types import VALIDATION, Batch, ImageFeatures, PairSpace, Scores, Setting, TextFeatures

from .troika import SHARED_NAMES, shared_sizes


@dataclass(frozen=True)
class TomcatOptions(LearnedWordOptions):
    """The options of TOMCAT; those of the test have the values for MIT-States."""

    context_length: int = option(10, "number of tokens of a prompt, including both marks", minimum=5)
    adapter_dim: int = option(64, "bottleneck width of the adapters", minimum=1)
    adapter_dropout: float = option(0.1, "dropout inside the adapters", minimum=0, maximum=1)
    loss_weight: float = option(1.0, "weight of the cross-entropy of training", minimum=0)
    adapt: bool = option(True, "adapt to the test images; without it, the method is a usual, inductive one")
    theta: float = option(1.5, "sharpness of the weights of residuals", minimum=0)
    alpha: float = option(1.25, "weight of the similarity to images of the queues in the scores", minimum=0)
    beta: float = option(10.0, "sharpness of the similarity to images of the queues", minimum=0)
    text_lr: float = option(1e-6, "learning rate of the residuals of texts", minimum=0)
    image_lr: float = option(1e-6, "learning rate of the residuals of images", minimum=0)
    eps: float = option(1e-3, "eps of AdamW in the test", minimum=0)
    decay: float = option(1e-4, "decoupled weight decay of the residuals", minimum=0)
    queue: bool = option(True, "keep the test images with the lowest entropy of every pair")
    shot_capacity: int = option(3, "number of test images that are kept for a pair", minimum=1)
    align: bool = option(True, "align the texts and the kept images of pairs; it needs the queue")
    align_weight: float = option(2.5, "weight of the alignment in the loss of the test", minimum=0)

    def __post_init__(self) -> None:
        if self.align and not self.queue:
            raise ValueError("align is true and queue is false: without kept images set align to false, too")


class WeightedCosine(CosineHead):
    """A head with the scaled cosine of image and pair, and a weighted cross-entropy over the candidates."""

    version = 1

    def __init__(self, scale: Tensor, weight: float) -> None:
        super().__init__(scale)
        self.weight = weight

    def loss(self, scores: Scores, batch: Batch, pairs: Tensor) -> Tensor:
        return self.weight * super().loss(scores, batch, pairs)


@dataclass(frozen=True)
class Step:
    """What a stream computed for one image, before it adapted to the image."""

    scores: Tensor  # by which pairs are ranked, [P]
    cosines: Tensor  # scores without the similarity to kept images, [P]; their entropy is that of a queue
    loss: Tensor  # a scalar
    alignment: Tensor  # its part of the loss, without its weight; a scalar


class Stream:
    """The state of a pass over the test images: residuals of texts and images, and queues of images.

    Args:
        options: options of the method.
        text: normalised texts of the candidates, ``[P, D]``.
        scale: logit scale, a scalar.
    """

    def __init__(self, options: TomcatOptions, text: Tensor, scale: Tensor) -> None:
        self.options, self.text, self.scale = options, text, scale
        self.text_residuals = AdamWTable(text)
        self.image_residuals = AdamWTable(text[:0])  # of the pairs with a queue; the others would stay 0
        self.queues = EntropyQueues(options.shot_capacity, text)

    def adapt(self, image: Tensor) -> Step:
        """Score an image, then adapt to it.

        Args:
            image: normalised feature, ``[D]``.
        """
        options, queues = self.options, self.queues
        with torch.enable_grad():
            text_residuals = self.text_residuals.leaf()
            text = self._moved(self.text, text_residuals, image)  # [P, D]
            cosines = self.scale * (text @ image)
        if options.queue:
            logits = cosines.detach()
            queues.add(int(logits.argmax()), float(entropy(logits)), image)  # the image is in its own queue
            self.image_residuals.extend(len(queues.pairs))
        with torch.enable_grad():
            scores, residuals, aligned = cosines, [text_residuals], cosines.new_zeros(())
            if options.queue:
                residuals.append(self.image_residuals.leaf())
                kept = self._moved(queues.means, residuals[1], image)  # [G, D]
                near = options.alpha * torch.exp(-options.beta * (1 - kept @ image))
                scores = cosines.index_add(0, queues.pairs, near)
                if options.align:
                    aligned = alignment(self.scale * kept @ text[queues.pairs].T)
            loss = entropy(scores) + options.align_weight * aligned
        gradients = torch.autograd.grad(loss, residuals)
        self.text_residuals.step(gradients[0], options.text_lr, options.eps, options.decay)
        if options.queue:
            self.image_residuals.step(gradients[1], options.image_lr, options.eps, options.decay)
        return Step(scores.detach(), cosines.detach(), loss.detach(), aligned.detach())

    def _moved(self, features: Tensor, residuals: Tensor, image: Tensor) -> Tensor:
        """Return normalised ``features`` ``[N, D]`` plus their residuals; those least like the image have most."""
        weights = torch.sigmoid(-self.options.theta * (features @ image))
        return F.normalize(features + weights[:, None] * residuals, dim=-1)


def alignment(similarity: Tensor) -> Tensor:
    """Return the mean cross-entropy of rows and of columns ``[G, G]``, where each belongs to the diagonal."""
    target = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


@METHODS.register("tomcat")
class Tomcat(Method):
    """TOMCAT: adapters, learned context and words; in the test residuals that adapt image by image."""

    version = 1
    display_name = "TOMCAT"
    citation = """
@inproceedings{yan2025tomcat,
  author = {Yan, Xudong and Feng, Songhe},
  title = {{TOMCAT}: Test-time Comprehensive Knowledge Accumulation for Compositional Zero-Shot Learning},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2025}
}
"""
    Options = TomcatOptions
    translation = Translation(
        names={**SHARED_NAMES, r"prompt\.words": "soft_a_and_o_embedding"},
        settings={
            "ctx_init": "context",
            "attr_dropout": "word_dropout",
            "comp_cls_loss_weight": "loss_weight",
            "use_tta": "adapt",
            "wd": "decay",
            "use_img_cache": "queue",
            "use_align_loss": "align",
            "align_loss_weight": "align_weight",
        },
        fixed={"use_adapter": True},
        sizes=shared_sizes,
        ignored=("cpu_cache", "eval_batch_size_wo_tta", "use_mixed_precision", "use_wandb"),
    )
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-4, "weight_decay": 1e-4}
    streams = True
    streams_in_validation = False
    chunkable = False  # the entropy is that of all candidates

    def __init__(self, options: TomcatOptions, space: PairSpace) -> None:
        backbone = load_backbone(
            options.backbone, adapter_dim=options.adapter_dim, adapter_dropout=options.adapter_dropout
        )
        prompt = SoftPrompt(
            backbone,
            space,
            context=options.context,
            learn_context=True,
            dropout=options.word_dropout,
            context_length=options.context_length,
        )
        head = WeightedCosine(backbone.scale, options.loss_weight)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=head)
        self.options, self.streams = options, options.adapt
        self.adapting = False  # whether a pass over the test images has begun
        self.stream: Stream | None = None  # its state, from the first image on

    def begin(self, setting: Setting, candidates: Tensor) -> None:
        self.adapting, self.stream = self.streams and setting.split == "test", None

    def rank(self, images: Tensor | ImageFeatures, text: TextFeatures, setting: Setting = VALIDATION) -> Tensor:
        """Return the scores by which pairs are ranked; after ``begin``, adapt to the images one after the other."""
        if not self.adapting:
            return super().rank(images, text, setting)
        assert text.pair is not None
        image = images if isinstance(images, ImageFeatures) else self.encode(images)
        with torch.no_grad(), unrounded(self.device):
            if self.stream is None:
                text_features = F.normalize(text.pair.float(), dim=-1)
                self.stream = Stream(self.options, text_features, self.backbone.scale.exp())
            return torch.stack([self.stream.adapt(row).scores for row in F.normalize(image.pooled.float(), dim=-1)])
