"""``czslkit explain``: draw the parts of images that a trained method's texts attend to."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError
from ..files import write_bytes
from .arguments import (
    Commands,
    add_checkpoint,
    add_device,
    add_plugins,
    expanded_path,
    load_given_plugins,
    path_or_name,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..method import Method

_DEFAULT_TOP = 3  # pairs explained if neither --top nor --pairs is given


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "explain",
        help="draw the parts of images that a trained method's texts attend to",
        description="Draw the attention of texts to the patches of each image as one PNG, and print the scores of the "
        "pairs and the contribution of each attention stage. The command works for methods whose texts attend to the "
        "image, such as MSCI and Troika. Photos are read upright and in 8 bits; images of a dataset are read as in its "
        "trainings.",
        epilog="example: czslkit explain photo.jpg --checkpoint runs/demo/msci/seed0-1a2b3c4d --top 5",
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", type=expanded_path, help="image files to explain, or folders of images"
    )
    add_checkpoint(parser)
    add_plugins(parser)
    parser.add_argument(
        "--pairs",
        metavar='"ATTR OBJ,..."',
        help="pairs to explain, with commas between them; write a + between words with spaces, as in 'wet+tin can' "
        "(default: the pairs that the method ranks highest)",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help=f"number of highest-ranked pairs to show (default: {_DEFAULT_TOP}, or all of --pairs)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE|DIR",
        type=path_or_name,
        help="PNG file to write for one image, folder for several images (default: explain.png, or the folder "
        "explained)",
    )
    add_device(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Draw the explanation of every image, and print a line for each pair and the path of the drawing.

    Returns the exit status, 1 if some of several images cannot be read.
    """
    from ..checkpoints.trained import load
    from ..named_pairs import parse_pairs
    from ..runner.machine import Machine

    if args.top is not None and args.top < 1:
        raise ConfigError([f"--top is {args.top}, expected 1 or more"])
    drawings = _drawings(args.images, args.out)
    load_given_plugins(args)
    device = Machine(args.device).torch_device()
    method = load(args.checkpoint).to(device)
    pairs = None if args.pairs is None else parse_pairs(args.pairs, method.space)
    several, status = len(drawings) > 1, 0
    for image, drawing in drawings.items():
        try:
            rows = _explain(image, drawing, method, pairs, args.top)
        except DataError as error:
            if not several:
                raise
            print(f"czslkit: {error}", file=sys.stderr)
            status = 1
            continue
        print(*([f"{image}:"] if several else []), rows, drawing, sep="\n", flush=True)
    return status


def _drawings(given: Sequence[Path], out: str | None) -> dict[Path, Path]:
    """Return the images of a command line, each with the file of its drawing.

    Raises:
        DataError: a folder has no images.
        ConfigError: ``out`` is a folder for one image, a file for several images, or one of the images.
    """
    from ..data.images import is_image

    images: dict[Path, None] = {}
    for path in given:
        found = (
            sorted(file for file in path.iterdir() if is_image(file) and not file.name.startswith("."))
            if path.is_dir()
            else [path]
        )
        if not found:
            raise DataError(f"{path} has no images")
        images |= dict.fromkeys(found)
    several = len(given) > 1 or given[0].is_dir()
    target = Path(out or ("explained" if several else "explain.png"))
    if not several and (target.is_dir() or str(out).endswith(("/", os.sep))):
        raise ConfigError([f"--out is {out!r}, which is a folder; expected the path of a PNG file to write"])
    if several and target.exists() and not target.is_dir():
        raise ConfigError([f"--out is {out!r}, which is a file; expected a folder for several drawings"])
    drawings = {image: target / _drawing_name(image, list(images)) if several else target for image in images}
    if taken := {file.resolve() for file in images} & {file.resolve() for file in drawings.values()}:
        raise ConfigError([f"--out is {out!r}, but the drawing would replace the image {min(taken)}"])
    return drawings


def _drawing_name(image: Path, images: Sequence[Path]) -> str:
    """Return the file name of a drawing; images of the same name in several folders are numbered."""
    same = [other for other in images if other.name == image.name]
    number = f"-{same.index(image) + 1}" if len(same) > 1 else ""
    return f"{image.name}{number}.png"


def _explain(image: Path, drawing: Path, method: Method, pairs: Tensor | None, top: int | None) -> str:
    """Draw the explanation of an image, and return the table of its pairs.

    Raises:
        DataError: the image cannot be read.
        CzslkitError: the method's texts do not attend to an image.
    """
    from tabulate import tabulate

    from ..data.image_transforms import resize_and_crop
    from ..data.photos import opened
    from ..explain.drawing import draw
    from ..explain.explanation import explain_picture, ranked_rows, table_row
    from ..report.figure_style import rendered

    with opened(image) as whole:
        picture = resize_and_crop(whole, method.backbone.preprocessing)
    explanation = explain_picture(method, picture, pairs, top=top or _DEFAULT_TOP)
    write_bytes(drawing, rendered(draw(picture, explanation, method.space, top=top), "png", dpi=100))
    rows = [table_row(explanation, method.space, row) for row in ranked_rows(explanation, top=top)]
    return tabulate(rows, headers="keys", tablefmt="plain", floatfmt=".3f")
