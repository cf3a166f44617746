"""``czslkit list``: print every registered name without importing torch, or describe one name."""

from __future__ import annotations

import argparse
import sys

from .arguments import Commands, add_data_folder, add_plugins, load_given_plugins
from .registered_names import imported_datasets, registered_names


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "list",
        help="list methods, components, datasets and loggers, or the settings of one",
        description="List every registered method, backbone, aggregator, interaction, head, dataset and logger, with "
        "the distribution that contains it, and the datasets in the folder of --data. With a NAME, print what it is: "
        "the settings of a method with their types, ranges, defaults and the recipes that set them, the arguments of a "
        "component, or the folder and the counts of a dataset. Plugins that cannot be imported are listed on standard "
        "error.",
        epilog="example: czslkit list msci",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="method, component or dataset to describe, or train or eval for the settings of every training or "
        "evaluation (default: list all names)",
    )
    add_data_folder(parser)
    add_plugins(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print every name, or what one name is, and failed plugins to standard error; return the exit status."""
    if args.name is not None:
        from .name_details import describe

        load_given_plugins(args)
        print(describe(args.name, args.data))
        return 0
    from tabulate import tabulate

    names, problems = registered_names(args.plugins)
    names += imported_datasets(args.data, names)
    rows = [(name.kind, name.name, name.dist, name.summary) for name in names]
    print(tabulate(rows, headers=("kind", "name", "from", "what it is"), tablefmt="plain", disable_numparse=True))
    for line in problems:
        print(line, file=sys.stderr)
    return 0
