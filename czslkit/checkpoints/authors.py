"""Load checkpoints of the methods' authors into our methods."""

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

from ..backbones.given_features import GivenFeatures
from ..backbones.openai_format import NON_WEIGHTS, from_openai, model_from_shapes
from ..backbones.timm import tower_of
from ..backbones.transformers_format import is_transformers, to_openai
from ..errors import ConfigError
from ..files import file_digest
from ..learned_state import learned_state, load_learned
from ..method import METHODS, Method, construct
from ..options import as_dict, parse, user_path
from ..terminal import log_to_stderr
from ..training_files import METADATA_FILE
from ..translation import Translation
from ..types import PairSpace
from ..weights import read_tensors, state_dict_mismatches, tensors_of
from ..word_vectors import TableVectors, WordVectors
from ..yaml_files import read_yaml
from .trained import save

Log = Callable[[str], None]
#: A file or the content of a file.
Source = str | Path | Mapping[str, Any]
#: Files of word vectors by table, or a callable for all tables.
Words = Mapping[str, WordVectors] | TableVectors
#: Prefixes that the authors' programs give to the tensors of the CLIP inside them.
CLIP_PREFIXES = ("clip.", "clip_model.")
#: Prefix of second names of the tensors in CLIP's text tower.
TEXT_ALIAS_PREFIX = "text_encoder."


def load_original(
    name: str,
    checkpoint: Source,
    space: PairSpace,
    config: Source | None = None,
    backbone: Source | None = None,
    *,
    word_vectors: Words | None = None,
    log: Log | None = None,
) -> Method:
    """Load a checkpoint of a method's authors into our method, so that both compute the same function.

    Args:
        name: registered name of the method, such as ``"msci"`` or ``"dfsp-t2i"``.
        checkpoint: file or state dict, with the authors' tensor names. Widths, depths and numbers of layers are taken
            from the shapes.
        space: label space of the authors' training, with attributes and objects in the authors' order (sorted by name).
        config: the authors' YAML, or a dict of its keys, in groups or flat. Settings of training and logging are
            ignored. By default, the default options of the method are used. For a program whose graph is weighted by
            the feasibility of pairs, the key ``feasibility`` has the numbers, ``[A * O]`` in product(attrs, objs)
            order, or the path of their file; without it, unseen pairs have the weight 0 in the open world.
        backbone: OpenAI-format CLIP as state dict, file or model name, for a checkpoint without CLIP. For a method
            whose program has another image encoder, the state dict or the name of that encoder; without it, and if the
            checkpoint does not have it, the method takes only :class:`czslkit.types.ImageFeatures`.
        word_vectors: the vectors of words that the authors' checkpoint does not hold: a file for each table, such as
            ``{"word2vec": "GoogleNews-vectors-negative300.bin"}``, or a callable that returns the vector for a table, a
            word and a width.
        log: function for messages about skipped tensors and assumed settings; by default, messages go to standard
            error.

    Returns:
        The method in evaluation mode, on the CPU, in float32. Its ``unused`` lists the skipped tensors, which the
        authors' program declares but never uses.

    Raises:
        UnknownNameError: no method has the name.
        ConfigError: tensors are unknown, missing or of another shape, or settings are unknown or contradict the shapes;
            the message lists all of them.
    """
    return _load(name, checkpoint, space, config, backbone, word_vectors, log or log_to_stderr).method


