"""``czslkit explain``: draw the parts of an image that a trained method's texts attend to."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError
from .arguments import Commands, add_device, expanded_path, new_file

_DEFAULT_TOP = 3  # pairs explained if neither --top nor --pairs is given


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "explain",
        help="draw the parts of an image that a trained method's texts attend to",
        description="Draw the attention of texts to the patches of an image as one PNG, and print the scores of the "
        "pairs and the contribution of each attention stage. The command works for methods whose texts attend to the "
        "image, such as MSCI and Troika.",
    )
    parser.add_argument("image", metavar="IMAGE", type=expanded_path, help="image file to explain")
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        type=expanded_path,
        help="folder of a trained method: RUNS/.../training, or a folder that czslkit convert wrote",
    )
    parser.add_argument(
        "--pairs",
        metavar='"ATTR OBJ,..."',
        help="pairs to explain, with commas between them (default: the pairs that the method ranks highest)",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help=f"number of highest-ranked pairs to show (default: {_DEFAULT_TOP}, or all of --pairs)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=new_file,
        default=Path("explain.png"),
        help="PNG file to write (default: explain.png)",
    )
    add_device(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Draw the explanation, print one line for each pair and the path of the drawing, and return the exit status."""
    from tabulate import tabulate

    from ..checkpoints.trained import load_checkpoint
    from ..data.image_transforms import resize_and_crop
    from ..data.images import open_rgb
    from ..explain.drawing import draw
    from ..explain.explanation import explain_picture, ranked_rows, table_row
    from ..explain.pairs import parse_pairs
    from ..runner.machine import Machine

    if args.top is not None and args.top < 1:
        raise ConfigError([f"--top is {args.top}, expected 1 or more"])
    photo, device = open_rgb(args.image), Machine(args.device).torch_device()
    method = load_checkpoint(args.checkpoint).to(device)
    pairs = None if args.pairs is None else parse_pairs(args.pairs, method.space)
    picture = resize_and_crop(photo, method.backbone.preprocessing)
    explanation = explain_picture(method, picture, pairs, top=args.top or _DEFAULT_TOP)
    draw(picture, explanation, method.space, top=args.top).save(args.out, "PNG")
    rows = [table_row(explanation, method.space, row) for row in ranked_rows(explanation, top=args.top)]
    print(tabulate(rows, headers="keys", tablefmt="plain", floatfmt=".3f"))
    print(args.out)
    return 0
