"""What the configurations of open_clip's and timm's models say about the images that go into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..types import Preprocessing

#: timm's name of a way to crop -> ours.
_TIMM_MODES = {"center": "shortest", "squash": "squash", "border": "longest"}


def of_open_clip(config: Mapping[str, Any], size: Any = 224) -> Preprocessing:
    """Return the preprocessing of a ``preprocess_cfg`` of open_clip; what it does not say is that of OpenAI's CLIP.

    Args:
        size: height and width of the model's images, as one number or two.

    Raises:
        ConfigError: images are not square, or a value is unknown.
    """
    default = Preprocessing()
    interpolation = config.get("interpolation") or default.interpolation
    fill = config.get("fill_color") or 0
    return Preprocessing(
        _side(size),
        _channels(config.get("mean") or default.mean),
        _channels(config.get("std") or default.std),
        config.get("resize_mode") or default.mode,
        default.interpolation if interpolation == "random" else interpolation,  # as open_clip does outside training
        fill=tuple(fill) if isinstance(fill, (list, tuple)) else (fill,) * 3,
    )


def of_timm(config: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing of a ``pretrained_cfg`` of timm, as timm evaluates the model.

    Raises:
        ConfigError: images are not square, or a value is unknown.
    """
    from timm.data import resolve_data_config

    found = resolve_data_config(pretrained_cfg=dict(config))
    mean = _channels(found["mean"])
    return Preprocessing(
        _side(found["input_size"][-2:]),
        mean,
        _channels(found["std"]),
        _TIMM_MODES.get(found["crop_mode"], found["crop_mode"]),
        found["interpolation"],
        float(found["crop_pct"]),
        tuple(round(255 * value) for value in mean) if found["crop_mode"] == "border" else (0, 0, 0),
    )


def in_words(preprocessing: Preprocessing) -> str:
    """Return the preprocessing as a few words for a message.

    >>> in_words(Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), mode="squash"))
    'squash, bicubic, mean 0.5 0.5 0.5, std 0.5 0.5 0.5'
    """
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    crop = f"middle {preprocessing.crop:g}, " if preprocessing.crop < 1 else ""
    return f"{preprocessing.mode}, {preprocessing.interpolation}, {crop}mean {mean}, std {std}"


def _side(size: Any) -> int:
    """Return the side of a square image, in pixels.

    Raises:
        ConfigError: the image is not square.
    """
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    if height != width:
        raise ConfigError([f"the model takes images of {height} x {width} pixels, expected a square"])
    return int(height)


def _channels(values: Any) -> tuple[float, ...]:
    """Return a number for each of 3 channels."""
    return tuple(map(float, values)) if isinstance(values, (list, tuple)) else (float(values),) * 3
