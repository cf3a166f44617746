"""``czslkit check``: check methods, backbones, datasets and components with small real runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import write_text
from .arguments import Commands, add_data_folder, add_plugins, load_given_plugins, new_file_or_output


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "check",
        help="check that a method, component, backbone or dataset keeps its contract",
        description="Check methods, components, backbones and datasets with small real runs: trainings of some epochs, "
        "a resume, evaluations in both worlds, a checkpoint and a benchmark. Every check is printed with its outcome; "
        "a failed check says what to change. Every image of a dataset is checked by czslkit data verify. The exit "
        "status is 0 if every check passed, 1 if some failed, 2 on wrong usage.",
        epilog="example: czslkit check mine --plugins mine.py",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="registered names, as czslkit list prints them")
    parser.add_argument(
        "--kind",
        choices=("method", "backbone", "dataset", "aggregator", "interaction", "head"),
        help="kind of the names, needed for a name of several kinds (default: the only kind that has the name)",
    )
    add_plugins(parser)
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the methods, components or backbones, for all names (backbone=demo) or for one name "
        "(csp.word_dropout=0) (default: none; methods use the demo backbone instead of large models)",
    )
    add_data_folder(parser)
    parser.add_argument(
        "--json",
        type=new_file_or_output,
        metavar="FILE|-",
        help="file to write the reports to as JSON; with -, they are printed instead of the lines (default: none)",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Run the checks of every name and print them; return the exit status, 1 if a check failed."""
    from ..data.dataset_folders import find_folder
    from ..runner.grid import Grid
    from ..runner.settings import parse_settings
    from ..testing.conformance import kind_of, option_problems, report_of

    load_given_plugins(args)
    settings = parse_settings(args.set)
    if several := [key for key, value in settings.items() if isinstance(value, Grid)]:
        raise ConfigError(f"{key} has several values, but a check is of one configuration" for key in several)
    kinds = {name: args.kind or kind_of(name) for name in args.names}
    options = {name: _options_of(name, args.names, settings) for name in kinds}
    if problems := [line for name, kind in kinds.items() for line in option_problems(name, kind, options[name])]:
        raise ConfigError(problems)
    reports = []
    for name, kind in kinds.items():
        reports.append(report_of(name, kind, options[name], args.data))
        text = reports[-1].to_text()
        if kind == "dataset" and (folder := find_folder(name, args.data)):
            text += f"\n'czslkit data verify {name} --data {folder.parent}' checks every image of it"
        print(text, file=sys.stderr if args.json == Path("-") else sys.stdout)
    if args.json:
        text = json.dumps([report.to_json() for report in reports], indent=1)
        print(text) if args.json == Path("-") else write_text(args.json, text)
    return 0 if all(report.passed for report in reports) else 1


def _options_of(name: str, names: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a name: those for all names, and in their place those for the name alone.

    >>> _options_of("csp", ["csp", "coop"], {"backbone": "demo", "csp.word_dropout": 0, "coop.context": "a"})
    {'backbone': 'demo', 'word_dropout': 0}
    """
    shared = {key: value for key, value in settings.items() if not any(key.startswith(f"{one}.") for one in names)}
    own = {key.removeprefix(f"{name}."): value for key, value in settings.items() if key.startswith(f"{name}.")}
    return {**shared, **own}
