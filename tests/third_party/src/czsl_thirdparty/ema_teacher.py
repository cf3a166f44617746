"""EMA teacher: an average of the weights teaches the learned words, and is what is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from czslkit.backbones import load_backbone
from czslkit.heads import CosineHead
from czslkit.method import METHODS, Method
from czslkit.options import option
from czslkit.prompts import LearnedWordOptions, SoftPrompt
from czslkit.training_hooks import AveragedWeights, TrainingPosition
from czslkit.types import Batch, PairSpace, Scores


@dataclass(frozen=True)
class EmaTeacherOptions(LearnedWordOptions):
    decay: float = option(0.9, "weight of the old average in an update", minimum=0, maximum=1)
    teaching: float = option(1.0, "weight of the divergence from the teacher", minimum=0)


@METHODS.register("ema-teacher")
class EmaTeacher(Method):
    """CSP that is also trained towards the scores of its averaged weights (Tarvainen and Valpola, NeurIPS 2017)."""

    version = 1
    Options = EmaTeacherOptions
    recipe: ClassVar[Mapping[str, Any]] = {"lr": 1e-3}

    def __init__(self, options: EmaTeacherOptions, space: PairSpace) -> None:
        backbone = load_backbone(options.backbone)
        prompt = SoftPrompt(backbone, space, context=options.context, dropout=options.word_dropout)
        super().__init__(space=space, backbone=backbone, prompt=prompt, head=CosineHead(backbone.scale))
        self.teaching = options.teaching
        self.teacher = AveragedWeights(self, options.decay)

    def loss(self, batch: Batch, pairs: Tensor) -> dict[str, Tensor]:
        scores = self(batch.images, self.text(pairs))
        divergence = F.kl_div(scores.pair.log_softmax(1), self._teacher_scores(batch, pairs), reduction="batchmean")
        return {"pair": self.head.loss(scores, batch, pairs), "teacher": self.teaching * divergence}

    @torch.no_grad()
    def _teacher_scores(self, batch: Batch, pairs: Tensor) -> Tensor:
        """Return the probabilities of the pairs with the averaged weights, ``[B, P]``."""
        prompt = {name.removeprefix("prompt."): value for name, value in self.teacher.tensors().items()}
        text = functional_call(self.prompt, prompt, (self.backbone, pairs))
        scores: Scores = self(batch.images, text)
        return scores.pair.softmax(1)

    def after_step(self, position: TrainingPosition) -> None:
        self.teacher.update(self)

    def evaluation_weights(self) -> Mapping[str, Tensor]:
        return self.teacher.tensors()
