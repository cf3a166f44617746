"""``czslkit plot``: draw a figure of stored results for a paper."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, CzslkitError
from ..metrics.names import METRICS, WORLDS
from .arguments import Commands, new_file, positive_number
from .table_output import add_result_selection, selected_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..report.table import Table

FIGURES = ("curve", "training", "attributes", "objects", "confusion", "bars")
_OPTIONS = {"metric": ("training", "bars"), "most": ("attributes", "objects", "confusion")}  # not of all figures


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "plot",
        help="draw a figure of stored results for a paper",
        description="Draw the numbers of the comparison table as a figure that fits a two-column paper. Cells that "
        "failed or were not run are named in the figure.",
    )
    add_result_selection(parser)
    parser.add_argument(
        "--what",
        choices=FIGURES,
        required=True,
        help="figure to draw, required. curve: accuracy on seen pairs over accuracy on unseen pairs, with the point of "
        "the best H; training: the loss and the validation metric of each epoch; attributes, objects: accuracy of "
        "each, with its number of images; confusion: which attributes the method with the highest AUC takes for which; "
        "bars: a metric with its 95%% interval on each dataset",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=new_file,
        help="file to write, whose name ends in .pdf, .svg or .png (default: the name of the figure in RUNS, such as "
        "RUNS/curve.pdf)",
    )
    parser.add_argument(
        "--world", choices=WORLDS, help="world to draw (default: closed, if RUNS has results in the closed world)"
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help=f"for bars: {', '.join(METRICS)}; for trainings: a number of the epochs, such as loss or val_auc "
        "(default: AUC for bars, the loss and the validation metric for trainings)",
    )
    parser.add_argument(
        "--most",
        type=positive_number,
        metavar="N",
        help="largest number of attributes or objects to draw (default: 30, and 12 for confusion)",
    )
    parser.add_argument(
        "--wide",
        action="store_true",
        help="make the figure as wide as the text, 6.9 inches (default: as wide as a column, 3.3 inches)",
    )
    parser.set_defaults(command=run, published=False)


def run(args: argparse.Namespace) -> int:
    """Write the figure, print its path and return the exit status.

    Raises:
        ConfigError: an option is of another figure, or names something that the results do not have.
        CzslkitError: there is no number to draw; the figure is written and says why.
    """
    from ..plot import checked_file_type, save

    if wrong := [name for name, known in _OPTIONS.items() if getattr(args, name) and args.what not in known]:
        raise ConfigError([f"--{name} is for --what {' and '.join(_OPTIONS[name])}, not {args.what}" for name in wrong])
    if args.out:
        checked_file_type(args.out)
    table = selected_table(args)
    panels = _drawn(table, args)
    out = save(panels[0], args.out or args.runs / f"{args.what}.pdf")
    if not any(panel.has_data() for panel in panels):
        reasons = " ".join(panels[0].get_xlabel().split("\n"))
        raise CzslkitError(f"there is nothing to draw in {out}: {reasons}")
    print(out)
    return 0


def _drawn(table: Table, args: argparse.Namespace) -> list[Axes]:
    """Return the panels of the figure: one for each dataset, and of trainings one for each metric."""
    from .. import plot

    draw = getattr(plot, args.what)
    options: dict[str, Any] = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name)}
    datasets = list(dict.fromkeys(dataset for dataset, _ in table.arrangement.columns))
    panels = (
        [{"dataset": dataset, **options} for dataset in datasets] if args.what in ("curve", "training") else [options]
    )
    if args.what == "training" and not args.metric:
        panels = [{**panel, **metric} for metric in ({"metric": "loss"}, {}) for panel in panels]
    if len(panels) == 1:
        return [draw(table, world=args.world, wide=args.wide, **panels[0])]
    axes = plot.panels(len(panels), wide=args.wide)
    for ax, panel in zip(axes, panels, strict=True):
        draw(table, world=args.world, ax=ax, **panel)
    plot.add_legend(axes)
    return axes
