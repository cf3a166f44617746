"""``czslkit runs``: list what a folder of results holds, and remove results and files that nothing needs."""

from __future__ import annotations

import argparse
from typing import Any

from ..report.escaping import printable
from ..sizes import format_bytes, format_duration
from ..stored_runs import Cleaning, list_runs, prune_runs, remove_runs
from .arguments import Commands, expanded_path, names, seeds


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "runs",
        help="list, remove and prune stored results",
        description="List the results and trainings in a folder of results, remove some of them, or remove what "
        "nothing needs. Only files that czslkit wrote are removed, none outside of the folder, and no cell that a "
        "process runs.",
        epilog="example: czslkit runs runs remove --failed --dry-run",
    )
    parser.add_argument("runs", metavar="RUNS", type=expanded_path, help="folder of results: --runs of czslkit bench")
    actions = parser.add_subparsers(required=True, metavar="list|remove|prune")
    found = actions.add_parser(
        "list",
        help="print every result and training with its size and age",
        description="Print every result and training in the folder with its status, size and age.",
    )
    found.set_defaults(command=_list)
    _add_remove(actions)
    prune = actions.add_parser(
        "prune",
        help="remove what nothing needs",
        description="Remove stale results and trainings, trainings that no result refers to and that no czslkit bench "
        "asked for, and unfinished files of killed processes.",
    )
    prune.add_argument(
        "--cache", action="store_true", help="also remove cached features and images (default: keep them)"
    )
    _add_dry_run(prune)
    prune.set_defaults(command=_prune)


def _add_remove(actions: Commands) -> None:
    """Add ``remove`` with the options of its selection."""
    remove = actions.add_parser(
        "remove",
        help="remove the results that a selection names",
        description="Remove the results that every given option names, and the trainings of cells of which no result "
        "is left. With --failed, trainings stay, since the next run of their cells goes on with them.",
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    for what in ("methods", "datasets", "worlds"):
        help = f"remove only results of these {what}, with spaces or commas between them (default: of all {what})"
        remove.add_argument(f"--{what}", **several, metavar="NAME", help=help)
    remove.add_argument(
        "--seeds",
        **several,
        metavar="N|N-M",
        type=seeds,
        help="remove only results of these seeds, whole numbers or ranges such as 0-2 (default: of all seeds)",
    )
    remove.add_argument(
        "--config",
        **several,
        metavar="ID",
        help="remove only results of these configurations, which czslkit runs RUNS list prints (default: of all "
        "configurations)",
    )
    remove.add_argument("--failed", action="store_true", help="remove only failed cells (default: also finished cells)")
    _add_dry_run(remove)
    remove.set_defaults(command=_remove)


def _add_dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be removed, and remove nothing (default: remove it)"
    )


def _list(args: argparse.Namespace) -> int:
    """Print a line for each result and training, and return the exit status."""
    from tabulate import tabulate

    items = list_runs(args.runs)
    head = ("dataset", "method", "seed", "config", "what", "status", "size", "age", "note")
    rows = [
        [
            *map(printable, (i.dataset, i.method, str(i.seed), i.config_id, i.what, i.status)),
            *(format_bytes(i.size), format_duration(i.age), printable(note)),
        ]
        for i in items
        for note in [f"kept although it is stale: {i.stale}" if i.stale else ""]
    ]
    if rows:
        print(tabulate(rows, headers=head, tablefmt="plain", disable_numparse=True))
    print(f"{len(items)} results and trainings, {format_bytes(sum(item.size for item in items))}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    """Remove the selected results and return the exit status."""
    found = remove_runs(
        args.runs,
        methods=names(args.methods),
        datasets=names(args.datasets),
        worlds=names(args.worlds),
        seeds=[seed for some in args.seeds for seed in some],
        config_ids=names(args.config),
        failed=args.failed,
        dry_run=args.dry_run,
    )
    return _print(found, args.dry_run)


def _prune(args: argparse.Namespace) -> int:
    """Remove what nothing needs and return the exit status."""
    return _print(prune_runs(args.runs, cache=args.cache, dry_run=args.dry_run), args.dry_run)


def _print(found: Cleaning, dry_run: bool) -> int:
    """Print what was removed and what was kept; return the exit status."""
    for line in found.removed:
        print(f"{'would remove' if dry_run else 'removed'}: {printable(line)}")
    for line in found.kept:
        print(f"kept: {printable(line)}")
    print(f"{len(found.removed)} {'to remove' if dry_run else 'removed'}, {format_bytes(found.size)}")
    return 0
