"""Options that several commands share, and functions that parse option values."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TypeAlias

from ..errors import ConfigError
from ..options import user_path

#: Subparsers of a parser; the module of each command adds a subparser.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_data_folder(parser: argparse._ActionsContainer) -> None:
    """Add ``--data``, the folder of the datasets."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=expanded_path,
        help="folder with one subfolder for each dataset (default: $CZSLKIT_DATA if it is set, else ./data)",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``, the device to compute on."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="torch device to compute on: cpu, cuda, cuda:1 or mps; auto selects cuda if torch can use it, else cpu "
        "(default: auto)",
    )


def expanded_path(text: str) -> Path:
    """Return the path in a text; a leading ``~`` becomes the home folder.

    Raises:
        argparse.ArgumentTypeError: the text is empty, or starts with ``~`` and the name of a user who does not exist.

    >>> expanded_path("~") == Path.home()
    True
    """
    try:
        return user_path(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def path_or_name(text: str) -> str:
    """Return a text that is a path, with the home folder for a leading ``~``, or a name such as that of a module.

    Raises:
        argparse.ArgumentTypeError: as :func:`expanded_path`.

    >>> path_or_name("hf-hub:NAME//FILE")
    'hf-hub:NAME//FILE'
    """
    found = expanded_path(text)
    return str(found) if text.startswith("~") else text


def new_file(text: str) -> Path:
    """Return the path of a file to write.

    Raises:
        argparse.ArgumentTypeError: as :func:`expanded_path`, or the path is a folder.
    """
    file = expanded_path(text)
    if file.is_dir() or text.endswith(("/", os.sep)):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, expected the path of a file to write")
    return file


def new_file_or_output(text: str) -> Path:
    """Return the path of a file to write; ``-`` stands for standard output.

    Raises:
        argparse.ArgumentTypeError: as :func:`new_file`.
    """
    return Path(text) if text == "-" else new_file(text)


def whole_numbers(text: str) -> list[int]:
    """Return the whole numbers in a text such as ``0,1,2``.

    Raises:
        argparse.ArgumentTypeError: a part is not a whole number.

    >>> whole_numbers("0,1,2")
    [0, 1, 2]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers separated by commas, such as 0,1,2") from None


def positive_number(text: str) -> int:
    """Return a text such as ``12`` as a whole number above 0.

    Raises:
        argparse.ArgumentTypeError: the text is not a whole number above 0.

    >>> positive_number("12")
    12
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
