"""``czslkit check``: check methods, backbones, datasets and components with small real runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..files import write_text
from .arguments import Commands, add_data_folder, path_or_name


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "check",
        help="check that a method, component, backbone or dataset keeps its contract",
        description="Check methods, components, backbones and datasets with small real runs: trainings of two epochs, "
        "a resume, evaluations in both worlds, a checkpoint and a benchmark. Every check is printed with its outcome; "
        "a failed check says what to change. The exit status is 0 if every check passed, 1 if some failed, 2 on wrong "
        "usage.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="registered names, as czslkit list prints them")
    parser.add_argument(
        "--kind",
        choices=("method", "backbone", "dataset", "aggregator", "interaction", "head"),
        help="kind of the names (default: the only kind that has the name)",
    )
    parser.add_argument(
        "--plugins",
        nargs="+",
        type=path_or_name,
        action="extend",
        default=[],
        metavar="MODULE|FILE.py",
        help="Python modules or files that register the names; they are imported first (default: none)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the methods, components or backbones, such as backbone=demo (default: none; methods use the "
        "demo backbone instead of large models)",
    )
    add_data_folder(parser)
    parser.add_argument(
        "--json",
        type=path_or_name,
        metavar="FILE|-",
        help="file to write the reports to as JSON; with -, they are printed instead of the lines (default: none)",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Run the checks of every name and print them; return the exit status, 1 if a check failed."""
    from ..registry import load_unpackaged
    from ..runner.settings import parse_settings
    from ..testing.conformance import kind_of, report_of

    for plugin in args.plugins:
        load_unpackaged(plugin)
    options = parse_settings(args.set)
    kinds = {name: args.kind or kind_of(name) for name in args.names}
    reports = []
    for name, kind in kinds.items():
        reports.append(report_of(name, kind, options, args.data))
        print(reports[-1].to_text(), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.json:
        text = json.dumps([report.to_json() for report in reports], indent=1)
        print(text) if args.json == "-" else write_text(Path(args.json), text)
    return 0 if all(report.passed for report in reports) else 1
