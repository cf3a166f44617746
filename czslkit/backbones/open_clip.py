"""Load open_clip's models and weights, local weight files and OpenAI-format files."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ..components import BACKBONES
from ..errors import ConfigError, did_you_mean
from ..foreign_files import read_json
from ..types import Preprocessing
from ..weights import download_or_raise
from .clip import ClipBackbone
from .openai_format import check_size
from .preprocess_cfg import in_words, of_open_clip
from .weight_files import PREPROCESS_KEYS, load_file, load_into, model_of_file, readings, say_once, tensors_of_file

#: Starts of settings that name a repository or a folder with a configuration of open_clip.
SCHEMES = ("hf-hub:", "local-dir:")
_CONFIG, _CONFIG_LIMIT = "open_clip_config.json", 1 << 20  # largest size in bytes
#: Files of weights in a folder, in the order in which open_clip looks for them.
_WEIGHTS = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
    *("open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)


@BACKBONES.register("open_clip")
class OpenClip(ClipBackbone):
    """A CLIP of open_clip with the image preprocessing that its configuration asks for, or an OpenAI-format CLIP file.

    The setting is ``NAME/TAG`` with an open_clip model and a pretrained tag of it, ``NAME/random``, ``NAME/FILE`` or
    ``NAME/TAG/FILE`` with a file of weights (safetensors, torch tensors, or TorchScript, whose program is not run),
    ``hf-hub:REPOSITORY``, ``local-dir:FOLDER``, or a file alone. What a file of weights does not say comes from the
    model's pretrained tags; ``TAG`` selects one of them.

    Raises:
        ConfigError: open_clip has no such model, the weights are missing or do not fit, or the tags of a model differ
            in what its file does not say.
    """

    version = 1

    def __init__(self, argument: str = "ViT-L-14-quickgelu/openai") -> None:
        name = argument if argument.startswith(SCHEMES) else argument.partition("/")[0]
        alone = Path(argument).is_file()
        super().__init__(_load_model(argument), name="" if alone else name, tokenizer="" if alone else _tokenizer(name))

    @classmethod
    def stated_preprocessing(cls, argument: str) -> Preprocessing | None:
        if Path(argument).is_file():
            return None
        if argument.startswith(SCHEMES):
            config = _cached_config(argument)
            return of_open_clip(config.get("preprocess_cfg", {})) if config else None
        name, tag, file = _parts(argument)
        found = {reading.preprocessing for reading in readings(name, tag)} if tag or file else set()
        return found.pop() if len(found) == 1 else None


class _Parts(NamedTuple):
    """The parts of a setting ``NAME/TAG``, ``NAME/FILE`` or ``NAME/TAG/FILE``; empty where it has none."""

    name: str
    tag: str
    file: str


def model_names() -> list[str]:
    """Return the names of all architectures in open_clip."""
    import open_clip

    names: list[str] = open_clip.list_models()
    return names


def _parts(argument: str) -> _Parts:
    """Return the parts of a setting.

    Raises:
        ConfigError: open_clip has no such model or weights, or there is no such file.
    """
    import open_clip

    name, _, weights = argument.partition("/")
    if name not in model_names():
        raise ConfigError([f"open_clip has no model {name!r}.{did_you_mean(name, model_names())}"])
    if Path(weights).is_file():
        return _Parts(name, "", weights)
    if weights == "random":
        return _Parts(name, "", "")
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag, _, file = weights.partition("/")
    if tag not in tags or (file and not Path(file).is_file()):
        missing = file if tag in tags else weights
        raise ConfigError(
            [
                f"{name} has no weights {missing!r}, and there is no such file.{did_you_mean(missing, tags)} "
                f"Known: {', '.join([*tags, 'random'])}, or a file."
            ]
        )
    return _Parts(name, tag, file)


def _load_model(argument: str) -> nn.Module:
    """Return the open_clip model for the argument of :class:`OpenClip`."""
    import open_clip

    if Path(argument).is_file():
        return model_of_file(argument)
    if argument.startswith("local-dir:"):
        return _load_folder(argument)
    if argument.startswith("hf-hub:"):
        model = download_or_raise(argument, lambda: open_clip.create_model(argument, require_pretrained=True))
        _say_if_unsaid(argument, _cached_config(argument) or {"preprocess_cfg": {}})
        return model
    name, tag, file = _parts(argument)
    if file:
        return load_file(argument, name, tag, file)
    if not tag:
        return open_clip.create_model(name)
    # some weights were trained with QuickGELU although the name of the model does not say so
    quick_gelu = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    return download_or_raise(
        argument,
        lambda: open_clip.create_model(name, pretrained=tag, force_quick_gelu=quick_gelu, require_pretrained=True),
    )


def _tokenizer(name: str) -> str:
    """Return the tokenizer in a model's configuration if it is not OpenAI's; empty if it is, or if that is unknown."""
    import open_clip

    config = (
        (_cached_config(name) or {}).get("model_cfg") if name.startswith(SCHEMES) else open_clip.get_model_config(name)
    )
    text = (config or {}).get("text_cfg", {})
    hub = str(text.get("hf_tokenizer_name") or "")
    cleaning = text.get("tokenizer_kwargs", {}).get("clean", "lower")
    return "" if hub.startswith("openai/clip-") else hub or ("" if cleaning == "lower" else f"with clean={cleaning}")


def _load_folder(argument: str) -> nn.Module:
    """Return the model of a setting ``local-dir:FOLDER``.

    Raises:
        ConfigError: the folder lacks its configuration or its weights, or they do not fit.
    """
    import open_clip

    folder = Path(argument.removeprefix("local-dir:"))
    if not folder.is_dir():
        raise ConfigError([f"{argument}: there is no folder {folder}"])
    config = _cached_config(argument)
    if config is None or "model_cfg" not in config:
        file = next(iter(weight_files(folder)), folder / "model.safetensors")
        raise ConfigError(
            [
                f"{argument}: the folder has no {_CONFIG} with a model_cfg, which says what the weights do not; write "
                f"one, or name the model: NAME/{file}, for example ViT-B-32/openai/{file}"
            ]
        )
    files = weight_files(folder)
    if not files:
        raise ConfigError([f"{argument}: the folder has no weights, expected {_WEIGHTS[0]} beside {_CONFIG}"])
    state = tensors_of_file(files[0]).state
    check_size(_numbers_in(config["model_cfg"]), state, f"{argument}: the model of {_CONFIG}")
    create = functools.partial(open_clip.create_model, argument, load_weights=False, pretrained_hf=False)
    hint = f"{folder / _CONFIG} must be a configuration of open_clip"
    model = download_or_raise(argument, create, part="model", hint=hint)
    load_into(model, state)
    _say_if_unsaid(argument, config)
    return model


def weight_files(folder: Path) -> list[Path]:
    """Return the files of weights in a folder, first the one that open_clip reads."""
    named = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    return [
        *named,
        *(file for kind in ("safetensors", "bin", "pth", "pt") for file in sorted(folder.glob(f"*.{kind}"))),
    ]


def _cached_config(argument: str) -> dict[str, Any] | None:
    """Return the configuration of a repository or folder, None if it is not on this machine.

    Raises:
        ConfigError: the file is damaged.
    """
    from huggingface_hub import try_to_load_from_cache

    place = argument.partition(":")[2]
    local = argument.startswith("local-dir:")
    file = Path(place) / _CONFIG if local else try_to_load_from_cache(place, _CONFIG)
    if not isinstance(file, (str, Path)) or not Path(file).is_file():
        return None
    try:
        config = read_json(file, _CONFIG_LIMIT)
        if not isinstance(config, dict):
            raise ValueError(f"it contains a {type(config).__name__}, not a dict")
    except (OSError, ValueError) as error:
        raise ConfigError([f"{argument}: {file} is not a configuration of open_clip: {error}"]) from error
    return config


def _numbers_in(config: Any) -> int:
    """Return about how many numbers are in the transformers of a configuration of open_clip; 0 for other towers."""
    towers = [config.get(name) for name in ("vision_cfg", "text_cfg")] if isinstance(config, Mapping) else []
    sizes = [
        [tower.get(n, 0) for n in ("width", "layers", "vocab_size")] for tower in towers if isinstance(tower, Mapping)
    ]
    return sum(
        12 * layers * width**2 + words * width
        for width, layers, words in sizes
        if all(isinstance(size, int) for size in (width, layers, words))
    )


def _say_if_unsaid(argument: str, config: Mapping[str, Any]) -> None:
    """Log that a configuration says nothing about images, and what is used."""
    if "preprocess_cfg" not in config:
        say_once(
            f"{argument}: {_CONFIG} has no preprocess_cfg; images are prepared as by OpenAI's CLIP "
            f"({in_words(Preprocessing())}). To set it, add preprocess_cfg with {', '.join(PREPROCESS_KEYS)}"
        )
