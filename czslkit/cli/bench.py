"""``czslkit bench``: train and evaluate methods on datasets, and print the comparison table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ConfigError
from ..files import write_text
from ..sizes import MEMORY, format_bytes
from .arguments import Commands, add_data_folder, add_device, whole_numbers
from .table_output import FILE_SUFFIXES, add_table_format, print_table


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "bench",
        help="train and evaluate methods on datasets, and print the comparison table",
        description="Train and evaluate every method on every dataset, and print the comparison table. Every finished "
        "cell (one method, dataset, seed and world) is stored; the same command later runs only what is missing.",
    )
    _add_grid(parser.add_argument_group("what to run"))
    _add_settings(parser.add_argument_group("settings"))
    _add_machine(parser.add_argument_group("machine"))
    _add_results(parser.add_argument_group("results"))
    parser.set_defaults(command=run)


def _add_grid(group: argparse._ArgumentGroup) -> None:
    """Add the options that say which methods run where."""
    group.add_argument(
        "--methods",
        metavar="NAME,...",
        help="methods to compare, as czslkit list shows them (default: the methods of --checkpoint)",
    )
    group.add_argument(
        "--datasets",
        default="demo",
        metavar="NAME,...",
        help="datasets to run on: demo, mit-states, ut-zappos, cgqa, any other name that czslkit data status shows, or "
        "all for the three published ones (default: demo)",
    )
    add_data_folder(group)
    group.add_argument(
        "--worlds",
        default="closed,open",
        metavar="NAME,...",
        help="worlds to evaluate in: closed, where the candidates are the dataset's own pairs, and open, where they "
        "are all combinations of its attributes and objects (default: closed,open)",
    )
    group.add_argument(
        "--seeds",
        default="0",
        metavar="N,...",
        type=whole_numbers,
        help="random seeds, whole numbers; every method is trained once for each (default: 0)",
    )
    group.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="folders of trained methods, which are evaluated without training: RUNS/.../training, or a folder that "
        "czslkit convert wrote (default: none)",
    )
    group.add_argument(
        "--plugins",
        nargs="+",
        default=[],
        metavar="MODULE|FILE.py",
        help="Python modules or files to import first, which register methods, components or datasets (default: none)",
    )


def _add_settings(group: argparse._ArgumentGroup) -> None:
    """Add the options that say how methods are trained and evaluated."""
    group.add_argument(
        "--preset",
        choices=("demo", "paper"),
        help="recipes to start from: demo, or paper, which also shows the published numbers beside the results "
        "(default: demo on the demo dataset, the methods' own defaults on others)",
    )
    group.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that replace those of the recipe, for all methods or for one: backbone=demo, train.epochs=3, "
        "msci.low_layers=2 (default: none)",
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    """Add the options that say where and with what the benchmark runs; no number depends on them."""
    add_device(group)
    group.add_argument(
        "--workers",
        default=0,
        type=int,
        metavar="N",
        help="processes that read images; 0 reads in the main process (default: 0)",
    )
    group.add_argument(
        "--cache",
        metavar="DIR|off",
        help="folder that keeps features of frozen image encoders for later runs, or off to keep none (default: "
        "RUNS/cache)",
    )
    group.add_argument(
        "--cache-images",
        action="store_true",
        help="keep decoded images in the cache, too, about 150 KB each at 224 pixels (default: do not keep them)",
    )
    group.add_argument(
        "--memory",
        default=format_bytes(MEMORY),
        metavar="SIZE",
        help="memory for the tensors of an evaluation beside the weights of the method, such as 512MiB or 8GB; with "
        f"less memory, fewer images and pairs are scored at a time (default: {format_bytes(MEMORY)})",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    """Add the options that say which results are kept, and what is printed."""
    group.add_argument(
        "--runs",
        default="runs",
        metavar="DIR",
        help="folder to which results are written and in which finished ones are looked up (default: runs)",
    )
    group.add_argument(
        "--keep-stale",
        action="store_true",
        help="accept finished results although something that they depend on has changed; the table names them "
        "(default: run them again)",
    )
    group.add_argument(
        "--estimate",
        action="store_true",
        help="print how much time and memory every cell would take, and run none (default: run them)",
    )
    add_table_format(group)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, print its table and write it to the folder of results in every format.

    Returns the exit status: 1 if a cell has no numbers.
    """
    from ..registry import load_unpackaged
    from ..runner.bench import bench
    from ..runner.settings import parse_settings

    if not (args.methods or args.checkpoint):
        raise ConfigError(["nothing to run: name --methods or a --checkpoint"])
    for plugin in args.plugins:
        load_unpackaged(plugin)
    result = bench(
        args.methods,
        args.datasets,
        args.worlds,
        args.seeds,
        data=args.data,
        runs=args.runs,
        settings=parse_settings(args.set),
        preset=args.preset,
        checkpoints=args.checkpoint,
        device=args.device,
        workers=args.workers,
        cache=args.cache,
        cache_images=args.cache_images,
        memory=args.memory,
        keep_stale=args.keep_stale,
        estimate=args.estimate,
    )
    if not args.estimate:
        table = result.table()
        print_table(table, args.format)
        for kind, suffix in FILE_SUFFIXES.items():
            write_text(Path(args.runs) / f"table.{suffix}", table.render(kind))
        print(f"also written to {args.runs}/table.{{md,csv,tex,json}}", file=sys.stderr)
    return 1 if result.failed else 0
