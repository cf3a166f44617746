"""``czslkit data``: download, list, check, import and remove datasets, and write small replicas of published ones."""

from __future__ import annotations

import argparse
import json
import sys

from ..errors import ConfigError
from .arguments import (
    Commands,
    add_data_folder,
    add_plugins,
    expanded_path,
    load_given_plugins,
    positive_number,
)


def add_parser(commands: Commands) -> None:
    """Add the command ``data`` and its subcommands."""
    parser = commands.add_parser(
        "data",
        help="download, list, check, import and remove datasets, and write small replicas",
        description="Download, list, check, import and remove datasets, and write small replicas of published ones. "
        "'czslkit data COMMAND --help' explains one command.",
    )
    data_commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_download, _add_status, _add_mini, _add_verify, _add_import, _add_remove):
        add(data_commands)


def _add_download(commands: Commands) -> None:
    """Add the command that downloads datasets."""
    parser = commands.add_parser(
        "download",
        help="download published datasets, and resume a download that stopped",
        description="Download, check and unpack published datasets. After an interruption, the same command resumes "
        "the download. Complete datasets stay unchanged.",
        epilog="example: czslkit data download ut-zappos cgqa --data /data",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="datasets to download: mit-states, ut-zappos, cgqa, or all of these three; none with --glove alone",
    )
    add_data_folder(parser)
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="URL of a folder from which every archive is tried first, before the known sources (default: none)",
    )
    parser.add_argument(
        "--glove",
        action="store_true",
        help="also download GloVe, the word vectors of published feasibility scores (default: only datasets)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the archives in DIR/.downloads after they are unpacked (default: delete them)",
    )
    add_plugins(parser)
    parser.set_defaults(command=run_download)


def run_download(args: argparse.Namespace) -> int:
    """Download datasets, print the folder of each and return the exit status."""
    from ..data.download.download import download

    if not (args.names or args.glove):
        raise ConfigError(["nothing to download: name a dataset, all, or --glove"])
    load_given_plugins(args)
    for path in download(args.names, args.data, mirror=args.mirror, glove=args.glove, keep=args.keep):
        print(path)
    return 0


def _add_status(commands: Commands) -> None:
    """Add the command that lists datasets."""
    parser = commands.add_parser(
        "status",
        help="list complete, incomplete and absent datasets, and unfinished downloads",
        description="Print the state, number of images, size and folder of every dataset, the problems of incomplete "
        "datasets, what no source states about a dataset, unfinished downloads and the free disk space.",
    )
    add_data_folder(parser)
    add_plugins(parser)
    parser.set_defaults(command=run_status)


def run_status(args: argparse.Namespace) -> int:
    """Print the state of every dataset and return the exit status."""
    from tabulate import tabulate

    from ..data.check.status import dataset_statuses, free_space, unfinished_downloads
    from ..sizes import format_bytes

    load_given_plugins(args)
    statuses = dataset_statuses(args.data)
    rows = [(s.name, s.state, s.images, format_bytes(s.size), s.folder) for s in statuses]
    print(tabulate(rows, headers=("dataset", "state", "images", "size", "folder"), tablefmt="plain"))
    lines = [line for status in statuses for line in (status.problem, status.note) if line]
    for line in [*lines, *unfinished_downloads(args.data), free_space(args.data)]:
        print(line)
    return 0


def _add_mini(commands: Commands) -> None:
    """Add the command that writes replicas."""
    parser = commands.add_parser(
        "mini",
        help="write a small replica of a published dataset",
        description="Write a small replica of a published dataset: the files and splits have the same names, the words "
        "and pictures are generated.",
        epilog="example: czslkit data mini ut-zappos --out mini",
    )
    parser.add_argument(
        "name",
        metavar="NAME|all",
        help="dataset to write a replica of: mit-states, ut-zappos, cgqa, vaw-czsl, clothing16k, or all for the first "
        "three",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        required=True,
        type=expanded_path,
        help="parent folder of the new folder of the replica, required",
    )
    parser.set_defaults(command=run_mini)


def run_mini(args: argparse.Namespace) -> int:
    """Write replicas, print the folder of each and return the exit status."""
    from ..data.make.mini import write_mini
    from ..data.published import BENCHMARKS

    for name in BENCHMARKS if args.name == "all" else (args.name,):
        if args.name == "all" and (args.out / name).exists():
            print(f"{args.out / name} exists already and stays unchanged", file=sys.stderr)
        else:
            print(write_mini(name, args.out))
    return 0


