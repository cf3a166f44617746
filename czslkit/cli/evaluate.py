"""``czslkit evaluate``: compute the metrics of scores that another program wrote."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..files import write_text
from .arguments import Commands, expanded_path, new_file

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation.score_file import Labels, ScoreFile
    from ..types import PairSpace

_FILE_OPTIONS = ("pairs", "seen", "labels", "candidates", "feasibility")  # files that a result depends on


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="compute the metrics of scores that your own code wrote",
        description="Compute the metrics of scores that your own code wrote: S, U, H and AUC of the original and the "
        "exact curve, and attribute and object accuracy. docs/metrics.md defines them. Each row of SCORES is an image, "
        "each column is a pair, and higher scores are better. Lists of pairs are text files with one 'attribute "
        "object' on each line.",
        epilog="example: czslkit evaluate scores.npz --pairs pairs.txt --seen train_pairs.txt --topk 3",
    )
    _add_inputs(parser)
    _add_metric_options(parser)
    _add_open_world(parser)
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "csv", "json"),
        default="text",
        help="format of the metrics on standard output (default: text)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE.json",
        type=new_file,
        help="JSON file to which all metrics are also written (default: no file)",
    )
    parser.set_defaults(command=run)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the file of scores and the files that describe its rows and columns."""
    parser.add_argument(
        "scores",
        metavar="SCORES",
        type=expanded_path,
        help=".npz or .safetensors file with floats scores [N, K] and integers attr [N] and obj [N], which are indices "
        "into the attributes and the objects of --pairs, each sorted by name; or .npy file with only the scores",
    )
    parser.add_argument(
        "--pairs",
        required=True,
        metavar="FILE",
        type=expanded_path,
        help="list of the K pairs, in the order of the columns, required",
    )
    parser.add_argument(
        "--seen",
        required=True,
        metavar="FILE",
        type=expanded_path,
        help="list of the pairs that the method was trained on, required",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=expanded_path,
        help="text file with the true 'attribute object' of one image on each line (default: attr and obj in SCORES)",
    )
    parser.add_argument(
        "--candidates",
        metavar="FILE",
        type=expanded_path,
        help="list of the pairs that may be predicted (default: all of --pairs)",
    )


def _add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that set how metrics are computed."""
    parser.add_argument(
        "--topk",
        default=1,
        type=int,
        metavar="K",
        help="count a prediction as correct if the true pair is among the K highest-scored pairs (default: 1)",
    )
    parser.add_argument(
        "--bins",
        choices=("original", "exact"),
        default="original",
        help="curve from which S, U and H are read: original (about 20 biases) or exact (every breakpoint) "
        "(default: original)",
    )


def _add_open_world(parser: argparse.ArgumentParser) -> None:
    """Add the options that exclude infeasible pairs."""
    parser.add_argument(
        "--feasibility",
        metavar="FILE",
        type=expanded_path,
        help="file with the feasibility scores of all attributes x objects, each sorted by name, or with word vectors "
        "to compute them from; needs --threshold (default: no pair is excluded)",
    )
    parser.add_argument(
        "--threshold",
        nargs="+",
        action="extend",
        type=float,
        metavar="T",
        help="lowest feasibility score of an unseen pair that may be predicted; the metrics are computed once for each "
        "threshold; needs --feasibility (default: none)",
    )
    parser.add_argument(
        "--infeasible",
        choices=("exclude", "original"),
        default="exclude",
        help="handling of unseen pairs below the threshold: exclude never predicts them, original sets their score to "
        "0 as the original program does (default: exclude)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the metrics, write them to ``--out`` and return the exit status."""
    from ..data.pair_lists import read_pairs
    from ..evaluation.score_file import open_scores
    from ..evaluation.score_file_summary import summarise
    from ..evaluation.score_labels import label_space, pair_mask

    if problems := _option_problems(args):
        raise ConfigError(problems)
    scores, pairs = open_scores(args.scores), read_pairs(args.pairs)
    space = label_space(pairs, read_pairs(args.seen))
    labels = _true_labels(args, scores, space)
    candidates = pair_mask(pairs, read_pairs(args.candidates), "candidate") if args.candidates else None
    summary = summarise(
        scores,
        space,
        labels,
        candidates,
        _feasibility_of_columns(args, space),
        args.threshold,
        topk=args.topk,
        bins=args.bins,
        infeasible=args.infeasible,
        files={name: str(file) for name in _FILE_OPTIONS if (file := getattr(args, name))},
    )
    if args.out:
        write_text(args.out, summary.to_json())
    print(summary.render(args.format), end="")
    return 0


def _option_problems(args: argparse.Namespace) -> list[str]:
    """Return a message for each mistake in the options that can be found without reading a file."""
    problems = []
    if args.topk < 1:
        problems.append(f"--topk is {args.topk}, expected 1 or more")
    if (args.feasibility is None) != (args.threshold is None):
        given, missing = ("feasibility", "threshold") if args.feasibility else ("threshold", "feasibility")
        problems.append(f"--{given} without --{missing}: give both or neither")
    if args.threshold and not all(map(math.isfinite, args.threshold)):
        problems.append(f"--threshold is {' '.join(map(str, args.threshold))}, expected finite numbers")
    if args.infeasible != "exclude" and args.threshold is None:
        problems.append(f"--infeasible {args.infeasible} without --threshold: there are no infeasible pairs")
    return problems


def _true_labels(args: argparse.Namespace, scores: ScoreFile, space: PairSpace) -> Labels:
    """Return the true attribute and object of each image, ``[N]`` each, from ``--labels`` or the file of scores.

    Raises:
        ConfigError: there are no labels, or the true pair of an image is not among the columns.
    """
    from ..evaluation.score_labels import checked_labels, read_labels

    if args.labels:
        return read_labels(args.labels, space)
    if scores.labels:
        return checked_labels(scores.labels, space)
    raise ConfigError(
        [
            f"{args.scores} has no labels: give --labels, a text file with 'attribute object' on each line, "
            "or store integers attr and obj with scores in one .npz or .safetensors file"
        ]
    )


def _feasibility_of_columns(args: argparse.Namespace, space: PairSpace) -> Tensor | None:
    """Return the feasibility score of each column ``[K]``, or None without ``--feasibility``."""
    if args.feasibility is None:
        return None
    from ..feasibility_files import read_feasibility  # takes seconds, since it imports the backbones

    return read_feasibility(args.feasibility, space)[space.flat()]
