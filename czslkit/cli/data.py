"""``czslkit data ...``: what is done with datasets before anything runs on them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ConfigError

_DATA = "folder of the datasets (default: $CZSLKIT_DATA, else ./data)"


def add_data(parser: argparse.ArgumentParser) -> None:
    """Give the ``data`` command its commands."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_download(commands.add_parser("download", help="get published datasets, and go on where that stopped"))

    status = commands.add_parser("status", help="which datasets are where, and what is on its way")
    status.add_argument("--data", metavar="DIR", help=_DATA)
    status.set_defaults(command=_status)

    mini = commands.add_parser("mini", help="write a small replica of a dataset, in its layout")
    mini.add_argument("name", metavar="NAME|all")
    mini.add_argument("--out", metavar="DIR", required=True, type=Path)
    mini.set_defaults(command=_mini)


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="mit-states, ut-zappos, cgqa; or all three")
    parser.add_argument("--data", metavar="DIR", help=_DATA)
    parser.add_argument("--mirror", metavar="URL", help="look for every archive below URL first")
    parser.add_argument("--glove", action="store_true", help="the word vectors of published feasibilities, too")
    parser.add_argument("--keep", action="store_true", help="leave the archives in DIR/.downloads")
    parser.set_defaults(command=_download)


def _download(args: argparse.Namespace) -> int:
    from ..data.download import download

    if not (args.names or args.glove):
        raise ConfigError(["nothing to download: name a dataset, all, or --glove"])
    for path in download(args.names, args.data, mirror=args.mirror, glove=args.glove, keep=args.keep):
        print(path)
    return 0


def _status(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from ..data.inventory import holdings, room, unfinished
    from ..data.transfer import readable

    held = holdings(args.data)
    rows = [(each.name, each.state, each.images, readable(each.size), each.folder) for each in held]
    print(tabulate(rows, headers=("dataset", "state", "images", "size", "folder"), tablefmt="plain"))
    for line in [*(each.fault for each in held if each.fault), *unfinished(args.data), room(args.data)]:
        print(line)
    return 0


def _mini(args: argparse.Namespace) -> int:
    from ..data.mini import NAMES, write_mini

    for name in NAMES if args.name == "all" else (args.name,):
        if args.name == "all" and (args.out / name).exists():
            print(f"{args.out / name}: there already", file=sys.stderr)
        else:
            print(write_mini(name, args.out))
    return 0
