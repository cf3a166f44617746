"""``czslkit bench``: train and evaluate methods on datasets, and print the comparison table."""

from __future__ import annotations

import argparse
import sys

from ..errors import ConfigError
from ..files import write_text
from ..sizes import MEMORY, format_bytes
from .arguments import (
    CHECKPOINT_FORMS,
    Commands,
    ReplaceDefault,
    add_data_folder,
    add_device,
    add_plugins,
    expanded_path,
    jobs,
    load_given_plugins,
    names,
    number_or_name,
    path_or_name,
    seeds,
)
from .table_output import FILE_SUFFIXES, add_table_format, print_table

_EXAMPLES = """examples:
  czslkit bench --methods msci,csp --datasets demo --seeds 0-2
  czslkit bench --methods all --datasets all --data DIR --preset paper
  czslkit bench --methods msci --set train.lr=1e-3,5e-3 msci.fusion=gated
  czslkit bench suite.yaml --seeds 0-4 --jobs auto"""


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "bench",
        help="train and evaluate methods on datasets, and print the comparison table",
        description="Train and evaluate every method on every dataset, and print the comparison table. The result of "
        "every cell (one method, dataset, seed and world) is stored; the same command later runs only missing cells.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "suite",
        nargs="?",
        metavar="SUITE.yaml",
        type=expanded_path,
        help="file that holds a comparison: methods with their own settings and labels, datasets, worlds, seeds and "
        "preset; czslkit init writes one. Options on the command line override it; --methods selects some of its "
        "methods (default: no file)",
    )
    _add_grid(parser.add_argument_group("what to run"))
    _add_settings(parser.add_argument_group("settings"))
    _add_machine(parser.add_argument_group("machine"))
    _add_cluster(parser.add_argument_group("cluster"))
    _add_results(parser.add_argument_group("results"))
    parser.set_defaults(command=run)


def _add_grid(group: argparse._ArgumentGroup) -> None:
    """Add the options that select methods, datasets, worlds and seeds."""
    group.add_argument(
        "--methods",
        nargs="+",
        action=ReplaceDefault,
        default=[],
        metavar="NAME",
        help="methods to compare, with spaces or commas between them, from the names that czslkit list prints; all "
        "for every one (default: the methods of SUITE.yaml or of --checkpoint)",
    )
    group.add_argument(
        "--datasets",
        nargs="+",
        action=ReplaceDefault,
        metavar="NAME",
        help="datasets to run on: demo, mit-states, ut-zappos, cgqa, another name that czslkit list prints, or "
        "all for mit-states, ut-zappos and cgqa (default: demo)",
    )
    add_data_folder(group)
    group.add_argument(
        "--worlds",
        nargs="+",
        action=ReplaceDefault,
        metavar="NAME",
        help="worlds to evaluate in: in the closed world, the candidates are the pairs of the dataset; in the open "
        "world, all combinations of its attributes and objects (default: closed open)",
    )
    group.add_argument(
        "--seeds",
        nargs="+",
        action=ReplaceDefault,
        metavar="N|N-M",
        type=seeds,
        help="random seeds, whole numbers or ranges such as 0-2, with spaces or commas between them; every method is "
        "trained once for each (default: 0)",
    )
    group.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        default=[],
        type=path_or_name,
        metavar="DIR",
        help=f"trained methods to evaluate without training, each of them {CHECKPOINT_FORMS} (default: none)",
    )
    add_plugins(group)


def _add_settings(group: argparse._ArgumentGroup) -> None:
    """Add the options that set how methods are trained and evaluated."""
    group.add_argument(
        "--preset",
        choices=("demo", "paper"),
        help="recipes to use: demo or paper; paper also prints the published numbers next to the results; a method "
        "without a recipe uses its defaults, and with paper the evaluation settings that most recipes of the dataset "
        "share (default: demo on the demo dataset, the defaults of each method on other datasets)",
    )
    group.add_argument(
        "--recipe",
        nargs="+",
        action="extend",
        default=[],
        metavar="METHOD=FILE.yaml",
        help="recipe files that replace the recipes of a method on every dataset; the published numbers in a file are "
        "shown on the dataset whose name its folder has (default: none)",
    )
    group.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that replace settings of the recipe, for all methods (backbone=demo, train.epochs=3) or for one "
        "method (msci.low_layers=2); each combination of several values (train.lr=1e-3,5e-3) is run (default: none)",
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    """Add the options of the device, processes, caches and memory; results do not depend on them."""
    add_device(group)
    group.add_argument(
        "--workers",
        default="auto",
        type=number_or_name,
        metavar="auto|N",
        help="processes that read images; 0 reads in the main process, auto takes one for each core but one, at most "
        "8, and none on two cores or fewer (default: auto)",
    )
    group.add_argument(
        "--jobs",
        default=1,
        type=jobs,
        metavar="N|auto",
        help="trainings that run at the same time, each in a process of its own, on a GPU of its own if there are "
        "several, and on its share of the processors; auto runs one on each GPU (default: 1)",
    )
    group.add_argument(
        "--cache",
        type=path_or_name,
        metavar="DIR|off",
        help="folder that stores features of frozen image encoders for later runs, or off to store none (default: "
        "RUNS/cache)",
    )
    group.add_argument(
        "--cache-images",
        action="store_true",
        help="also store decoded images in the cache, about 150 KB each at 224 pixels (default: do not store them)",
    )
    group.add_argument(
        "--memory",
        default=format_bytes(MEMORY),
        metavar="SIZE",
        help="memory for the tensors of an evaluation, and of --estimate, without the weights of the method, such as "
        f"512MiB or 8GB; with less memory, fewer images and pairs are used at a time (default: {format_bytes(MEMORY)})",
    )


