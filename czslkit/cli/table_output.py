"""Options and output of the commands that show a table of results: ``bench``, ``table`` and ``report``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, CzslkitError
from ..terminal import shows_styles
from .arguments import expanded_path

if TYPE_CHECKING:
    from ..report.table import Table

Result = dict[str, Any]  # as the store returns it
#: Formats of a table that are written to files, each with the suffix of its file.
FILE_SUFFIXES = {"markdown": "md", "csv": "csv", "latex": "tex", "json": "json"}


def add_table_format(parser: argparse._ActionsContainer) -> None:
    """Add ``--format``, the format of the printed table."""
    parser.add_argument(
        "--format",
        choices=("text", *FILE_SUFFIXES),
        default="text",
        help="format of the table on standard output (default: text)",
    )


def add_result_selection(parser: argparse.ArgumentParser) -> None:
    """Add the folder of results and the options that select results from it."""
    parser.add_argument("runs", metavar="RUNS", type=expanded_path, help="folder of results: --runs of czslkit bench")
    parser.add_argument(
        "--methods", metavar="NAME,...", help="show only the results of these methods (default: all methods in RUNS)"
    )
    parser.add_argument(
        "--datasets", metavar="NAME,...", help="show only the results on these datasets (default: all datasets in RUNS)"
    )
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="also show results of different protocols or different data in one table; the caption states the "
        "differences (default: stop with an error)",
    )


def selected_table(args: argparse.Namespace, *, intervals: bool = False) -> Table:
    """Return the table of the results that the options of ``add_result_selection`` select.

    Files in the folder that are not results are listed on standard error.

    Args:
        intervals: show the bootstrap interval of every number.

    Raises:
        CzslkitError: the folder does not exist or has no results, or the results differ in their protocol or data.
        ConfigError: the folder has no results of a selected method or dataset.
    """
    from ..report.table import Table
    from ..result_store import Store

    runs: Path = args.runs
    if not runs.is_dir():
        raise CzslkitError(f"no folder {runs}; expected the folder of results that czslkit bench wrote")
    store = Store(runs)
    results = store.results()
    results = _with_names(results, "method", args.methods, runs)
    results = _with_names(results, "dataset", args.datasets, runs)
    for problem in store.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if not results:
        raise CzslkitError(f"no results in {runs}; expected DATASET/METHOD/seedN-ID/WORLD.json from czslkit bench")
    return Table(results, mixed=args.mixed, attached=store.attached, intervals=intervals)


def _with_names(results: list[Result], key: str, names: str | None, runs: Path) -> list[Result]:
    """Return the results whose method or dataset is among ``names``.

    Args:
        key: ``"method"`` or ``"dataset"``.
        names: names with commas between them; None selects all results.
        runs: folder of the results, for the message.

    Raises:
        ConfigError: the folder has no results of one of the names.
    """
    if names is None:
        return results
    chosen = [name.strip() for name in names.split(",")]
    known = sorted({result["cell"][key] for result in results})
    if unknown := [name for name in chosen if name not in known]:
        raise ConfigError([f"{runs} has no results of {', '.join(unknown)}. Known: {', '.join(known)}."])
    return [result for result in results if result["cell"][key] in chosen]


def print_table(table: Table, kind: str) -> None:
    """Print a table to standard output.

    Args:
        kind: ``text``, which has bold type on a terminal and fits its width, or a format of ``FILE_SUFFIXES``.
    """
    if kind != "text":
        print(table.render(kind), end="")
        return
    from ..report.text_markdown_latex import WIDTH

    width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else None
    print(table.to_text(color=shows_styles(sys.stdout), width=width, encoding=sys.stdout.encoding), end="")
