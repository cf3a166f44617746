"""``czslkit data ...``: what is done with datasets before anything runs on them."""

from __future__ import annotations

import argparse
import json
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

    _add_verify(commands.add_parser("verify", help="check a dataset against published counts and every file of it"))
    _add_import(commands.add_parser("import", help="make a dataset of your own pictures"))


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare a dataset with the published counts and its lists with the metadata and the files, look for copies "
        "across splits and for names that may be mistakes, and decode every image. Ends with 1 if there is an error, "
        "and with 0 if there are warnings and notes alone."
    )
    parser.add_argument("name", metavar="NAME|all", help="all: the three published datasets")
    parser.add_argument("--data", metavar="DIR", help=_DATA)
    parser.add_argument(
        "--mini", action="store_true", help="expect the counts of a replica that czslkit data mini wrote"
    )
    parser.add_argument("--workers", type=_positive, metavar="N", help="threads (default: a few more than processors)")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(command=_verify)


def _verify(args: argparse.Namespace) -> int:
    from ..data.check.verification import verify
    from ..data.make.mini import MINI_COUNTS, REPLICAS
    from ..data.published import BENCHMARKS

    done = []
    for name in (REPLICAS if args.mini else BENCHMARKS) if args.name == "all" else (args.name,):
        done.append(verify(name, args.data, expected=MINI_COUNTS if args.mini else None, workers=args.workers))
        if args.format == "text":
            print(done[-1].to_text(), flush=True)
    if args.format == "json":
        print(json.dumps([each.to_json() for each in done], indent=1))
    return 0 if all(each.passed for each in done) else 1


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a dataset of a folder with ATTR_OBJ/*.jpg, or of a table with the columns image, attr and obj; it is "
        "then used by its name. Without a column split, a seeded rule makes splits with seen and unseen pairs: "
        "docs/data.md."
    )
    parser.add_argument("source", metavar="FOLDER|CSV", type=Path)
    parser.add_argument("--name", required=True, metavar="NAME")
    parser.add_argument("--data", metavar="DIR", help=_DATA)
    parser.add_argument("--seed", default=0, type=int, metavar="N", help="of the splits (default: 0)")
    parser.add_argument(
        "--unseen", default=0.2, type=float, metavar="SHARE", help="of the pairs, not trained on (default: 0.2)"
    )
    parser.add_argument("--link", action="store_true", help="hard-link the images, do not copy them")
    parser.set_defaults(command=_import)


def _import(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from czslkit.data.listing import read_listing

    from ..data.check.counts import count_listing, named_counts
    from ..data.make.dataset_import import import_dataset

    folder = import_dataset(args.source, args.name, args.data, seed=args.seed, unseen=args.unseen, link=args.link)
    print(folder)
    print(tabulate(named_counts(count_listing(read_listing(folder))).items(), tablefmt="plain", intfmt=","))
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="mit-states, ut-zappos, cgqa; or all three")
    parser.add_argument("--data", metavar="DIR", help=_DATA)
    parser.add_argument("--mirror", metavar="URL", help="look for every archive below URL first")
    parser.add_argument("--glove", action="store_true", help="the word vectors of published feasibilities, too")
    parser.add_argument("--keep", action="store_true", help="leave the archives in DIR/.downloads")
    parser.set_defaults(command=_download)


def _download(args: argparse.Namespace) -> int:
    from ..data.download.download import download

    if not (args.names or args.glove):
        raise ConfigError(["nothing to download: name a dataset, all, or --glove"])
    for path in download(args.names, args.data, mirror=args.mirror, glove=args.glove, keep=args.keep):
        print(path)
    return 0


def _status(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from ..data.check.status import dataset_statuses, free_space, unfinished_downloads
    from ..sizes import format_bytes

    held = dataset_statuses(args.data)
    rows = [(each.name, each.state, each.images, format_bytes(each.size), each.folder) for each in held]
    print(tabulate(rows, headers=("dataset", "state", "images", "size", "folder"), tablefmt="plain"))
    problems = [each.problem for each in held if each.problem]
    for line in [*problems, *unfinished_downloads(args.data), free_space(args.data)]:
        print(line)
    return 0


def _mini(args: argparse.Namespace) -> int:
    from ..data.make.mini import REPLICAS, write_mini

    for name in REPLICAS if args.name == "all" else (args.name,):
        if args.name == "all" and (args.out / name).exists():
            print(f"{args.out / name}: there already", file=sys.stderr)
        else:
            print(write_mini(name, args.out))
    return 0
