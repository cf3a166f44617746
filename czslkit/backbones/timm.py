"""Image towers of timm, for methods without text features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..components import BACKBONES, Backbone
from ..errors import ConfigError, did_you_mean
from ..types import ImageFeatures
from ..weights import download_or_raise, load_strict, read_tensors


@BACKBONES.register("timm")
class Timm(Backbone):
    """A frozen timm model without its classifier for pooled features, selected by ``timm/MODEL/WEIGHTS``.

    ``WEIGHTS`` is ``pretrained`` (timm's own weights, the default), ``random``, or a file.

    Raises:
        ConfigError: timm has no such model, or the weights do not fit.
    """

    version = 1

    def __init__(self, argument: str = "resnet18") -> None:
        import timm

        super().__init__()
        name, _, weights = argument.partition("/")
        if not timm.is_model(name):
            raise ConfigError([f"timm has no model {name!r}.{did_you_mean(name, timm.list_models())}"])
        pretrained = weights in ("", "pretrained")
        tower: Any = download_or_raise(
            f"timm/{name}", lambda: timm.create_model(name, pretrained=pretrained, num_classes=0)
        )
        if Path(weights).is_file():
            load_strict(tower, read_tensors(weights))
        elif not pretrained and weights != "random":
            raise ConfigError([f"timm/{name}: {weights!r} is not pretrained, random or a file"])
        self.tower, config = tower.requires_grad_(False), tower.pretrained_cfg
        self.depth = self.visual_tokens = self.visual_width = self.token_width = 0
        self.image_size = config["input_size"][-1]
        with torch.no_grad():  # the width in a tower's configuration can differ from the width of its output
            self.dim = tower.eval()(torch.zeros(1, *config["input_size"])).shape[-1]
        self.mean, self.std = config["mean"], config["std"]
        self.register_buffer("scale", torch.zeros(()), persistent=False)

    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        return ImageFeatures(self.tower(images))
