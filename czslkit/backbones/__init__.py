"""Image and text encoders, selected by a setting such as ``demo``, ``timm/resnet18`` or ``ViT-B-32/openai``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ..components import BACKBONES, Backbone
from ..errors import ConfigError, UnknownNameError, did_you_mean, first_ten
from ..options import expand_home
from ..registry import unknown_name
from ..types import Preprocessing
from .adapters import Adapter
from .clip import ClipBackbone
from .open_clip import SCHEMES, model_names


def load_backbone(
    setting: str | nn.Module, *, trainable: bool = False, adapter_dim: int = 0, adapter_dropout: float = 0.1
) -> Backbone:
    """Build the backbone of a setting.

    Args:
        setting: a registered backbone (``demo``), a registered backbone with an argument (``timm/resnet18``), an
            open_clip model with its weights (``ViT-B-32/openai``, ``ViT-B-32/random``, ``ViT-B-32/openai/FILE``,
            ``hf-hub:REPOSITORY``, ``local-dir:FOLDER``), the path of an OpenAI-format CLIP file, an open_clip model, or
            a backbone.
        trainable: False freezes the whole backbone. True lets the parameters of its image tower learn, which are those
            of ``image_parameters``; the rest is frozen.
        adapter_dim: bottleneck width of the adapters in every visual block; 0 for no adapters. Adapters always learn.
        adapter_dropout: dropout inside the adapters.

    Raises:
        UnknownNameError: no backbone, model or file has the name.
        ConfigError: the weights are missing or do not fit, the backbone lacks a method or an attribute, or other
            parameters would learn than asked for, or ``adapter_dim`` is negative.
        ValueError: the backbone takes no adapters.
    """
    if isinstance(adapter_dim, bool) or not isinstance(adapter_dim, int) or adapter_dim < 0:
        raise ConfigError([f"adapter_dim is {adapter_dim!r}, expected a whole number from 1, or 0 for no adapters"])
    if isinstance(setting, nn.Module):
        backbone = setting if isinstance(setting, Backbone) else ClipBackbone(setting)
    else:
        name, argument = resolve(setting)
        backbone = _construct(BACKBONES[name], argument)
    _check_attributes(backbone)
    _freeze(backbone)
    if trainable:
        _unfreeze_image_tower(backbone)
    if adapter_dim:
        _add_adapters(backbone, lambda width: Adapter(width, adapter_dim, adapter_dropout))
    return backbone


def _construct(cls: type[Backbone], argument: str) -> Backbone:
    """Return the backbone of a registered class.

    Raises:
        ConfigError: the class lacks a method, or takes no argument.
    """
    if missing := sorted(cls.__abstractmethods__):
        raise ConfigError([f"{cls.__name__} has no method {', '.join(missing)}, which every backbone needs"])
    try:
        inspect.signature(cls).bind(argument)
    except TypeError as error:
        raise ConfigError(
            [
                f"{cls.__name__} cannot be called with the text after the slash of a setting ({error}); "
                "define __init__(self, argument)"
            ]
        ) from error
    return cls(argument)


def _check_attributes(backbone: Backbone) -> None:
    """Check that the backbone has every attribute that :class:`Backbone` declares.

    Raises:
        ConfigError: some attributes are missing.
    """
    if missing := [name for name in Backbone.__annotations__ if not hasattr(backbone, name)]:
        raise ConfigError(
            [
                f"{type(backbone).__name__} has no {', '.join(missing)}; __init__ of a backbone sets every attribute "
                "that czslkit.components.Backbone declares without a value"
            ]
        )


def _freeze(backbone: Backbone) -> None:
    """Freeze all parameters.

    Raises:
        ConfigError: a part of the backbone is frozen and another part is not, so that it is meant to learn.
    """
    learned = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    if 0 < len(learned) < len([*backbone.parameters()]):
        name = type(backbone).__name__
        raise ConfigError(
            [
                f"{name}.__init__ leaves parameters trainable and freezes others; load_backbone would freeze all, also "
                f"{first_ten(learned)}. Add modules that learn in {name}.add_adapters or in the method; if nothing is "
                "to learn, end __init__ with self.requires_grad_(False)"
            ]
        )
    backbone.requires_grad_(False)


def _unfreeze_image_tower(backbone: Backbone) -> None:
    """Let the parameters of the image tower learn.

    Raises:
        ConfigError: ``image_parameters`` returns no parameter of the backbone.
    """
    own = {id(parameter) for parameter in backbone.parameters()}
    image_tower = [parameter for parameter in backbone.image_parameters() if id(parameter) in own]
    if not image_tower:
        raise ConfigError(
            [
                f"{type(backbone).__name__} cannot be trained: image_parameters returns no parameter of it; "
                "it returns the parameters that encode_image uses"
            ]
        )
    for parameter in image_tower:
        parameter.requires_grad_(True)


def _add_adapters(backbone: Backbone, make: Callable[[int], nn.Module]) -> None:
    """Add adapters to every visual block, and check that exactly their parameters learn in addition.

    Raises:
        ConfigError: other parameters learn.
        ValueError: the backbone takes no adapters.
    """
    before = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    made: list[nn.Module] = []

    def make_and_keep(width: int) -> nn.Module:
        made.append(make(width))
        return made[-1]

    backbone.add_adapters(make_and_keep)
    expected = before | {id(parameter) for adapter in made for parameter in adapter.parameters()}
    found = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    if not made or found != expected:
        name, wanted = type(backbone).__name__, len(expected) if made else "those of at least one adapter"
        raise ConfigError(
            [
                f"{name}.add_adapters made {len(made)} adapters, after which {len(found)} parameters of the backbone "
                f"learn, expected {wanted}: it calls make for each block and kind, keeps the adapters in an "
                "nn.ModuleList, and freezes nothing"
            ]
        )


def stated_preprocessing(setting: str) -> Preprocessing | None:
    """Return how images are prepared for the backbone of a setting, without building it; None if that is unknown.

    Raises:
        UnknownNameError: no backbone, model or file has the name.
    """
    name, argument = resolve(setting)
    return BACKBONES[name].stated_preprocessing(argument)


def resolve(setting: str) -> tuple[str, str]:
    """Return the registered name and the argument of a backbone setting, without building the backbone.

    Raises:
        UnknownNameError: no backbone, model or file has the name.

    >>> resolve("timm/resnet18"), resolve("demo")
    (('timm', 'resnet18'), ('demo', ''))
    """
    setting = expand_home(setting)
    name, _, argument = setting.partition("/")
    if name in BACKBONES:
        return name, argument
    if name in model_names() or Path(setting).is_file() or setting.startswith(SCHEMES):
        return "open_clip", setting
    if name.startswith("~"):  # is left if there is no such user
        raise UnknownNameError(f"backbone is {setting!r}, but {name} does not exist: there is no such home folder")
    if Path(setting).is_absolute() or name in (".", ".."):
        raise UnknownNameError(f"backbone is {setting!r}, which is not the path of a file that exists")
    raise unknown_name(
        name,
        f"no backbone named {name!r}, and no file {setting!r}.{did_you_mean(name, [*BACKBONES, *model_names()])} "
        f"Registered: {', '.join(BACKBONES)}; open_clip models such as ViT-L-14-quickgelu/openai; "
        "hf-hub:REPOSITORY; local-dir:FOLDER; or the path of an OpenAI-format CLIP file.",
    )
