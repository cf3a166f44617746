"""``czslkit init``: write a suite, the file of a comparison, with comments."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ..errors import CzslkitError
from ..files import write_text
from .arguments import Commands, new_file

_TEMPLATE = Path(__file__).parent / "suite.yaml"


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "init",
        help="write a commented file with a whole comparison, for czslkit bench",
        description="Write a suite: a YAML file with methods, their settings and labels, datasets, worlds and seeds. "
        "It runs as it is on the demo world, and its comments explain every key: change it into your comparison.",
        epilog="example: czslkit init my.yaml && czslkit bench my.yaml",
    )
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        type=new_file,
        default=Path("suite.yaml"),
        help="file to write (default: suite.yaml)",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that exists (default: stop with an error)")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write the suite, print what to do next and return the exit status.

    Raises:
        CzslkitError: the file exists, or its folder does not.
    """
    file: Path = args.file
    if file.exists() and not args.force:
        raise CzslkitError(f"{file} exists: name another file, or replace this one with --force")
    if not file.parent.is_dir():
        raise CzslkitError(f"there is no folder {file.parent}: make it, or name a file in another folder")
    typed = shlex.quote(str(file))
    write_text(file, _TEMPLATE.read_text(encoding="utf-8").replace("suite.yaml", typed))
    print(f"{file} compares two methods on the demo world. Next:\n  czslkit bench {typed}")
    return 0
