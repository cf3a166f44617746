"""The command line. Exit status: 0 all well, 1 something failed, 2 wrong usage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .errors import ConfigError, CzslkitError, UnknownNameError
from .store import write_text

if TYPE_CHECKING:
    from .report import Table

#: Formats that a table is written in, with the suffix of each file.
FILES = {"markdown": "md", "csv": "csv", "latex": "tex", "json": "json"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except (ConfigError, UnknownNameError) as error:
        print(f"czslkit: {error}", file=sys.stderr)
        return 2
    except CzslkitError as error:
        print(f"czslkit: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as with | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"czslkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("czslkit: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="czslkit", description="Compositional zero-shot learning.")
    parser.add_argument("--version", action="version", version=f"czslkit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    bench = commands.add_parser("bench", help="train and evaluate methods on datasets, and compare them")
    bench.add_argument("--methods", required=True, metavar="NAME,...", help="see czslkit list")
    bench.add_argument(
        "--datasets", default="demo", metavar="NAME,...", help="demo, mit-states, ut-zappos, cgqa; or all three"
    )
    bench.add_argument("--worlds", default="closed,open", metavar="closed,open")
    bench.add_argument("--seeds", default="0", metavar="0,1,...", type=_numbers)
    bench.add_argument("--data", metavar="DIR", help="folder of the datasets (default: $CZSLKIT_DATA, else ./data)")
    bench.add_argument("--runs", default="runs", metavar="DIR", help="folder of the results (default: runs)")
    bench.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="backbone=demo, train.epochs=3, msci.low_layers=2",
    )
    bench.add_argument("--preset", choices=("demo", "paper"), help="recipes to start from")
    bench.add_argument("--plugins", nargs="+", default=[], metavar="MODULE|FILE.py", help="unpackaged code to load")
    bench.add_argument("--device", default="auto", metavar="auto|cpu|cuda|...")
    bench.add_argument("--workers", default=0, type=int, metavar="N", help="processes that read images (default: 0)")
    _add_format(bench)
    bench.set_defaults(command=_bench)

    names = commands.add_parser("list", help="methods and components, with who ships them")
    names.set_defaults(command=_list)

    table = commands.add_parser("table", help="the comparison table of finished runs")
    _add_selection(table)
    _add_format(table)
    table.set_defaults(command=_table)

    report = commands.add_parser("report", help="one HTML page of finished runs")
    _add_selection(report)
    report.add_argument("--out", metavar="FILE", type=Path, help="default: RUNS/report.html")
    report.set_defaults(command=_report)

    data = commands.add_parser("data", help="datasets").add_subparsers(required=True, metavar="COMMAND")
    mini = data.add_parser("mini", help="write a small replica of a dataset, in its layout")
    mini.add_argument("name", metavar="NAME|all")
    mini.add_argument("--out", metavar="DIR", required=True, type=Path)
    mini.set_defaults(command=_mini)
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUNS", type=Path)
    parser.add_argument("--methods", metavar="NAME,...", help="of these alone")
    parser.add_argument("--datasets", metavar="NAME,...", help="on these alone")
    parser.add_argument("--mixed", action="store_true", help="side by side even if not measured alike")


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=("text", *FILES), default="text", help="of the table printed (default: text)"
    )


def _bench(args: argparse.Namespace) -> int:
    from .benchmark import bench
    from .config import parse_settings
    from .registry import load_extra

    for plugin in args.plugins:
        load_extra(plugin)
    result = bench(
        args.methods,
        args.datasets,
        args.worlds,
        args.seeds,
        data=args.data,
        runs=args.runs,
        settings=parse_settings(args.set),
        preset=args.preset,
        device=args.device,
        workers=args.workers,
    )
    table = result.table()
    _print(table, args.format)
    for kind, suffix in FILES.items():
        write_text(Path(args.runs) / f"table.{suffix}", table.render(kind))
    print(f"also written to {args.runs}/table.{{md,csv,tex,json}}", file=sys.stderr)
    return 1 if result.failed else 0


def _list(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from .catalog import catalog

    entries, failures = catalog()
    rows = [(e.kind, e.name, e.dist, e.summary) for e in entries]
    print(tabulate(rows, headers=("kind", "name", "from", "what it is"), tablefmt="plain"))
    for line in failures:
        print(line, file=sys.stderr)
    return 0


def _table(args: argparse.Namespace) -> int:
    _print(_stored(args), args.format)
    return 0


def _report(args: argparse.Namespace) -> int:
    out = args.out or args.runs / "report.html"
    write_text(out, _stored(args).render("html"))
    print(out)
    return 0


def _mini(args: argparse.Namespace) -> int:
    from .data.mini import NAMES, write_mini

    for name in NAMES if args.name == "all" else (args.name,):
        if args.name == "all" and (args.out / name).exists():
            print(f"{args.out / name}: there already", file=sys.stderr)
        else:
            print(write_mini(name, args.out))
    return 0


def _stored(args: argparse.Namespace) -> Table:
    """The table of the results in a folder that were asked for; names files that are none."""
    from .report import Table
    from .store import Store

    runs: Path = args.runs
    if not runs.is_dir():
        raise CzslkitError(f"no folder {runs}; expected the folder of results that czslkit bench wrote")
    store = Store(runs)
    results = store.results()
    for key, asked in (("method", args.methods), ("dataset", args.datasets)):
        if asked is not None:
            there = sorted({result["cell"][key] for result in results})
            chosen = [name.strip() for name in asked.split(",")]
            if unknown := [name for name in chosen if name not in there]:
                raise ConfigError([f"{runs} has no results of {', '.join(unknown)}. Known: {', '.join(there)}."])
            results = [result for result in results if result["cell"][key] in chosen]
    for problem in store.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if not results:
        raise CzslkitError(f"no results in {runs}; expected DATASET/METHOD/seedN-ID/WORLD.json from czslkit bench")
    return Table(results, mixed=args.mixed)


def _print(table: Table, kind: str) -> None:
    print(table.to_text(color=sys.stdout.isatty()) if kind == "text" else table.render(kind), end="")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers with commas, such as 0,1,2") from None
