"""Options that several commands have, and the types of option values."""

from __future__ import annotations

import argparse
from typing import TypeAlias

#: The commands of a parser, to which a module adds the parser of its own command.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_data_folder(parser: argparse._ActionsContainer) -> None:
    """Add ``--data``, the folder of the datasets."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder that holds one folder for each dataset (default: $CZSLKIT_DATA if it is set, else ./data)",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add ``--device``, where tensors are computed."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="device to compute on, as torch names it: cpu, cuda, cuda:1, mps; or auto, which takes cuda if torch can "
        "use it and else cpu (default: auto)",
    )


def whole_numbers(text: str) -> list[int]:
    """Return the numbers of a text such as ``0,1,2``.

    Raises:
        argparse.ArgumentTypeError: a part is not a whole number.

    >>> whole_numbers("0,1,2")
    [0, 1, 2]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers with commas, such as 0,1,2") from None


def positive_number(text: str) -> int:
    """Return the whole number above 0 that a text holds.

    Raises:
        argparse.ArgumentTypeError: it does not hold one.

    >>> positive_number("12")
    12
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
