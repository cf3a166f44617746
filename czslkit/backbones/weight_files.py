"""Files of weights: their formats, and what they do not say about the model that they belong to.

Tensors do not tell the activation, the number of attention heads, or how images are prepared. All this comes from the
pretrained tags of the model that a setting names. Where it is assumed, a line says so; where two models are possible,
the file is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError, first_ten
from ..foreign_files import read_json
from ..terminal import log_to_stderr
from ..types import Preprocessing
from ..weights import load_strict, read_tensors
from .openai_format import HEAD_WIDTH, NON_WEIGHTS, ClipSizes, clip_sizes, from_openai
from .preprocess_cfg import in_words, of_open_clip
from .transformers_format import is_transformers, to_openai

_CONFIG_LIMIT = 1 << 20  # largest size of a configuration, in bytes
#: Keys of open_clip's ``preprocess_cfg`` that czslkit reads, without the size.
PREPROCESS_KEYS = ("resize_mode", "interpolation", "mean", "std", "fill_color")
#: Entries that only files of OpenAI's own release have.
_OPENAI_MARKS = ("input_resolution", "context_length", "vocab_size")

say_once = functools.cache(log_to_stderr)
"""Log a line that was not logged before by this process."""


@dataclass(frozen=True)
class FileTensors:
    """The tensors of a file of weights, named as by OpenAI and open_clip."""

    state: Mapping[str, Tensor]
    from_openai: bool  # the file has the entries of OpenAI's own release


@dataclass(frozen=True)
class Reading:
    """What a file of weights does not say."""

    quick_gelu: bool
    preprocessing: Preprocessing  # of any size


def tensors_of_file(file: str | Path) -> FileTensors:
    """Read a file in OpenAI's, open_clip's or transformers' format.

    Raises:
        ConfigError: the file cannot be read, or has tensors of another model of transformers.
    """
    tensors = read_tensors(file)
    state = {key: value for key, value in tensors.items() if key not in NON_WEIGHTS}
    return FileTensors(
        to_openai(state) if is_transformers(state) else state, any(key in tensors for key in _OPENAI_MARKS)
    )


def readings(name: str, tag: str = "", *, openai: bool = False) -> set[Reading]:
    """Return what a file of an open_clip model may leave unsaid, one value for each way in which its tags differ.

    Args:
        name: open_clip model.
        tag: the only pretrained tag to consider; empty for all tags.
        openai: the file is of OpenAI's own release.

    Returns:
        An empty set for a model without pretrained tags.
    """
    import open_clip

    if openai and not tag:
        return {Reading(True, Preprocessing())}
    own = bool(open_clip.get_model_config(name).get("quick_gelu", False))
    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(name)
    configs = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
    return {Reading(own or bool(config.get("quick_gelu")), of_open_clip(config)) for config in configs}


def load_file(setting: str, name: str, tag: str, file: str) -> nn.Module:
    """Return an open_clip model with the weights of a file.

    Args:
        setting: the backbone setting, for messages.
        name: open_clip model.
        tag: pretrained tag that says what the file does not; empty for none.

    Raises:
        ConfigError: the weights do not fit, or the tags of the model differ in what the file does not say.
    """
    import open_clip

    found = tensors_of_file(file)
    possible = readings(name, tag, openai=found.from_openai)
    if len(possible) > 1:
        raise ConfigError([_which_tag(setting, name, file, possible)])
    own = bool(open_clip.get_model_config(name).get("quick_gelu", False))
    [reading] = possible or [Reading(own, Preprocessing())]
    if not possible:
        say_once(
            f"{setting}: neither {name} nor the file says how images are prepared; as by OpenAI's CLIP is assumed "
            f"({in_words(reading.preprocessing)}). To set it, use local-dir:FOLDER with a file open_clip_config.json"
        )
    elif found.from_openai and not tag and not (own or _has_quick_tag(name)):
        say_once(
            f"{setting}: the file has the entries of OpenAI's release, so QuickGELU is used, although {name} has GELU. "
            "To set it, use local-dir:FOLDER with a file open_clip_config.json, which has quick_gelu in model_cfg"
        )
    wanted = reading.preprocessing
    model = open_clip.create_model(
        name,
        force_quick_gelu=reading.quick_gelu,
        force_preprocess_cfg=dict(
            zip(PREPROCESS_KEYS, (wanted.mode, wanted.interpolation, wanted.mean, wanted.std, wanted.fill), strict=True)
        ),
        pretrained_hf=False,
    )
    load_into(model, found.state)
    return model


def load_into(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors into an open_clip model, also if they have the names of another version or class of it.

    Raises:
        ConfigError: names are missing or unknown, or shapes differ; the message lists all of them.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_state_dict(model, dict(state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    expected = model.state_dict()
    same_size = {
        key: value.reshape(expected[key].shape)
        for key, value in state.items()
        if key in ("logit_scale", "logit_bias") and key in expected and value.numel() == expected[key].numel()
    }
    load_strict(model, {**state, **same_size})


def model_of_file(file: str) -> nn.Module:
    """Return the CLIP of a file that comes without the name of a model, and is read as OpenAI's.

    Raises:
        ConfigError: the file has no CLIP with a vision transformer, or belongs to a CLIP that is not OpenAI's.
    """
    found = tensors_of_file(file)
    sizes = clip_sizes(found.state)
    model = from_openai(found.state)
    if not found.from_openai:
        if odd := [width for width in (sizes.width, sizes.text_width) if width > HEAD_WIDTH and width % HEAD_WIDTH]:
            raise ConfigError(
                [
                    f"{file} has a tower of width {odd[0]}, which has no whole number of attention heads of width "
                    f"{HEAD_WIDTH}, as OpenAI's CLIP has; name the model: NAME/{file}"
                ]
            )
        if activation := _other_activation(Path(file)):
            raise ConfigError(
                [
                    f"{Path(file).with_name('config.json')} says hidden_act {activation}, but a file without the name "
                    f"of a model is read as OpenAI's CLIP, with quick_gelu; name the model and a tag: NAME/TAG/{file}"
                ]
            )
        if others := _models_of_others(sizes):
            raise ConfigError(
                [
                    f"{file} has the sizes of {first_ten(others)}, whose activation or attention heads are not those "
                    f"of OpenAI's CLIP; name the model, for example {others[0]}/{file}"
                ]
            )
        say_once(
            f"{file} names no model and is read as OpenAI's CLIP: QuickGELU, attention heads of width {HEAD_WIDTH}, "
            f"OpenAI's tokenizer, images {in_words(Preprocessing())}. For another model, use NAME/TAG/{file}"
        )
    return model


def _other_activation(file: Path) -> str:
    """Return the activation in the configuration of transformers beside a file; empty if it is OpenAI's or unknown."""
    try:
        config = read_json(file.with_name("config.json"), _CONFIG_LIMIT)
        towers = [config.get(part, {}).get("hidden_act", "quick_gelu") for part in ("vision_config", "text_config")]
    except (OSError, ValueError, AttributeError):  # no such file, or one of another kind
        return ""
    return next((str(activation) for activation in towers if activation != "quick_gelu"), "")


