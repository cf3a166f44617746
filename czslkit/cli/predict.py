"""``czslkit predict``: name the pairs of new photos with a trained method."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..csv_cells import csv_cell
from ..errors import ConfigError
from ..metrics.names import WORLDS
from .arguments import (
    Commands,
    add_checkpoint,
    add_device,
    add_plugins,
    load_given_plugins,
    new_file,
    positive_number,
)

if TYPE_CHECKING:
    from ..method import Method
    from ..prediction import Prediction

FORMATS = ("text", "csv", "json")
_COLUMNS = ("image", "rank", "attribute", "object", "score", "probability", "attribute_probability",
            "object_probability", "seen", "error")  # fmt: skip


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "predict",
        help="name the attribute and object of new photos with a trained method",
        description="Name the attribute-object pairs of photos with a trained method, and print for each photo the "
        "best pairs with their scores and the probabilities of pair, attribute and object. Photos are read upright and "
        "in 8 bits. A photo that cannot be read is named on standard error, the others are predicted, and the exit "
        "status is 1.",
    )
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTO|FOLDER|GLOB",
        help="image files, folders, which are searched with their subfolders, or patterns in quotation marks such as "
        "'photos/**/*.jpg'; upper and lower case of suffixes are the same",
    )
    add_checkpoint(parser)
    add_plugins(parser)
    _add_candidates(parser)
    _add_computation(parser)
    _add_output(parser)
    parser.set_defaults(command=run)


def _add_candidates(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose among pairs."""
    parser.add_argument(
        "--world",
        choices=WORLDS,
        default="closed",
        help="pairs to choose from: closed for the pairs of the dataset, open for every combination of an attribute "
        "and an object (default: closed)",
    )
    parser.add_argument(
        "--pairs",
        metavar='"ATTR OBJ,..."',
        help="choose only from these pairs, and from the pairs of these attributes and objects, with commas between "
        "them; write a + between words with spaces, as in 'wet+tin can'; clip and coop also take words that are not "
        "in the dataset (default: all pairs of the world)",
    )
    parser.add_argument(
        "--top", type=positive_number, default=5, metavar="N", help="number of pairs to print for a photo (default: 5)"
    )
    parser.add_argument(
        "--bias",
        type=_bias,
        metavar="auto|NUMBER",
        help="number to add to the scores of pairs without training images; auto takes the one with the best harmonic "
        "mean on the validation split, or 0 if the folder does not record it (default: auto)",
    )