def _add_verify(commands: Commands) -> None:
    """Add the command that checks datasets."""
    parser = commands.add_parser(
        "verify",
        help="compare a dataset with the published counts, and check all its files",
        description="Compare a dataset with the published counts, and its lists with the metadata and the files; look "
        "for copies across splits and for names that may be mistakes; decode every image. The exit status is 1 if "
        "there is an error, and 0 if there are only warnings and notes.",
        epilog="example: czslkit data verify ut-zappos --format json",
    )
    parser.add_argument(
        "name", metavar="NAME|all", help="dataset to check: its name, or all for mit-states, ut-zappos and cgqa"
    )
    add_data_folder(parser)
    parser.add_argument(
        "--mini",
        action="store_true",
        help="expect the counts of a replica that czslkit data mini wrote (default: the published counts)",
    )
    parser.add_argument(
        "--workers",
        type=positive_number,
        metavar="N",
        help="number of threads that read and decode images (default: processors + 4, at most 32)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="format of the output; json lists every file of every finding (default: text)",
    )
    add_plugins(parser)
    parser.set_defaults(command=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    """Print the findings about each dataset, and return the exit status, 1 if a dataset has an error."""
    from ..data.check.verification import verify
    from ..data.make.mini import MINI_COUNTS
    from ..data.published import BENCHMARKS

    load_given_plugins(args)
    expected = MINI_COUNTS if args.mini else None
    verifications = []
    for name in BENCHMARKS if args.name == "all" else (args.name,):
        verification = verify(name, args.data, expected=expected, workers=args.workers)
        verifications.append(verification)
        if args.format == "text":
            print(verification.to_text(), flush=True)
    if args.format == "json":
        print(json.dumps([verification.to_json() for verification in verifications], indent=1))
    return 0 if all(verification.passed for verification in verifications) else 1


def _add_import(commands: Commands) -> None:
    """Add the command that makes a dataset from pictures."""
    parser = commands.add_parser(
        "import",
        help="make a dataset from your own pictures",
        description="Make a dataset from a folder with ATTR_OBJ/*.jpg or ATTR/OBJ/*.jpg, or from a table with the "
        "columns image, attr and obj; other commands then accept its name. If the table has no column split, a seeded "
        "rule makes splits with seen and unseen pairs; docs/data.md describes the rule. Pictures are read upright and "
        "in 8 bits; those that cannot be read are set aside and printed.",
        epilog="example: czslkit data import photos --name mine --unseen 0.25",
    )
    parser.add_argument(
        "source",
        metavar="FOLDER|CSV",
        type=expanded_path,
        help="folder with one subfolder of pictures for each pair, or with a subfolder for each attribute that has one "
        "for each object; or table with one line for each picture",
    )
    parser.add_argument(
        "--name", required=True, metavar="NAME", help="name of the new dataset, required; other commands then accept it"
    )
    add_data_folder(parser)
    parser.add_argument(
        "--seed",
        default=0,
        type=int,
        metavar="N",
        help="random seed of the rule that makes splits, a whole number (default: 0)",
    )
    parser.add_argument(
        "--unseen",
        default=0.2,
        type=float,
        metavar="SHARE",
        help="share of the pairs that are left out of training, below 1; 0 trains on all pairs (default: 0.2)",
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="hard-link the pictures, which takes no space but works only on the same disk (default: copy them)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace a dataset of this name that czslkit data import or mini wrote (default: never replace one)",
    )
    parser.set_defaults(command=run_import)


def run_import(args: argparse.Namespace) -> int:
    """Make the dataset, print its folder and its counts, and return the exit status."""
    from tabulate import tabulate

    from ..data.check.counts import count_listing, named_counts
    from ..data.check.lint import lint
    from ..data.layout import SPLITS, import_record
    from ..data.listing import read_listing
    from ..data.make.dataset_import import import_dataset
    from ..data.make.labelled_pictures import doubtful_labels

    folder = import_dataset(
        args.source, args.name, args.data, seed=args.seed, unseen=args.unseen, link=args.link, force=args.force
    )
    listing = read_listing(folder)
    record = json.loads(import_record(folder).read_bytes())
    print(folder)
    print(f"read from {args.source} as {record['layout']}")
    print(tabulate(named_counts(count_listing(listing)).items(), tablefmt="plain", intfmt=","))
    for kind, count in record["pictures"].items():
        print(f"{count} pictures are {kind}", file=sys.stderr)
    for finding in lint(listing):
        if finding.severity == "warning":
            print(f"warning: {finding}", file=sys.stderr)
    for sentence in doubtful_labels({pair for split in SPLITS for pair in listing.pairs[split]}):
        print(f"warning: {sentence}", file=sys.stderr)
    return 0


def _add_remove(commands: Commands) -> None:
    """Add the command that removes datasets."""
    parser = commands.add_parser(
        "remove",
        help="delete a dataset that czslkit data import or mini wrote",
        description="Delete a dataset that czslkit data import or czslkit data mini wrote, without asking. Other "
        "datasets, and datasets to which files were added, are never deleted.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the dataset to delete")
    add_data_folder(parser)
    parser.set_defaults(command=run_remove)


def run_remove(args: argparse.Namespace) -> int:
    """Delete the dataset, print the folder that it was in, and return the exit status."""
    from ..data.removal import remove_dataset

    print(f"removed {remove_dataset(args.name, args.data)}")
    return 0
