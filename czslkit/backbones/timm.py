"""Image towers of timm, for methods without text features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """A frozen timm model without its classifier for pooled features, selected by ``timm/MODEL/WEIGHTS``.

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
        tower: Any = download_or_raise(
            f"timm/{name}", lambda: timm.create_model(name, pretrained=pretrained, num_classes=0)
        )
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
        self.depth = self.visual_tokens = self.visual_width = self.token_width = 0
        with torch.no_grad():  # the width in a tower's configuration can differ from the width of its output
            self.dim = tower.eval()(torch.zeros(1, *config["input_size"])).shape[-1]
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
        return ImageFeatures(self.tower(images))


def tower_of(state: Mapping[str, Tensor]) -> Timm:
    """Return the backbone with the tensors of a ResNet-18, by the names of torchvision and timm.

    Raises:
        ConfigError: they are the tensors of another model.
    """
    import timm

    tower = timm.create_model("resnet18.tv_in1k", pretrained=False, num_classes=0)
    load_strict(tower, {name: value for name, value in state.items() if not name.startswith("fc.")})
    return Timm.of(tower)


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