def _add_computation(parser: argparse.ArgumentParser) -> None:
    """Add the options of the computation, which change no prediction, except by rounding."""
    parser.add_argument(
        "--batch-size",
        type=positive_number,
        default=64,
        metavar="N",
        help="number of photos that are read and scored at a time (default: 64)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that read photos; 0 reads them in the main process (default: one for each core but one, at "
        "most 8, and 0 on two cores or fewer)",
    )
    add_device(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options of the output."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="form of the output: text, csv with a row for each pair, or json (default: that of the suffix of --out, "
        "else text)",
    )
    parser.add_argument(
        "--out", metavar="FILE", type=new_file, help="file to write the output to (default: standard output)"
    )
    parser.add_argument(
        "--gallery",
        metavar="FILE.html",
        type=new_file,
        help="also write an HTML page with a thumbnail and the pairs of each photo (default: none)",
    )


def run(args: argparse.Namespace) -> int:
    """Predict the photos, print or write the result, and return the exit status: 1 if some cannot be read."""
    from .. import __version__
    from ..checkpoints.trained import load
    from ..data.photos import find_photos
    from ..files import write_text
    from ..gallery import gallery_page
    from ..predict import bias_of, predict_images
    from ..runner.machine import Machine
    from ..sizes import counted

    if args.workers is not None and args.workers < 0:
        raise ConfigError([f"--workers is {args.workers}, expected 0 or more"])
    photos = find_photos(args.photos)
    _check_outputs(args, photos)
    load_given_plugins(args)
    machine = Machine(args.device)
    method = load(args.checkpoint).to(machine.torch_device())
    bias, origin = bias_of(method, args.world, args.bias)
    print(f"czslkit: the bias of unseen pairs is {bias:g}, {origin}", file=sys.stderr)
    workers = machine.automatic_workers() if args.workers is None else args.workers
    predictions = predict_images(
        method,
        photos,
        args.pairs,
        args.top,
        world=args.world,
        bias=bias,
        batch_size=args.batch_size,
        workers=min(workers, len(photos) // args.batch_size),
        progress=True,
    )
    kind = args.format or next((f for f in FORMATS if args.out and args.out.suffix.lower() == f".{f}"), "text")
    about = {"czslkit": __version__, "checkpoint": str(args.checkpoint), "world": args.world, "bias": bias}
    output = {"text": _text, "csv": _csv, "json": lambda found: _json(found, method, about)}[kind](predictions)
    if args.out:
        write_text(args.out, output)
        print(args.out)
    else:
        sys.stdout.write(output)
    if args.gallery:
        sentence = (
            f"{counted(len(photos), 'photo')}, {_name(method)}, {args.world} world, bias {bias:g} for pairs without "
            "training images."
        )
        write_text(args.gallery, gallery_page(photos, predictions, sentence, progress=True))
        print(args.gallery, file=sys.stdout if args.out else sys.stderr)  # beside CSV or JSON it would be no part of it
    errors = [found.error for found in predictions if found.error]
    for error in errors:
        print(f"czslkit: {error}", file=sys.stderr)
    return int(bool(errors))


def _check_outputs(args: argparse.Namespace, photos: Sequence[Path]) -> None:
    """Check that no output takes the place of a photo or of the other output.

    Raises:
        ConfigError: one does.
    """
    outputs = [file.resolve() for file in (args.out, args.gallery) if file]
    if taken := {photo.resolve() for photo in photos}.intersection(outputs):
        raise ConfigError([f"the output {min(taken)} would replace a photo, expected another file"])
    if len(set(outputs)) < len(outputs):
        raise ConfigError([f"--out and --gallery are both {args.out}, expected two files"])


def _bias(text: str) -> float | None:
    """Return the number in a text, None for ``auto``.

    Raises:
        argparse.ArgumentTypeError: the text is neither.
    """
    try:
        number = None if text == "auto" else float(text)
    except ValueError:
        number = float("nan")
    if number is not None and not abs(number) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a finite number")
    return number


def _name(method: Method) -> str:
    """Return the name of a method in papers, or that of its class."""
    return method.display_name or type(method).__name__


def _text(predictions: Sequence[Prediction]) -> str:
    """Return the predictions of each photo as a table below its name."""
    from tabulate import tabulate

    from ..report.escaping import printable

    lines = []
    for found in predictions:
        rows = [
            {
                "pair": printable(f"{pair.attr} {pair.obj}") + ("" if pair.seen else " *"),
                "score": pair.score,
                "probability": f"{pair.probability:.1%}",
                "attribute": f"{pair.attr_probability:.1%}",
                "object": f"{pair.obj_probability:.1%}",
            }
            for pair in found.pairs
        ]
        align = ("left", "right", "right", "right", "right")
        table = tabulate(rows, headers="keys", tablefmt="plain", floatfmt=".3f", colalign=align)
        lines += [f"{printable(found.image)}:", table if rows else "cannot be read", ""]
    unseen = any(not pair.seen for found in predictions for pair in found.pairs)
    return "\n".join([*lines[:-1], *(["", "* without a training image"] if unseen else [])]) + "\n"


def _csv(predictions: Sequence[Prediction]) -> str:
    """Return the predictions as CSV, with a row for each pair, and a row for each photo that cannot be read."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for found in predictions:
        for rank, pair in enumerate(found.pairs, 1):
            numbers = (pair.score, pair.probability, pair.attr_probability, pair.obj_probability)
            cells = (found.image, rank, pair.attr, pair.obj, *(f"{number:.6g}" for number in numbers), pair.seen, None)
            writer.writerow(map(csv_cell, cells))
        if found.error:
            writer.writerow(map(csv_cell, (found.image, *[None] * (len(_COLUMNS) - 2), found.error)))
    return out.getvalue().encode(errors="backslashreplace").decode()


def _json(predictions: Sequence[Prediction], method: Method, about: dict[str, Any]) -> str:
    """Return the predictions as JSON, after the settings in ``about``."""
    content = [
        {
            "image": found.image,
            "pairs": [vars(pair) for pair in found.pairs],
            **({"error": found.error} if found.error else {}),
        }
        for found in predictions
    ]
    return json.dumps({**about, "method": _name(method), "predictions": content}, indent=1) + "\n"
