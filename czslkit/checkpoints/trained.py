"""A trained method in a folder: what it is in JSON, what it learned in safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..files import file_digest, write_text
from ..method import METHODS, Method, construct, learned_state, load_learned
from ..options import parse
from ..types import PairSpace
from ..weights import read_tensors, state_dict_mismatches, write_tensors

FORMAT = 1
METADATA_FILE, WEIGHTS_FILE, BACKBONE_FILE = "method.json", "weights.safetensors", "backbone.safetensors"


@dataclass(frozen=True)
class TrainedMethod:
    """What a folder says of the method in it."""

    folder: Path
    method: str
    options: Mapping[str, Any]  # those that were settled when it was written; the others are free
    space: PairSpace

    @classmethod
    def read(cls, folder: str | Path) -> TrainedMethod:
        """From ``method.json``.

        Raises:
            ConfigError: the folder holds no method of this format.
        """
        path = Path(folder) / METADATA_FILE
        try:
            head = json.loads(path.read_text(encoding="utf-8"))
            if head["format"] != FORMAT:
                raise ConfigError([f"{path} is of format {head['format']!r}, this czslkit reads format {FORMAT}"])
            space = PairSpace(*(head["space"][key] for key in ("attrs", "objs", "pairs", "seen")))
            saved = cls(Path(folder), str(head["method"]), dict(head["options"]), space)
        except FileNotFoundError:
            raise ConfigError(
                [f"no {path}; expected a folder that czslkit convert or a training of czslkit bench wrote"]
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError([f"{path} cannot be read: {type(error).__name__}: {error}"]) from error

        for file in (WEIGHTS_FILE, *([BACKBONE_FILE] if saved.options.get("backbone") == BACKBONE_FILE else [])):
            if not (saved.folder / file).is_file():
                raise ConfigError([f"{saved.folder} lacks {file}, which {METADATA_FILE} says belongs there"])
        return saved

    @property
    def settled(self) -> dict[str, Any]:
        """The options, with the backbone's file where it is now."""
        inside = {"backbone": str((self.folder / BACKBONE_FILE).resolve())}
        return {**self.options, **(inside if self.options.get("backbone") == BACKBONE_FILE else {})}

    @property
    def digest(self) -> str:
        """Tells one method from another, wherever their folders are."""
        files = (self.folder / name for name in (METADATA_FILE, WEIGHTS_FILE, BACKBONE_FILE))
        return "-".join(file_digest(file) for file in files if file.exists())

    def build(self, space: PairSpace | None = None, **options: Any) -> Method:
        """The method, with what it learned, in evaluation mode on the CPU.

        Args:
            space: the label space to use it on; its own if None. The words must be those it was trained on.
            options: in place of the free ones, or of settled ones that no tensor depends on.

        Raises:
            ConfigError: other words, or options that the tensors do not fit.
        """
        cls = METHODS[self.method]
        values: Any = parse(cls.Options, {**self.settled, **options}, where=self.method)
        method = construct(cls, values, space or self.space, where=self.method)
        self.fill(method)
        return method.eval()

    def fill(self, method: Method) -> None:
        """Give ``method`` what was learned.

        Raises:
            ConfigError: other words, or tensors that do not fit; all of them.
        """
        for kind in ("attrs", "objs"):
            own, other = getattr(self.space, kind), getattr(method.space, kind)
            if own != other:
                first = next((f"{a!r}, here {b!r}" for a, b in zip(own, other, strict=False) if a != b), "their number")
                raise ConfigError(
                    [f"{self.folder} knows {len(own)} {kind}, here are {len(other)}; what differs first is {first}"]
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
    **about: Any,
) -> None:
    """Write a method into ``folder``; the description goes first and comes last, so that a folder with one is whole.

    Args:
        name: as registered.
        options: those that are settled; ``backbone`` as a name or file, unless it is given.
        backbone: the CLIP inside in OpenAI's names, for a folder that needs nothing else.
        about: anything else worth keeping in the description, such as where it came from.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (METADATA_FILE, BACKBONE_FILE):
        (folder / old).unlink(missing_ok=True)
    write_tensors(learned_state(method), folder / WEIGHTS_FILE)
    options = dict(options)
    if backbone is not None:
        write_tensors(backbone, folder / BACKBONE_FILE)
        options["backbone"] = BACKBONE_FILE
    elif Path(options.get("backbone", "")).is_file():
        options["backbone"] = str(Path(options["backbone"]).resolve())
    space = method.space
    words = {"attrs": space.attrs, "objs": space.objs, "pairs": space.pairs.tolist(), "seen": space.seen.tolist()}
    head = {"format": FORMAT, "method": name, "options": options, "space": words, **about}
    write_text(folder / METADATA_FILE, json.dumps(head))


def load_checkpoint(folder: str | Path) -> Method:
    """The method in a folder, in evaluation mode on the CPU, with the label space it was trained on.

    Raises:
        ConfigError: the folder holds no method of this format, or tensors that do not fit.
    """
    return TrainedMethod.read(folder).build()
