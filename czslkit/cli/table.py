"""``czslkit table``: print the comparison table of stored results."""

from __future__ import annotations

import argparse

from ..errors import ConfigError
from .arguments import Commands
from .table_output import add_published, add_result_selection, add_table_format, print_table, selected_table


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "table",
        help="print the comparison table of stored results",
        description="Print the comparison table of the results in a folder, without running anything.",
        epilog="example: czslkit table runs --methods csp,msci --format latex > table.tex",
    )
    add_result_selection(parser)
    add_published(parser)
    add_table_format(parser)
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="print the bootstrap interval of every number, too (default: only the numbers)",
    )
    parser.add_argument(
        "--wide",
        action="store_true",
        help="with --format latex, write table* in small type with more datasets side by side (default: write table)",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the table and return the exit status.

    Raises:
        ConfigError: the table is to be wide in another format than LaTeX.
    """
    if args.wide and args.format != "latex":
        raise ConfigError([f"--wide is for --format latex, the format here is {args.format}"])
    table = selected_table(args, intervals=args.intervals)
    if args.wide:
        print(table.to_latex(wide=True), end="")
    else:
        print_table(table, args.format)
    return 0