def convert(
    name: str,
    checkpoint: str | Path,
    space: PairSpace,
    folder: str | Path,
    config: str | Path | None = None,
    backbone: str | Path | None = None,
    *,
    word_vectors: Words | None = None,
    log: Log | None = None,
) -> None:
    """Convert a checkpoint of a method's authors to a folder of a trained method.

    Args:
        folder: folder to write. For the other arguments, see :func:`load_original`. A method whose program has another
            image encoder than CLIP needs ``backbone``, since the folder names it.

    Raises:
        UnknownNameError: no method has the name.
        ConfigError: the folder already contains a method, ``backbone`` is missing, or :func:`load_original` raises the
            error.
    """
    log = log or log_to_stderr
    folder, checkpoint = user_path(folder), user_path(checkpoint)
    if (folder / METADATA_FILE).exists():
        raise ConfigError([f"{folder} already contains a method; remove it, or choose another folder"])
    if _translation(name).encoder and backbone is None:
        raise ConfigError(
            [f"{name}: the folder has to name the image encoder: give backbone=, such as timm/resnet18.tv_in1k"]
        )
    if backbone is not None and Path(backbone).is_file():
        state = read_tensors(backbone)
        loaded = _load(name, checkpoint, space, config, state, word_vectors, log)
        clip = loaded.clip or {key: value for key, value in state.items() if key not in NON_WEIGHTS}
    else:
        given = None if backbone is None else str(backbone)
        loaded = _load(name, checkpoint, space, config, given, word_vectors, log)
        clip = loaded.clip
    options = loaded.options | ({} if backbone is None else {"backbone": str(backbone)})
    source = {"checkpoint": checkpoint.name, "digest": file_digest(checkpoint)}
    fixed = ", ".join(f"{key}={value}" for key, value in loaded.options.items()) or "none"
    words = f"{len(space.attrs)} attributes and {len(space.objs)} objects, sorted by name"
    log(f"{name}: {words}; fixed options: {fixed}")
    save(folder, name, loaded.method, options, backbone=clip or None, source=source, unused=list(loaded.method.unused))


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A method with the tensors of a checkpoint, the options that the checkpoint fixes, and its CLIP."""

    method: Method
    options: dict[str, Any]  # options that the settings and the shapes determine
    clip: dict[str, Tensor]  # tensors of CLIP in the checkpoint, with OpenAI's names; empty without CLIP


@dataclass(frozen=True)
class CheckpointTensors:
    """The tensors of a checkpoint, separated into tensors of CLIP and tensors of the method."""

    clip_prefix: str  # what messages put before the names of CLIP's tensors, such as their prefix in the checkpoint
    clip: dict[str, Tensor]  # tensors of CLIP, with OpenAI's names
    method: dict[str, Tensor]  # tensors of the method, with the authors' names
    encoder: dict[str, Tensor]  # tensors of another image encoder without their prefix; they are in ``method``, too


def _load(
    name: str,
    checkpoint: Source,
    space: PairSpace,
    config: Source | None,
    backbone: Source | None,
    word_vectors: Words | None,
    log: Log,
) -> LoadedCheckpoint:
    """Build a method and load a checkpoint into it; see :func:`load_original` for arguments and errors."""
    if not isinstance(space, PairSpace):
        raise TypeError(f"space is a {type(space).__name__}, expected a PairSpace, such as the space of a dataset")
    translation = _translation(name)
    tensors, problems = _separate(name, translation, _tensors(checkpoint, translation.sections))
    settings = _settings(config)
    feasibility = settings.pop("feasibility", None)
    values, option_problems = _options(name, translation, settings, tensors)
    _log_assumed_settings(name, translation, settings, log)
    options: Any = parse(METHODS[name].Options, values, where=name)
    if tensors.clip and backbone is not None:
        log(f"{name}: the checkpoint contains a CLIP, so the argument backbone is ignored")
    options = dataclasses.replace(options, backbone=_backbone(name, translation, tensors, backbone, options))
    method = construct(METHODS[name], options, space, where=name)
    _load_inputs(name, method, word_vectors, feasibility, log)
    not_saved = translation.not_saved + (r"|backbone\.clip\..*" if tensors.clip else "")  # CLIP is complete already
    saved = [key for key in learned_state(method) if not re.fullmatch(not_saved, key)]
    our_keys = {translation.to_author_key(key): key for key in saved}
    unknown = tensors.method.keys() - our_keys.keys()
    method.unused = tuple(sorted(key for key in unknown if re.fullmatch(translation.unused, key)))
    in_encoder = {translation.encoder + key for key in tensors.encoder} - our_keys.keys()
    used = {key: value for key, value in tensors.method.items() if key not in in_encoder.union(method.unused)}
    problems += option_problems + _mismatches(name, method, our_keys, used, tensors)
    if problems:
        raise ConfigError(problems)
    load_learned(method, {our_keys[key]: value for key, value in used.items()})
    _log_unused_tensors(name, method.unused, log)
    return LoadedCheckpoint(method.eval(), values, tensors.clip)


def _load_inputs(name: str, method: Method, word_vectors: Words | None, feasibility: Any, log: Log) -> None:
    """Give a method what the authors' program reads beside the checkpoint, if it is not None.

    Raises:
        ConfigError: the method does not use it, or it does not fit the label space.
    """
    if word_vectors is not None:
        if not (load := getattr(method, "load_word_vectors", None)):
            raise ConfigError([f"{name} has no vectors of words: leave word_vectors out"])
        load(word_vectors)
    load = getattr(method, "load_feasibility", None)
    if feasibility is not None:
        if not load:
            raise ConfigError([f"{name} has no weights by feasibility: leave feasibility out"])
        load(feasibility)
    elif load:
        log(f"{name}: feasibility is not given; unseen pairs have the weight 0 in the graph of the open world")


def _translation(name: str) -> Translation:
    """Return the translation of a method.

    Raises:
        ConfigError: the method has no translation.
    """
    translation = METHODS[name].translation
    if translation is None:
        known = ", ".join(known for known in METHODS if METHODS[known].translation is not None)
        raise ConfigError([f"{name}: checkpoints of its authors cannot be read. Known: {known}."])
    return translation


def _tensors(checkpoint: Source, sections: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file or state dict by name.

    Args:
        sections: see :attr:`Translation.sections`.

    Raises:
        ConfigError: the checkpoint is not readable, or contains more than tensors.
    """
    if not isinstance(checkpoint, Mapping):
        return read_tensors(checkpoint, sections)
    try:
        return tensors_of(checkpoint, sections)
    except ValueError as error:
        raise ConfigError([f"the checkpoint is not a state dict of tensors: {error}"]) from error


