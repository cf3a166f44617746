"""Folders of trained methods: a description in JSON, and the learned tensors in safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..files import file_digest, remove_unfinished, write_text
from ..learned_state import learned_state, load_learned
from ..method import METHODS, Method, construct
from ..options import parse, user_path
from ..types import PairSpace
from ..weights import read_tensors, state_dict_mismatches, write_tensors

FORMAT = 1
METADATA_FILE, WEIGHTS_FILE, BACKBONE_FILE = "method.json", "weights.safetensors", "backbone.safetensors"


@dataclass(frozen=True)
class TrainedMethod:
    """The folder of a trained method, with the description of the method.

    Options in the description are fixed: the method was trained with them, or its tensors depend on them. All other
    options are free: they have the method's defaults, and may be changed at every use.
    """

    folder: Path
    method: str  # registered name
    options: Mapping[str, Any]  # fixed options, as in the description
    space: PairSpace  # label space of the training

    @classmethod
    def read(cls, folder: str | Path) -> TrainedMethod:
        """Read the description of the method in ``folder``.

        Raises:
            ConfigError: the folder does not contain a method of this format.
        """
        folder = user_path(folder)
        path = folder / METADATA_FILE
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))
            if metadata["format"] != FORMAT:
                raise ConfigError([f"{path} is of format {metadata['format']!r}, this czslkit reads format {FORMAT}"])
            space = PairSpace(*(metadata["space"][key] for key in ("attrs", "objs", "pairs", "seen")))
            trained = cls(folder, str(metadata["method"]), dict(metadata["options"]), space)
        except FileNotFoundError:
            raise ConfigError(
                [f"no {path}; expected a folder that czslkit convert or a training of czslkit bench wrote"]
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError([f"{path} cannot be read: {type(error).__name__}: {error}"]) from error

        files = [WEIGHTS_FILE] + [BACKBONE_FILE] * trained._has_backbone
        if missing := [name for name in files if not (trained.folder / name).is_file()]:
            raise ConfigError([f"{trained.folder} lacks {missing[0]}, which {METADATA_FILE} requires"])
        return trained

    @property
    def _has_backbone(self) -> bool:
        """True if the folder contains the weights of the backbone."""
        return self.options.get("backbone") == BACKBONE_FILE

    @property
    def fixed_options(self) -> dict[str, Any]:
        """The fixed options, with the current path of a backbone file in the folder."""
        in_folder = {"backbone": str((self.folder / BACKBONE_FILE).resolve())} if self._has_backbone else {}
        return {**self.options, **in_folder}

    @property
    def digest(self) -> str:
        """A digest of the folder's files, which does not depend on the path of the folder."""
        files = (self.folder / name for name in (METADATA_FILE, WEIGHTS_FILE, BACKBONE_FILE))
        return "-".join(file_digest(file) for file in files if file.exists())

    def build(self, space: PairSpace | None = None, **options: Any) -> Method:
        """Build the method with its learned tensors, in evaluation mode on the CPU.

        Args:
            space: label space to use the method on, with the attributes and objects of the training; by default the
                label space of the training.
            options: values of free options, or of fixed options that do not change tensors.

        Raises:
            ConfigError: ``space`` has other attributes or objects, or the tensors do not fit the options.
        """
        cls = METHODS[self.method]
        values: Any = parse(cls.Options, {**self.fixed_options, **options}, where=self.method)
        method = construct(cls, values, space or self.space, where=self.method)
        self.load_into(method)
        return method.eval()

    def load_into(self, method: Method) -> None:
        """Load the learned tensors into ``method``.

        Raises:
            ConfigError: ``method`` has other attributes or objects, or tensors do not fit; the message lists them.
        """
        for kind in ("attrs", "objs"):
            trained, given = getattr(self.space, kind), getattr(method.space, kind)
            if trained != given:
                different = (f"{a!r}, here {b!r}" for a, b in zip(trained, given, strict=False) if a != b)
                first = next(different, "their number")
                raise ConfigError(
                    [
                        f"{self.folder} was trained on {len(trained)} {kind}, the label space has {len(given)}; "
                        f"the first difference is {first}"
                    ]
                )
        state = read_tensors(self.folder / WEIGHTS_FILE)
        if problems := state_dict_mismatches(learned_state(method), state):
            raise ConfigError([f"{self.folder / WEIGHTS_FILE}: these tensors do not fit:", *problems])
        load_learned(method, state)


def save(
    folder: str | Path,
    name: str,
    method: Method,
    options: Mapping[str, Any],
    *,
    backbone: Mapping[str, Tensor] | None = None,
    **notes: Any,
) -> None:
    """Write a method into ``folder``.

    The old description is removed first and the new one is written last, so that a folder with a description is
    complete.

    Args:
        name: registered name of the method.
        options: fixed options; ``backbone`` is a name or a file, unless the argument ``backbone`` is given.
        backbone: weights of the CLIP in OpenAI's format, which are also written into the folder.
        notes: other values for the description, such as the origin of the weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    for outdated in (METADATA_FILE, BACKBONE_FILE):
        (folder / outdated).unlink(missing_ok=True)
    write_tensors(learned_state(method), folder / WEIGHTS_FILE)
    options = dict(options)
    if backbone is not None:
        write_tensors(backbone, folder / BACKBONE_FILE)
        options["backbone"] = BACKBONE_FILE
    elif Path(options.get("backbone", "")).is_file():
        options["backbone"] = str(Path(options["backbone"]).resolve())
    labels = method.space
    space = {"attrs": labels.attrs, "objs": labels.objs, "pairs": labels.pairs.tolist(), "seen": labels.seen.tolist()}
    metadata = {"format": FORMAT, "method": name, "options": options, "space": space, **notes}
    write_text(folder / METADATA_FILE, json.dumps(metadata))


def load_checkpoint(folder: str | Path) -> Method:
    """Load the method in a folder, in evaluation mode on the CPU, with the label space of its training.

    Raises:
        ConfigError: the folder does not contain a method of this format, or its tensors do not fit.
    """
    return TrainedMethod.read(folder).build()
