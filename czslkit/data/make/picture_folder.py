"""Read pictures from folders that are named after an attribute and an object, such as ``wet_dog/``."""

from __future__ import annotations

from pathlib import Path

from ...errors import DataError, first_ten
from ...terminal import log_to_stderr
from ..integrity import printable
from ..layout import Pair
from .labelled_pictures import LabelledPicture, is_image, label_problem, normalized_label, refuse_if_any


def read_folder(source: Path) -> list[LabelledPicture]:
    """Return the images of every subfolder of ``source``, and print the names of other files to standard error.

    Raises:
        DataError: ``source`` is not a folder or has no images, or the labels of some images are unclear. The message
            lists every problem.
    """
    if not source.is_dir():
        raise DataError(f"{source} is neither a folder of pictures nor a table")
    problems: list[str] = []
    skipped: list[str] = []
    pictures: list[LabelledPicture] = []
    for entry in _visible_entries(source):
        if entry.is_dir():
            pair, problem = _pair_of_folder(entry.name)
            problems += [problem] if problem else []
            for file in _visible_entries(entry):
                if file.is_dir():
                    problems.append(f"{entry.name}/{file.name} is a folder, expected images")
                elif is_image(file):
                    pictures.append(LabelledPicture(file, *pair))
                else:
                    skipped.append(f"{entry.name}/{file.name}")
        elif is_image(entry):
            problems.append(f"{entry.name} is not in a folder named after an attribute and an object")
        else:
            skipped.append(entry.name)
    refuse_if_any(source, problems)
    if not pictures:
        raise DataError(f"{source} has no folder of images; expected {source.name}/ATTR_OBJ/*.jpg")
    if skipped:
        log_to_stderr(f"skipped files without an image suffix: {first_ten(list(map(printable, skipped)))}")
    return pictures


def _pair_of_folder(name: str) -> tuple[Pair, str]:
    """Return the attribute and object in a folder's name, and their problem, empty if they can be used."""
    words = name.split()
    words = name.split("_") if len(words) == 1 else words
    if len(words) != 2 or not all(words):
        advice = "rename it to 'attr obj' with one space, or import a table"
        return ("", ""), f"the folder {name!r} does not clearly name an attribute and an object: {advice}"
    pair = normalized_label(words[0]), normalized_label(words[1])
    return pair, " and ".join(filter(None, (label_problem("attr", pair[0]), label_problem("obj", pair[1]))))


def _visible_entries(folder: Path) -> list[Path]:
    """Return the files and folders that are not hidden, in the same order on every system."""
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)