def _separate(name: str, translation: Translation, state: Mapping[str, Tensor]) -> tuple[CheckpointTensors, list[str]]:
    """Separate the tensors of CLIP, or of another encoder, from the tensors of the method.

    The tensors of a CLIP of the package transformers get the names of OpenAI's format.

    Returns:
        The tensors, and a line for every tensor of CLIP that differs from its copy under a second name.
    """
    if start := translation.encoder:
        encoder = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
        return CheckpointTensors("", {}, dict(state), encoder), []
    clip_alone = "visual.conv1.weight" in state
    used_prefixes = (prefix for prefix in CLIP_PREFIXES if any(key.startswith(prefix) for key in state))
    clip_prefix = "" if clip_alone else next(used_prefixes, CLIP_PREFIXES[0])
    clip, method, aliases = {}, {}, {}
    for key, value in state.items():
        if key.startswith(TEXT_ALIAS_PREFIX):
            aliases[key.removeprefix(TEXT_ALIAS_PREFIX)] = value
        elif key.removeprefix(clip_prefix) in NON_WEIGHTS:
            continue
        elif key.startswith(clip_prefix) and not re.fullmatch(translation.inside_clip, key.removeprefix(clip_prefix)):
            clip[key.removeprefix(clip_prefix)] = value
        else:
            method[key] = value
    problems = [
        f"{name}: {TEXT_ALIAS_PREFIX}{key} differs from {clip_prefix}{key}, but both should be the same tensor"
        for key, value in aliases.items()
        if clip.get(key, value).shape != value.shape or not torch.equal(clip.get(key, value), value)
    ]
    if is_transformers(clip):
        clip, clip_prefix = to_openai(clip), "CLIP, in OpenAI's names: "
    return CheckpointTensors(clip_prefix, {**aliases, **clip}, method, {}), problems


def _settings(config: Source | None) -> dict[str, Any]:
    """Return the authors' settings by key, without groups.

    Raises:
        ConfigError: ``config`` is neither a YAML file of settings nor a dict.
    """
    if config is None:
        return {}
    content: Any = config
    if isinstance(config, (str, Path)):
        try:
            content = read_yaml(user_path(config))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError([f"{config}: cannot be read as YAML: {error}"]) from error
    if not isinstance(content, Mapping):
        raise ConfigError([f"{config}: expected settings with their values, found {type(content).__name__}"])
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= value if isinstance(value, Mapping) else {key: value}
    return flat


