"""Read, check and write files of tensors."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import ConfigError, did_you_mean, shortened
from .files import unfinished
from .foreign_files import check_regular
from .options import user_path
from .torch_files import check_claims, load_plain
from .torchscript import archive_folder, read_archive

T = TypeVar("T")
#: Keys of the tensors in the checkpoint of a whole training.
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
DIGEST_KEY = "czslkit.digest"  # entry of a safetensors file's metadata: digest of everything else in the file
_HUB_TIMEOUT = 5  # seconds
_LONGEST_REASON = 300  # characters of an error of a foreign file
_UMASK = os.umask(0)  # reading the umask requires setting it
os.umask(_UMASK)


def read_tensors(path: str | Path, sections: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name, on the CPU, without running code from the file.

    The file has the format of safetensors, torch (a dict of tensors, possibly inside ``state_dict``,
    ``model_state_dict`` or ``model``) or TorchScript (such as OpenAI's CLIP files; the program in it is not read). If
    every name starts with ``module.``, this prefix is removed.

    Args:
        sections: the parts of the file to read, with their new names; see :func:`tensors_of`.

    Raises:
        ConfigError: the file has another format, is damaged, or contains more than tensors. A file that
            :func:`write_tensors` wrote is damaged if its content does not have the digest that is written in it.
    """
    path = user_path(path)
    try:
        if not path.exists():
            raise ValueError("there is no such file")
        check_regular(path)
        if path.suffix.lower() == ".safetensors":
            tensors, _ = read_safetensors(path)
        elif folder := archive_folder(path):
            tensors = read_archive(path, folder)
        else:
            tensors = tensors_of(load_plain(path), sections)
        check_claims(tensors.values(), path)
        if long := next((name for name in tensors if len(name) > _LONGEST_REASON), ""):
            raise ValueError(f"it has a tensor with a name of {len(long):,} characters: {shortened(long)}")
    except Exception as error:  # a foreign file can cause any error
        kinds = "safetensors, torch tensors or TorchScript"
        raise ConfigError([f"{path} is not a readable weight file ({kinds}): {_first_sentence(error)}"]) from error
    return _without_module_prefix(tensors)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors by name, on the CPU, and the metadata of a safetensors file.

    Raises:
        ValueError: the content does not have the digest that :func:`write_tensors` wrote into the file.
        OSError, SafetensorError: the file cannot be read.
    """
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = metadata.pop(DIGEST_KEY, None)
    if expected is not None and expected != (found := _content_digest(tensors, metadata)):
        raise ValueError(f"it is damaged: its content has the digest {found}, expected {expected}")
    return tensors, metadata


def tensor_digest(*tensors: Tensor) -> str:
    """Return 16 hex digits of a SHA-256 over the types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _content_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return 16 hex digits of a SHA-256 over the names, types, shapes and values of tensors, and over metadata."""
    names = sorted(tensors)
    content = [names, tensor_digest(*(tensors[name] for name in names)), dict(metadata)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def tensors_of(content: Any, sections: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of the state dict inside a checkpoint; numpy arrays become tensors.

    Args:
        sections: parts of a checkpoint that are tensors or dicts of tensors, by name, with the name or the prefix that
            they get. If ``content`` has one of them, its other parts are left out.

    Raises:
        ValueError: ``content`` is not a dict, or contains more than tensors.
    """
    if isinstance(content, Mapping) and not {*content}.isdisjoint(sections or {}):
        parts = {(sections or {})[name]: part for name, part in content.items() if name in (sections or {})}
        content = {
            name: value
            for start, part in parts.items()
            for name, value in (
                {f"{start}{key}": value for key, value in part.items()} if isinstance(part, Mapping) else {start: part}
            ).items()
        }
    if isinstance(content, Mapping):
        content = next((content[key] for key in STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping):
        raise ValueError(f"it contains a {type(content).__name__}, not a dict of tensors")
    kinds = (Tensor, np.ndarray, np.generic)
    if strange := next((key for key in content if not isinstance(key, str)), ""):
        raise ValueError(f"it has the key {shortened(strange)}, expected names")
    unknown = [
        f"{shortened(key)} ({type(value).__name__})" for key, value in content.items() if not isinstance(value, kinds)
    ]
    if unknown:
        raise ValueError(f"it contains more than tensors: {', '.join(unknown[:5])}")
    return _without_module_prefix({key: torch.as_tensor(value) for key, value in content.items()})


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, with a digest of the content; after an interruption, the old file is unchanged."""
    with unfinished(path) as made:
        copies = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()
        }
        metadata = metadata or {}
        save_file(copies, made, {**metadata, DIGEST_KEY: _content_digest(copies, metadata)})
        made.chmod(0o666 & ~_UMASK)  # usual permissions; safetensors gives permissions only to the owner


def state_dict_mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return a line for every tensor that is missing from ``state``, unknown, or has an unexpected shape."""
    unknown = state.keys() - expected.keys()
    problems = [f"{key} is missing" for key in expected.keys() - state.keys()]
    problems += [f"{key} is unknown{did_you_mean(key, expected) if len(unknown) < 20 else ''}" for key in unknown]
    problems += [
        f"{key} is {list(state[key].shape)}, expected {list(expected[key].shape)}"
        for key in expected.keys() & state.keys()
        if expected[key].shape != state[key].shape
    ]
    return sorted(problems)


def load_strict(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load ``state`` into ``model``; all names and shapes must match.

    Raises:
        ConfigError: names are missing or unknown, or shapes differ; the message lists all of them.
    """
    if problems := state_dict_mismatches(model.state_dict(), state):
        raise ConfigError([f"these tensors do not fit {type(model).__name__}:", *problems])
    model.load_state_dict(state)


def download_or_raise(
    setting: str,
    create: Callable[[], T],
    *,
    part: str = "weights",
    hint: str = "a file works as well: NAME/TAG//path/to/weights",
) -> T:
    """Return the result of ``create``, a function that may download files.

    If the Hugging Face hub does not answer within seconds, only files that were downloaded before are used.

    Args:
        setting: backbone setting, for the error message.
        part: name of the result of ``create``, for the error message.
        hint: advice at the end of the error message.

    Raises:
        ConfigError: ``create`` failed.
    """
    from huggingface_hub import constants

    reason, was_offline = why_hub_is_unreachable(), constants.HF_HUB_OFFLINE
    if reason:  # every file would be asked for again and again, for a minute
        constants.HF_HUB_OFFLINE = True
        hint += "; HF_HUB_OFFLINE=1 uses files of an earlier download without asking"
    try:
        return create()
    except Exception as error:  # a download can cause any error
        missing = f"{reason}, and the files were not downloaded before" if reason else ""
        reason = missing or str(error).strip().split("\n")[0]
        raise ConfigError([f"the {part} of {setting} could not be loaded: {reason}; {hint}"]) from error
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def why_hub_is_unreachable() -> str:
    """Return why the Hugging Face hub does not answer, empty if it answers or ``HF_HUB_OFFLINE`` is set."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return ""
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
    except Exception as error:  # of the HTTP library that this version of huggingface_hub uses
        return f"{constants.ENDPOINT} cannot be reached ({error})"
    return ""


def _without_module_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ``tensors`` without the ``module.`` that DataParallel puts in front of every name."""
    wrapped = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()} if wrapped else tensors


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of an error message; for a refused pickle, the sentence with the refused name."""
    text = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
    return re.split(r"\. |\n", text)[0][:_LONGEST_REASON] or type(error).__name__
