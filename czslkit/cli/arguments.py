"""Options that several commands share, and functions that parse option values."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import ConfigError
from ..options import user_path
from ..registry import load_unpackaged
from ..seeds import parse_seeds

#: Subparsers of a parser; the module of each command adds a subparser.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
#: What ``--checkpoint`` accepts, for the help texts.
CHECKPOINT_FORMS = (
    "the folder of a run, RUNS/DATASET/METHOD/seedN-ID, a folder that czslkit convert wrote, or hf:USER/NAME or "
    "hf:USER/NAME@REVISION, a repository of the Hugging Face hub that czslkit push wrote"
)


def add_data_folder(parser: argparse._ActionsContainer) -> None:
    """Add ``--data``, the folder of the datasets."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=expanded_path,
        help="folder with one subfolder for each dataset (default: $CZSLKIT_DATA if it is set, else ./data)",
    )


def add_plugins(parser: argparse._ActionsContainer) -> None:
    """Add ``--plugins``, code that registers names but is not installed."""
    parser.add_argument(
        "--plugins",
        nargs="+",
        action="extend",
        type=path_or_name,
        default=[],
        metavar="MODULE|FILE.py",
        help="Python modules or files that register methods, components or datasets; they are imported first "
        "(default: none)",
    )


def add_checkpoint(parser: argparse._ActionsContainer) -> None:
    """Add ``--checkpoint``, the one trained method of a command."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        type=path_or_name,
        help=f"trained method, required: {CHECKPOINT_FORMS}",
    )


class ReplaceDefault(argparse.Action):
    """Collect the values of an option, also of one that is given several times, in the place of its default."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        found = getattr(namespace, self.dest)
        setattr(namespace, self.dest, list(values) if found is self.default else [*found, *values])


def load_given_plugins(args: argparse.Namespace) -> None:
    """Import the code that ``--plugins`` names.

    Raises:
        ConfigError: some code cannot be found or imported.
    """
    for plugin in args.plugins:
        load_unpackaged(plugin)


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``, the device to compute on."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="torch device to compute on: cpu, cuda, cuda:1 or mps; auto selects cuda or mps if torch can use it, "
        "else cpu (default: auto)",
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


def number_or_name(text: str) -> int | str:
    """Return a text that is a whole number as an int, and any other text as it is.

    >>> number_or_name("2"), number_or_name("auto")
    (2, 'auto')
    """
    try:
        return int(text)
    except ValueError:
        return text


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


def names(texts: Iterable[str]) -> list[str]:
    """Return the names in texts, which are parted by commas; a text may have several names.

    >>> names(["csp,msci", "clip"])
    ['csp', 'msci', 'clip']
    """
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def seeds(text: str) -> list[int]:
    """Return the seeds in a text; see :func:`czslkit.seeds.parse_seeds`.

    Raises:
        argparse.ArgumentTypeError: the text has another form.
    """
    try:
        return parse_seeds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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


def jobs(text: str) -> int | str:
    """Return a number of trainings above 0, or ``auto``.

    Raises:
        argparse.ArgumentTypeError: the text is neither.

    >>> jobs("2"), jobs("auto")
    (2, 'auto')
    """
    if text == "auto":
        return text
    try:
        return positive_number(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor auto") from None
