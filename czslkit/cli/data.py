"""``czslkit data ...``: what is done with datasets before anything runs on them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_data(parser: argparse.ArgumentParser) -> None:
    """Give the ``data`` command its commands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    mini = commands.add_parser("mini", help="write a small replica of a dataset, in its layout")
    mini.add_argument("name", metavar="NAME|all")
    mini.add_argument("--out", metavar="DIR", required=True, type=Path)
    mini.set_defaults(command=_mini)


def _mini(args: argparse.Namespace) -> int:
    from ..data.mini import NAMES, write_mini

    for name in NAMES if args.name == "all" else (args.name,):
        if args.name == "all" and (args.out / name).exists():
            print(f"{args.out / name}: there already", file=sys.stderr)
        else:
            print(write_mini(name, args.out))
    return 0