def _options(
    name: str, translation: Translation, settings: Mapping[str, Any], tensors: CheckpointTensors
) -> tuple[dict[str, Any], list[str]]:
    """Return the options that the settings and the shapes determine, and a line for every contradiction.

    Raises:
        ConfigError: a value is invalid for its option.
    """
    schema = METHODS[name].Options
    values, setting_problems = translation.options(settings, as_dict(schema()))
    problems = [f"{name}: {problem}" for problem in setting_problems]
    parsed = as_dict(parse(schema, values, where=name))
    clip = {f"clip.{key}": value for key, value in tensors.clip.items()}
    for option, size in translation.sizes({**tensors.method, **clip}).items():
        if option in values and option != "context_length" and parsed[option] != size:
            problems.append(f"{name}: {option} is {parsed[option]} in the settings, {size} by the checkpoint's shapes")
        values[option] = size
    return values, problems


def _log_assumed_settings(name: str, translation: Translation, settings: Mapping[str, Any], log: Log) -> None:
    """Log the default of every setting that is not given and that no shape determines."""
    for key in translation.required_config:
        option, _, index = translation.settings.get(key, "").partition(".")
        if key in settings or option in settings:
            continue
        if key in translation.fixed:
            value = translation.fixed[key]
        else:
            default = getattr(METHODS[name].Options(), option)
            value = default[int(index)] if index else default
        log(f"{name}: {key} is not given, and shapes do not determine it; {value} is assumed")


def _backbone(
    name: str, translation: Translation, tensors: CheckpointTensors, given: Source | None, options: Any
) -> Any:
    """Return the encoder of the checkpoint, or else the ``given`` one, as an argument for ``load_backbone``.

    Tensors that do not fit the CLIP are skipped; ``_mismatches`` reports them.

    Raises:
        ConfigError: there is no CLIP.
    """
    if translation.encoder:
        heads = getattr(options, translation.encoder_heads) if translation.encoder_heads else None
        if tensors.encoder:
            return tower_of(tensors.encoder, heads)
        if given is None:
            return GivenFeatures(translation.features(tensors.method))
        return tower_of(_tensors(given), heads) if isinstance(given, Mapping) else str(given)
    if clip := tensors.clip:
        model = model_from_shapes(clip)
        own = model.state_dict()
        fitting = {key: value for key, value in clip.items() if key in own and own[key].shape == value.shape}
        model.load_state_dict({**own, **fitting})
        return model
    if given is None:
        raise ConfigError(
            [f"{name}: the checkpoint has no CLIP; pass backbone=, an OpenAI-format state dict, file or model name"]
        )
    return from_openai(_tensors(given)) if isinstance(given, Mapping) else str(given)


def _mismatches(
    name: str, method: Method, our_keys: Mapping[str, str], used: Mapping[str, Tensor], tensors: CheckpointTensors
) -> list[str]:
    """Return a line for every tensor of the method or of CLIP that is missing, unknown or of another shape.

    Args:
        our_keys: our name of every learned tensor, by the authors' name.
        used: the tensors of the method that the authors' program uses, by the authors' name.
    """
    own = learned_state(method)
    lines = state_dict_mismatches({key: own[our_keys[key]] for key in our_keys}, used)
    if tensors.clip:
        clip: Any = method.backbone.clip
        lines += [tensors.clip_prefix + line for line in state_dict_mismatches(clip.state_dict(), tensors.clip)]
    return [f"{name}: these tensors of the checkpoint do not fit:", *lines] if lines else []


def _log_unused_tensors(name: str, unused: tuple[str, ...], log: Log) -> None:
    """Log the number of skipped tensors, and their modules."""
    if unused:
        modules = ", ".join(dict.fromkeys(re.sub(r"\.\d+\..*|\.[^.]*$", "", key) for key in unused))
        log(f"{name}: skipped {len(unused)} tensors that the authors' program does not use, of the modules {modules}")
