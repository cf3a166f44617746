"""Options and output of the commands that show a table of results: ``bench``, ``table`` and ``report``."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, CzslkitError
from ..options import user_path
from ..terminal import shows_styles
from .arguments import expanded_path, names

if TYPE_CHECKING:
    from ..report.asked import Asked
    from ..report.table import Table

Result = dict[str, Any]  # as the store returns it
#: Formats of a table that are written to files, each with the suffix of its file.
FILE_SUFFIXES = {"markdown": "md", "csv": "csv", "latex": "tex", "bibtex": "bib", "json": "json"}


def add_table_format(parser: argparse._ActionsContainer) -> None:
    """Add ``--format``, the format of the printed table."""
    parser.add_argument(
        "--format",
        choices=("text", *FILE_SUFFIXES),
        default="text",
        help="format of the table on standard output; bibtex has the entries that the table in latex cites "
        "(default: text)",
    )


def add_result_selection(parser: argparse.ArgumentParser) -> None:
    """Add the folder of results and the options that select results from it."""
    help = "folder of results, which is --runs of czslkit bench"
    parser.add_argument("runs", nargs="?", metavar="RUNS", type=expanded_path, help=help)
    parser.add_argument(
        "--methods",
        nargs="+",
        action=_JoinNames,
        metavar="NAME",
        help="show only the results of these methods, in this order "
        "(default: all methods in RUNS, in the order in which czslkit bench was asked for them)",
    )
    parser.add_argument(
        "--datasets",
        nargs="+",
        action=_JoinNames,
        metavar="NAME",
        help="show only the results on these datasets, in this order (default: all datasets in RUNS, as for methods)",
    )
    parser.add_argument(
        "--failed",
        action="store_true",
        help="also show failed cells that the last czslkit bench in RUNS did not ask for, such as those of a mistyped "
        "command (default: only their number is printed)",
    )
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="also show results of different protocols or different data in one table; the caption states the "
        "differences (default: stop with an error)",
    )


def add_published(parser: argparse.ArgumentParser) -> None:
    """Add the option that shows the numbers of the literature, which figures do not draw."""
    parser.add_argument(
        "--published",
        action="store_true",
        help="also show the numbers that papers published for these datasets, marked as not measured here, with their "
        "sources; --datasets may then name a published dataset without results (default: only results)",
    )


class _JoinNames(argparse.Action):
    """Keep names with spaces or commas between them, also of several options, as one text with commas."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        earlier = getattr(namespace, self.dest) or ""
        setattr(namespace, self.dest, ",".join(names([earlier, *values])))


def _runs_folder(args: argparse.Namespace) -> Path:
    """Return the folder of results; it may be the last name, as in ``--methods csp RUNS``, which is then no name.

    Raises:
        ConfigError: there is no folder.
    """
    if args.runs is not None:
        return Path(args.runs)
    for option in ("methods", "datasets"):
        others, comma, last = (getattr(args, option) or "").rpartition(",")
        if comma and user_path(last).is_dir():
            setattr(args, option, others)
            return user_path(last)
    raise ConfigError(["RUNS is missing: give the folder of results, which is --runs of czslkit bench"])


def selected_table(args: argparse.Namespace, *, intervals: bool = False) -> Table:
    """Return the table of the results that the options of ``add_result_selection`` select.

    Files in the folder that are not results are listed on standard error, and so are changed files of results.

    Args:
        intervals: show the bootstrap interval of every number.

    Raises:
        CzslkitError: the folder does not exist or has no results, or the results differ in their protocol or data.
        ConfigError: the folder has no results of a selected method or dataset.
    """
    from ..report.asked import read_asked
    from ..report.escaping import printable
    from ..report.literature import published_rows
    from ..report.table import Table
    from ..result_store import Store

    args.runs = runs = _runs_folder(args)
    if not runs.is_dir():
        raise CzslkitError(f"no folder {runs}; expected the folder of results that czslkit bench wrote")
    store = Store(runs)
    asked = read_asked(store.root, lambda line: print(printable(line), file=sys.stderr))
    results = store.results()
    results = _with_names(results, "method", args.methods, runs)
    known = {row.dataset for row in published_rows()} if args.published else set()
    results = _with_names(results, "dataset", args.datasets, runs, known)
    for problem in store.problems:
        print(f"left out: {printable(problem)}", file=sys.stderr)
    for error in (error for result in results for error in store.changed_files(result).values()):
        print(f"not used: {printable(error)}", file=sys.stderr)
    if not results and not known.intersection(_names(args.datasets)):
        raise CzslkitError(f"no results in {runs}; expected DATASET/METHOD/seedN-ID/WORLD.json from czslkit bench")
    if not args.failed:
        results = _without_old_failures(results, asked)
    asked = replace(asked, methods=_names(args.methods), datasets=_names(args.datasets))
    return Table(
        results,
        mixed=args.mixed,
        attached=store.attached,
        folder=store.folder,
        intervals=intervals,
        asked=asked,
        published=args.published,
    )


def _without_old_failures(results: list[Result], asked: Asked) -> list[Result]:
    """Return results without the failed cells that the last command did not ask for; print their number.

    Raises:
        CzslkitError: no result is left.
    """
    shown = [result for result in results if not asked.is_left_out(result)]
    if number := len(results) - len(shown):
        line = (
            f"{number} failed cell{'s' * (number > 1)} that the last czslkit bench did not ask for; --failed shows them"
        )
        if not shown:
            raise CzslkitError(f"there are only {line}")
        print(f"left out: {line}, and czslkit runs RUNS remove --failed removes all failed cells", file=sys.stderr)
    return shown


def _names(names: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",")) if names else ()


def _with_names(
    results: list[Result], key: str, names: str | None, runs: Path, also: Collection[str] = ()
) -> list[Result]:
    """Return the results whose method or dataset is among ``names``.

    Args:
        key: ``"method"`` or ``"dataset"``.
        names: names with commas between them; None selects all results.
        runs: folder of the results, for the message.
        also: names that need no results.

    Raises:
        ConfigError: the folder has no results of one of the names.
    """
    if names is None:
        return results
    chosen = _names(names)
    known = sorted({result["cell"][key] for result in results}.union(also))
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
