"""Folders of trained methods: a description in JSON, and the learned tensors in safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError, shortened
from ..files import file_digest, remove_unfinished, write_text
from ..foreign_files import JSON_LIMIT, parse_json, read_regular
from ..json_digest import change_since_written, with_digest
from ..learned_state import learned_state, load_learned
from ..method import METHODS, Method, construct
from ..options import parse
from ..training_files import BACKBONE_FILE, METADATA_FILE, TRAINING_FOLDER, WEIGHTS_FILE
from ..types import PairSpace
from ..weights import read_tensors, state_dict_mismatches, write_tensors
from .calibration import read_calibration
from .hub import local_folder, origin

#: Format of the descriptions that are written; descriptions of this format and of lower formats are read.
FORMAT = 2
_FIRST_WITH_DIGEST = 2  # first format whose descriptions must hold digests
_REMEDY = "Copy the whole folder again from its source, or train the method again in another folder"
_RUN_REMEDY = "Run the czslkit bench command of this run again, which writes the trained method anew"
_LONGEST_REASON = 300  # characters of an error of a foreign file


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

        Args:
            folder: the folder of the method, or the folder of a run, in which it is ``training``, or
                ``hf:USER/NAME[@REVISION]``, which is downloaded.

        Raises:
            ConfigError: the folder does not contain a method of this format, or a file in it was changed, or the
                download failed.
        """
        folder = local_folder(folder)
        if (folder / TRAINING_FOLDER / METADATA_FILE).is_file() and not (folder / METADATA_FILE).exists():
            folder = folder / TRAINING_FOLDER
        path = folder / METADATA_FILE
        metadata = read_description(folder)
        try:
            space = PairSpace(*(metadata["space"][key] for key in ("attrs", "objs", "pairs", "seen")))
            trained = cls(folder, str(metadata["method"]), dict(metadata["options"]), space)
        except (OverflowError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ConfigError([f"{path} cannot be read: {_reason(error)}"]) from error
        files = [WEIGHTS_FILE] + [BACKBONE_FILE] * trained._has_backbone
        if missing := [name for name in files if not (trained.folder / name).is_file()]:
            raise ConfigError(
                [f"{trained.folder} lacks {missing[0]}, which {METADATA_FILE} requires. {_remedy(trained.folder)}."]
            )
        trained._check_digests(metadata.get("digests", {}))
        return trained

    def _check_digests(self, expected: Mapping[str, str]) -> None:
        """Check the digests of the files with tensors.

        Raises:
            ConfigError: a file is not the one that was written with the description.
        """
        for name, digest in expected.items():
            if (found := file_digest(self.folder / name)) != digest:
                raise ConfigError(
                    [
                        f"{self.folder / name} was changed after it was written: it has the digest {found}, expected "
                        f"{digest}. {_remedy(self.folder)}."
                    ]
                )

    @property
    def origin(self) -> str:
        """The repository and the commit that it was downloaded from, ``hf:USER/NAME@COMMIT``; empty if it was not."""
        return origin(self.folder)

    @property
    def _has_backbone(self) -> bool:
        """True if the folder contains the weights of the backbone."""
        return self.options.get("backbone") == BACKBONE_FILE

    @property
    def fixed_options(self) -> dict[str, Any]:
        """The fixed options, with the current path of a backbone file in the folder."""
        in_folder = {"backbone": str((self.folder / BACKBONE_FILE).absolute())} if self._has_backbone else {}
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


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of the description in a folder.

    Raises:
        ConfigError: there is none, it has another format, or it was changed after it was written.
    """
    path = folder / METADATA_FILE
    try:
        file = read_regular(path, JSON_LIMIT)
        content: dict[str, Any] = parse_json(file)
        version = content["format"]
    except FileNotFoundError:
        raise ConfigError(
            [f"no {path}; expected the folder of a run, RUNS/DATASET/METHOD/seedN-ID, or one of czslkit convert"]
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{path} cannot be read: {_reason(error)}. {_remedy(folder)}."]) from error
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise ConfigError([f"{path} is of format {shortened(version)}, this czslkit reads formats up to {FORMAT}"])
    if change := change_since_written(file, required="digest" in content or version >= _FIRST_WITH_DIGEST):
        raise ConfigError([f"{path} {change}. {_remedy(folder)}."])
    return content


def _remedy(folder: Path) -> str:
    """Return what to do about a damaged folder; czslkit bench repairs the training of a run."""
    return _RUN_REMEDY if folder.name == TRAINING_FOLDER else _REMEDY


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:_LONGEST_REASON]}"


def is_intact(folder: Path) -> bool:
    """Return whether a folder contains a trained method whose files are as they were written."""
    try:
        TrainedMethod.read(folder)
    except ConfigError:
        return False
    return True


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
    digests = {name: file_digest(folder / name) for name in (WEIGHTS_FILE, BACKBONE_FILE) if (folder / name).exists()}
    labels = method.space
    space = {"attrs": labels.attrs, "objs": labels.objs, "pairs": labels.pairs.tolist(), "seen": labels.seen.tolist()}
    metadata = {"format": FORMAT, "method": name, "options": options, "space": space, "digests": digests, **notes}
    write_text(folder / METADATA_FILE, with_digest(metadata))


def load(folder: str | Path) -> Method:
    """Load the method in a folder, in evaluation mode on the CPU, with the label space of its training.

    ``method.predict(photos)`` then names the pairs of photos, at the bias that was best on the validation split.

    Args:
        folder: the folder of a run or of its training, a folder that ``czslkit convert`` wrote, or
            ``hf:USER/NAME[@REVISION]``, a repository of ``czslkit push`` on the Hugging Face hub.

    Raises:
        ConfigError: the folder does not contain a method of this format, its tensors do not fit, or the download
            failed.
    """
    trained = TrainedMethod.read(folder)
    method = trained.build()
    method.calibration = read_calibration(trained.folder, trained.space)
    return method