def _models_of_others(sizes: ClipSizes) -> list[str]:
    """Return the open_clip models of some sizes, or none if one of them has OpenAI's activation and heads."""
    import open_clip

    names: list[str] = open_clip.list_models()
    found = {name: config for name in names if sizes == _sizes(config := open_clip.get_model_config(name))}
    for name, config in found.items():
        heads = config["text_cfg"].get("heads", 8), config["vision_cfg"].get("head_width", HEAD_WIDTH)
        quick = config.get("quick_gelu") or _has_quick_tag(name) or f"{name}-quickgelu" in names
        if quick and heads == (max(1, sizes.text_width // HEAD_WIDTH), min(HEAD_WIDTH, sizes.width)):
            return []
    return list(found)


def _sizes(config: Mapping[str, Any]) -> ClipSizes | None:
    """Return the sizes in a configuration of open_clip, None for towers of another kind."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision or "hf_model_name" in text or not isinstance(vision.get("layers", 12), int):
        return None
    return ClipSizes(
        *(vision.get(key, default) for key, default in (("width", 768), ("layers", 12), ("patch_size", 16))),
        *(text.get(key, default) for key, default in (("width", 512), ("layers", 12))),
    )


def _has_quick_tag(name: str) -> bool:
    """Return whether a pretrained tag of a model was trained with QuickGELU."""
    return any(reading.quick_gelu for reading in readings(name))


def _which_tag(setting: str, name: str, file: str, possible: set[Reading]) -> str:
    """Return the error message for a file that may belong to several tags of a model."""
    import open_clip

    kinds = sorted(f"{'QuickGELU' if r.quick_gelu else 'GELU'} with {in_words(r.preprocessing)}" for r in possible)
    tags = open_clip.list_pretrained_tags_by_model(name)
    return (
        f"{setting}: the pretrained tags of {name} differ in what a file of weights does not say ({'; '.join(kinds)}); "
        f"say from which tag the weights started: {name}/TAG/{file}, with TAG one of {', '.join(tags)}"
    )
