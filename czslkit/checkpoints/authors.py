"""Checkpoints of the methods' authors, read as ours."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ..backbones.openai_format import NON_WEIGHTS, from_openai, model_from_shapes
from ..errors import ConfigError
from ..files import file_digest, log_to_stderr
from ..method import METHODS, Method, construct, learned_state, load_learned
from ..options import as_dict, parse
from ..translation import State, Translation
from ..types import PairSpace
from ..weights import read_tensors, state_dict_mismatches, tensors_of
from .trained import METADATA_FILE, save

#: What the authors' programs call the CLIP inside them.
CLIP = ("clip.", "clip_model.")
#: Second names of CLIP's text tower in their checkpoints.
ALIAS = "text_encoder."


def load_original(
    name: str,
    checkpoint: str | Path | Mapping[str, Any],
    space: PairSpace,
    config: str | Path | Mapping[str, Any] | None = None,
    backbone: str | Path | Mapping[str, Any] | None = None,
    *,
    log: Callable[[str], None] | None = None,
) -> Method:
    """The method that a checkpoint of its authors' program holds, computing the same function.

    Args:
        name: as registered, such as ``"msci"`` or ``"dfsp-t2i"``.
        checkpoint: a file, or a state dict in the authors' names. Widths, depths and layer counts are read
            from its shapes.
        space: the label space that it was trained on; attributes and objects in its order, sorted by name.
        config: the authors' YAML, or its keys in a dict, in groups or flat. Settings of training and
            logging are passed over; without it the method's defaults stand.
        backbone: an OpenAI-format CLIP as state dict, file or model name, for checkpoints that hold none.
        log: called with a line about tensors that were left out; standard error if None.

    Returns:
        In evaluation mode, on the CPU, in float32; ``unused`` names the tensors that the authors' program
        declares but never uses, which are not kept.

    Raises:
        UnknownNameError: no such method.
        ConfigError: tensors unknown, missing or mis-shaped, settings unknown or against the shapes; all of them.
    """
    return _read(name, checkpoint, space, config, backbone, log or log_to_stderr).method


def convert(
    name: str,
    checkpoint: str | Path,
    space: PairSpace,
    folder: str | Path,
    config: str | Path | None = None,
    backbone: str | Path | None = None,
    *,
    log: Callable[[str], None] | None = None,
) -> None:
    """Write a checkpoint of a method's authors as a folder of ours; see :func:`load_original`.

    Raises:
        as :func:`load_original`.
    """
    log = log or log_to_stderr
    if (Path(folder) / METADATA_FILE).exists():
        raise ConfigError([f"{folder} holds a method already; remove it, or choose another folder"])
    if backbone is not None and Path(backbone).is_file():
        state = read_tensors(backbone)
        found = _read(name, checkpoint, space, config, state, log)
        clip = found.clip or {key: value for key, value in state.items() if key not in NON_WEIGHTS}
    else:
        found = _read(name, checkpoint, space, config, None if backbone is None else str(backbone), log)
        clip = found.clip
    options = found.options | ({} if backbone is None else {"backbone": str(backbone)})
    source = {"checkpoint": Path(checkpoint).name, "digest": file_digest(Path(checkpoint))}
    settled = ", ".join(f"{key}={value}" for key, value in found.options.items()) or "nothing"
    log(f"{name}: {len(space.attrs)} attributes and {len(space.objs)} objects, sorted by name; settled: {settled}")
    save(folder, name, found.method, options, backbone=clip or None, source=source, unused=list(found.method.unused))


@dataclass(frozen=True)
class _Found:
    """What a checkpoint of the authors turned out to hold."""

    method: Method
    options: dict[str, Any]  # those that the settings and the shapes settle
    clip: dict[str, Tensor]  # in OpenAI's names; empty if it holds none


def _read(
    name: str,
    checkpoint: str | Path | Mapping[str, Any],
    space: PairSpace,
    config: str | Path | Mapping[str, Any] | None,
    backbone: str | Path | Mapping[str, Any] | None,
    log: Callable[[str], None],
) -> _Found:
    if not isinstance(space, PairSpace):
        raise TypeError(f"space is a {type(space).__name__}, expected a PairSpace, such as the space of a dataset")
    cls = METHODS[name]
    translation = cls.translation
    if translation is None:
        known = ", ".join(n for n in METHODS if METHODS[n].translation is not None)
        raise ConfigError([f"{name}: checkpoints of its authors cannot be read. Known: {known}."])
    problems: list[str] = []
    prefix, clip, rest = _apart(name, _tensors(checkpoint), problems)
    sized = {**rest, **{f"clip.{key}": value for key, value in clip.items()}}
    settings = _settings(config)
    values = _options(name, translation, settings, sized, problems)
    for key in translation.required_config:
        if key not in settings and translation.settings.get(key, "").partition(".")[0] not in settings:
            log(f"{name}: {key} is in no shape and was not given; {_assumed(translation, key, cls)} is assumed")
    options: Any = parse(cls.Options, values, where=name)
    if clip and backbone is not None:
        log(f"{name}: the checkpoint holds a CLIP, so that backbone is not used")
    options = dataclasses.replace(options, backbone=_backbone(name, clip, backbone))
    method = construct(cls, options, space, where=name)
    own = learned_state(method)
    ours = {translation.to_author_key(key): key for key in own}
    unused = tuple(sorted(key for key in rest.keys() - ours.keys() if re.fullmatch(translation.unused, key)))
    used = {key: value for key, value in rest.items() if key not in unused}
    wrong = state_dict_mismatches({key: own[ours[key]] for key in ours}, used)
    if clip:
        wrong += [prefix + problem for problem in state_dict_mismatches(_clip(method).state_dict(), clip)]
    problems += [f"{name}: these tensors of the checkpoint do not fit:", *wrong] if wrong else []
    if problems:
        raise ConfigError(problems)
    load_learned(method, {ours[key]: value for key, value in used.items()})
    method.unused = unused
    if unused:
        modules = ", ".join(dict.fromkeys(re.sub(r"\.\d+\..*|\.[^.]*$", "", key) for key in unused))
        log(f"{name}: left out {len(unused)} tensors that the authors' program has but does not use here, of {modules}")
    return _Found(method.eval(), values, clip)


def _assumed(translation: Translation, key: str, cls: type[Method]) -> Any:
    """What stands in for a setting of the authors that was not given."""
    if key in translation.fixed:
        return translation.fixed[key]
    option, _, index = translation.settings[key].partition(".")
    default = getattr(cls.Options(), option)
    return default[int(index)] if index else default


def _tensors(checkpoint: str | Path | Mapping[str, Any]) -> dict[str, Tensor]:
    """By name.

    Raises:
        ConfigError: not readable, or more than tensors.
    """
    if not isinstance(checkpoint, Mapping):
        return read_tensors(checkpoint)
    try:
        return tensors_of(checkpoint)
    except ValueError as error:
        raise ConfigError([f"the state dict is not one of tensors: {error}"]) from error


def _apart(name: str, state: State, problems: list[str]) -> tuple[str, dict[str, Tensor], dict[str, Tensor]]:
    """The prefix of the CLIP inside, its tensors in OpenAI's names, and the rest.

    Second names of a tensor must say the same as its first.
    """
    bare = "visual.conv1.weight" in state  # a CLIP alone
    prefix = "" if bare else next((p for p in CLIP if any(key.startswith(p) for key in state)), CLIP[0])
    clip, rest, aliases = {}, {}, {}
    for key, value in state.items():
        if key.startswith(ALIAS):
            aliases[key.removeprefix(ALIAS)] = value
        elif key.startswith(prefix) and key.removeprefix(prefix) not in NON_WEIGHTS:
            clip[key.removeprefix(prefix)] = value
        elif key.removeprefix(prefix) not in NON_WEIGHTS:
            rest[key] = value
    for key, value in aliases.items():
        if clip.get(key, value).shape != value.shape or not torch.equal(clip.get(key, value), value):
            problems.append(f"{name}: {ALIAS}{key} differs from {prefix}{key}, of which it should be a second name")
    return prefix, {**aliases, **clip}, rest


def _settings(config: str | Path | Mapping[str, Any] | None) -> dict[str, Any]:
    """The authors' settings, groups dissolved.

    Raises:
        ConfigError: not a YAML file of settings.
    """
    if config is None:
        return {}
    content: Any = config
    if isinstance(config, (str, Path)):
        try:
            content = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError([f"{config}: cannot be read as YAML: {error}"]) from error
    if not isinstance(content, Mapping):
        raise ConfigError([f"{config}: expected settings with their values, found {type(content).__name__}"])
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= value if isinstance(value, Mapping) else {key: value}
    return flat


def _options(
    name: str, translation: Translation, config: Mapping[str, Any], state: State, problems: list[str]
) -> dict[str, Any]:
    """Our options from their settings and shapes, which must not contradict each other.

    Raises:
        ConfigError: values that no option can have.
    """
    schema = METHODS[name].Options
    values, unread = translation.options(config, as_dict(schema()))
    problems += [f"{name}: {problem}" for problem in unread]
    told = as_dict(parse(schema, values, where=name))
    for option, size in translation.sizes(state).items():
        if option in values and option != "context_length" and told[option] != size:
            problems.append(f"{name}: the settings make {option} {told[option]}, the checkpoint's shapes {size}")
        values[option] = size
    return values


def _backbone(name: str, clip: State, given: str | Path | Mapping[str, Any] | None) -> Any:
    """What the checkpoint or ``given`` holds, as ``load_backbone`` takes it."""
    if clip:
        model = model_from_shapes(clip)
        model.load_state_dict({**model.state_dict(), **_fitting(model, clip)})
        return model
    if given is None:
        raise ConfigError(
            [f"{name}: the checkpoint holds no CLIP; pass backbone=, an OpenAI-format state dict, file or model name"]
        )
    return from_openai(_tensors(given)) if isinstance(given, Mapping) else str(given)


def _fitting(model: Any, state: State) -> dict[str, Tensor]:
    """What of ``state`` has a place in ``model``; the rest is reported with everything else."""
    own = model.state_dict()
    return {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}


def _clip(method: Method) -> Any:
    return method.backbone.clip
