"""Image towers of timm, for methods without text features."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..components import BACKBONES, Backbone
from ..errors import ConfigError, did_you_mean, first_ten
from ..types import ImageFeatures, Preprocessing
from ..weights import download_or_raise, load_strict, read_tensors
from .preprocess_cfg import in_words, of_timm
from .weight_files import say_once


@BACKBONES.register("timm")
class Timm(Backbone):
    """A frozen timm model without its classifier, selected by ``timm/MODEL/WEIGHTS``.

    Its pooled features are the input of the classifier. Its only layer is the last one: the pooled features, then the
    features of the positions (patches, or cells of a convolutional map). Models that project features after pooling
    have no layer.

    ``WEIGHTS`` is ``pretrained`` (timm's own weights, the default), ``random``, or a file, with or without the
    classifier. Images are prepared as timm evaluates the model; ``MODEL.TAG`` selects one of timm's pretrained tags.

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
        create: Callable[[], Any] = functools.partial(timm.create_model, name, pretrained=pretrained, num_classes=0)
        hint = f"a file works as well: timm/{name}/path/to/weights"
        tower = download_or_raise(f"timm/{name}", create, hint=hint) if pretrained else create()
        if Path(weights).is_file():
            load_strict(tower, _without_classifier(name, tower, read_tensors(weights)))
            _say_which_tag(argument, name)
        elif not pretrained and weights != "random":
            raise ConfigError([f"timm/{name}: {weights!r} is not pretrained, random or a file"])
        self._hold(tower, random=weights == "random")

    @classmethod
    def of(cls, tower: nn.Module) -> Timm:
        """Return the backbone of a timm model that has been built without its classifier."""
        backbone = cls.__new__(cls)
        Backbone.__init__(backbone)
        backbone._hold(tower, random=False)
        return backbone

    def _hold(self, tower: Any, *, random: bool) -> None:
        """Set every attribute.

        Args:
            tower: the model, without its classifier.
            random: no weights ask for a resize mode.
        """
        self.tower, config = tower.requires_grad_(False), tower.pretrained_cfg
        self.token_width = 0
        with torch.no_grad():  # the width in a tower's configuration can differ from the width of its output
            features = tower.eval().forward_features(torch.zeros(1, *config["input_size"]))
            self.dim = tower.forward_head(features).shape[-1]
            positions = self._positions(features)
        self.depth = int(positions is not None)
        self.visual_tokens, self.visual_width = (0, 0) if positions is None else (1 + positions.shape[1], self.dim)
        stated = of_timm(config)
        self.preprocessing = Preprocessing(stated.size, stated.mean, stated.std) if random else stated
        self.register_buffer("scale", torch.zeros(()), persistent=False)

    @classmethod
    def stated_preprocessing(cls, argument: str) -> Preprocessing | None:
        import timm

        name, _, weights = argument.partition("/")
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) and weights != "random" else None
        return of_timm(config.to_dict()) if config else None

    def encode_image(self, images: Tensor, layers: Sequence[int] = ()) -> ImageFeatures:
        if not layers:
            return ImageFeatures(self.tower(images))
        features = self.tower.forward_features(images)
        pooled, positions = self.tower.forward_head(features), self._positions(features)
        return ImageFeatures(pooled, (torch.cat((pooled[:, None], positions), 1),) * len(layers))

    def _positions(self, features: Any) -> Any:
        """Return the features of the positions ``[B, T - 1, D]``; None if they are not as wide as the pooled ones."""
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            return None
        if features.ndim == 4:
            features = features.flatten(1, 2) if _channels_last(self.tower) else features.flatten(2).transpose(1, 2)
        positions = features[:, getattr(self.tower, "num_prefix_tokens", 0) :]  # without class and register tokens
        return positions if positions.shape[-1] == self.dim else None


def tower_of(state: Mapping[str, Tensor], heads: int | None = None) -> Timm:
    """Return the backbone with the tensors of a ResNet-18 or of a vision transformer, by timm's names.

    Images are prepared as the programs evaluate that such tensors come from: the shorter side has 256 pixels for a crop
    of 224, with bilinear interpolation.

    Args:
        state: tensors by name. The sizes of a vision transformer, whose images are square, follow from their shapes.
        heads: attention heads of a vision transformer, by default :func:`attention_heads` of its width.

    Raises:
        ConfigError: they are the tensors of another model.
    """
    import timm

    name = "resnet18.tv_in1k"
    sizes: dict[str, Any] = {}
    if "patch_embed.proj.weight" in state and "pos_embed" in state:
        name, (width, _, patch, _) = "vit_base_patch16_224.dino", state["patch_embed.proj.weight"].shape
        pixels = patch * math.isqrt(state["pos_embed"].shape[1] - 1)
        depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
        sizes = {"img_size": pixels, "patch_size": patch, "embed_dim": width, "depth": depth}
        sizes |= {"num_heads": heads or attention_heads(width)}
        sizes |= {"mlp_ratio": len(state["blocks.0.mlp.fc1.bias"]) / width}
        preparation = {"input_size": (3, pixels, pixels), "interpolation": "bilinear", "crop_pct": 0.875}
        sizes |= {"pretrained_cfg_overlay": preparation}
    tower = timm.create_model(name, pretrained=False, num_classes=0, **sizes)
    load_strict(tower, {key: value for key, value in state.items() if not key.startswith(("fc.", "head."))})
    return Timm.of(tower)


def attention_heads(width: int) -> int:
    """Return the usual number of heads of an attention: 64 channels each, or 8 below the width of any published tower.

    >>> [attention_heads(width) for width in (768, 192, 48)]
    [12, 3, 6]
    """
    return max(1, width // (64 if width >= 192 else 8))


def _channels_last(tower: Any) -> bool:
    return str(getattr(tower, "output_fmt", "")).endswith("NHWC")


def _without_classifier(name: str, tower: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without those of the classifier of a timm model, which the ``tower`` lacks."""
    import timm

    unknown = state.keys() - tower.state_dict().keys()
    classifier = timm.create_model(name, num_classes=2).state_dict().keys() & unknown if unknown else ()
    return {key: value for key, value in state.items() if key not in classifier}


def _say_which_tag(argument: str, name: str) -> None:
    """Log which pretrained tag says how images are prepared, if the name has none and the tags of the model differ."""
    import timm

    stated = Timm.stated_preprocessing(name)
    tags = timm.list_models(f"{name}.*", pretrained=True)
    if stated is None or "." in name or (tags and all(Timm.stated_preprocessing(tag) == stated for tag in tags)):
        return
    others = first_ten([tag.partition(".")[2] for tag in tags])
    say_once(
        f"timm/{argument}: {name} names no pretrained tag, so images are prepared as by timm's default "
        f"({in_words(stated)}). " + (f"To set it, use timm/{name}.TAG/FILE with TAG one of {others}" if tags else "")
    )
