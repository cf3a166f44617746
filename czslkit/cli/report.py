"""``czslkit report``: write one HTML page of stored results."""

from __future__ import annotations

import argparse

from ..files import write_text
from .arguments import Commands, expanded_path, new_file
from .table_output import add_published, add_result_selection, selected_table


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "report",
        help="write one HTML page of stored results",
        description="Write the comparison table of the results in a folder and the details of the results to one HTML "
        "page.",
        epilog="example: czslkit report runs --out report.html",
    )
    add_result_selection(parser)
    add_published(parser)
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=expanded_path,
        help="folder with one subfolder for each dataset, for the test images on the page (default: where they were "
        "when they were measured, else $CZSLKIT_DATA if it is set, else ./data)",
    )
    parser.add_argument("--out", metavar="FILE", type=new_file, help="HTML file to write (default: RUNS/report.html)")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, print its path and return the exit status."""
    from ..report.page_figures import page_figures

    table = selected_table(args)
    page = table.to_html(args.data, page_figures(table))
    out = args.out or args.runs / "report.html"
    write_text(out, page)
    print(out)
    return 0