def _add_cluster(group: argparse._ArgumentGroup) -> None:
    """Add the options of Slurm jobs."""
    group.add_argument(
        "--slurm",
        nargs="*",
        action="extend",
        metavar="KEY=VALUE",
        help="run each training as a job of a Slurm cluster, with parameters under the names of submitit, such as "
        "partition=gpu gpus_per_node=1 timeout_min=600 array_parallelism=8; the same command follows jobs that it has "
        "submitted before; distributed=true shares a training among the tasks of its job; see docs/cluster.md "
        "(default: run here)",
    )
    group.add_argument(
        "--detach",
        action="store_true",
        help="with --slurm, submit what is missing, print the table of what is there and return; the same command "
        "without --detach follows the jobs (default: follow them)",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    """Add the options of stored results and of the printed table."""
    group.add_argument(
        "--runs",
        default="runs",
        type=expanded_path,
        metavar="DIR",
        help="folder of results: new results are written to it, finished results are read from it (default: runs)",
    )
    group.add_argument(
        "--log",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="loggers that receive losses, validation metrics, learning rates, images per second and memory of every "
        "training while it runs, and the test metrics: csv, tensorboard, wandb, mlflow, or one of a plugin; files are "
        "written below RUNS/logs; no result depends on it (default: none)",
    )
    group.add_argument(
        "--keep-stale",
        action="store_true",
        help="use stored results even if their data, weights or code have changed since; the table lists them "
        "(default: run them again)",
    )
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="use a dataset of your own even if more than 1 %% of a split is left out, because the lists do not have "
        "its pairs, or more than 1 %% of its pictures could not be read when it was imported; the table names their "
        "number (default: stop with an error)",
    )
    group.add_argument(
        "--estimate",
        action="store_true",
        help="print the estimated time and memory of every cell without running any (default: run them)",
    )
    group.add_argument(
        "--verbose",
        action="store_true",
        help="print the traceback of every error; the traceback of a failed cell is also in the folder of its result "
        "(default: print the message of an error and the file of its traceback)",
    )
    add_table_format(group)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, write its table to the folder of results in every format, and print it.

    Returns the exit status, 1 if a cell failed or a file of the table cannot be written.
    """
    from ..runner.bench import bench
    from ..runner.recipes import parse_recipe_files
    from ..runner.settings import parse_settings
    from ..torchrun import process_rank

    _check_suite(args)
    load_given_plugins(args)
    result = bench(
        names(args.methods) or None,
        None if args.datasets is None else names(args.datasets),
        None if args.worlds is None else names(args.worlds),
        None if args.seeds is None else [seed for some in args.seeds for seed in some],
        suite=args.suite,
        data=args.data,
        runs=args.runs,
        settings=parse_settings(args.set),
        preset=args.preset,
        checkpoints=args.checkpoint,
        recipes=parse_recipe_files(args.recipe),
        device=args.device,
        workers=args.workers,
        cache=args.cache,
        jobs=args.jobs,
        cache_images=args.cache_images,
        memory=args.memory,
        keep_stale=args.keep_stale,
        allow_missing=args.allow_missing,
        estimate=args.estimate,
        slurm=None if args.slurm is None else parse_settings(args.slurm),
        detach=args.detach,
        verbose=args.verbose,
        loggers=names(args.log),
    )
    if process_rank():  # the first process of torchrun prints
        return 0
    written: list[str] = []
    failures: list[str] = []
    if not args.estimate and result.results:  # with --detach there may be none so far
        table = result.table()
        for kind, suffix in FILE_SUFFIXES.items():
            file = args.runs / f"table.{suffix}"
            try:
                write_text(file, table.render(kind))
            except OSError as error:
                failures.append(f"{file} cannot be written: {error.strerror or error}")
            else:
                written.append(suffix)
        print_table(table, args.format)
        if written:
            print(f"also written to {args.runs}/table.{{{','.join(written)}}}", file=sys.stderr)
        for failure in failures:
            print(f"czslkit: {failure}", file=sys.stderr)
    return 1 if result.failed or failures else 0


def _check_suite(args: argparse.Namespace) -> None:
    """Check that there is something to run, and that no option has taken the file of the suite as a name.

    Raises:
        ConfigError: there is nothing to run, or the file stands after an option that takes several names.
    """
    given = {"--methods": args.methods, "--datasets": args.datasets, "--worlds": args.worlds}
    for option, texts in given.items():
        for text in texts or ():
            if text.endswith((".yaml", ".yml")):
                raise ConfigError(
                    [f"{text} is given to {option}; write the suite first: czslkit bench {text} {option} ..."]
                )
    if not (names(args.methods) or args.checkpoint or args.suite):
        raise ConfigError(["nothing to run: give --methods, SUITE.yaml or --checkpoint"])
