"""``czslkit convert``: turn a checkpoint of a method's authors into a folder that ``--checkpoint`` reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import Commands, add_data_folder


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "convert",
        help="turn a checkpoint of a method's authors into a folder that --checkpoint reads",
        description="Read a checkpoint that a method's authors released, and write the method to a folder that "
        "--checkpoint of czslkit bench and czslkit explain reads.",
    )
    parser.add_argument("file", metavar="IN.pt", type=Path, help="the authors' checkpoint, a file of tensors")
    parser.add_argument("folder", metavar="OUT_DIR", type=Path, help="folder to write; must not hold a method yet")
    parser.add_argument(
        "--method", required=True, metavar="NAME", help="method that was trained, as czslkit list shows it"
    )
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME",
        help="dataset that the method was trained on; its attributes, objects and pairs are read from --data",
    )
    add_data_folder(parser)
    parser.add_argument(
        "--config",
        metavar="FILE.yml",
        help="the authors' settings, in the format of their program (default: sizes from the tensors, and the "
        "method's own defaults for the rest)",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME|FILE",
        help="CLIP model that the method was trained with, needed if the checkpoint does not hold it: a name such as "
        "ViT-L-14-quickgelu/openai, or a file (default: the CLIP model in the checkpoint)",
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint, print the folder and return the exit status."""
    from ..checkpoints.authors import convert
    from ..data.loading import load_dataset

    space = load_dataset(args.dataset, args.data).space
    convert(args.method, args.file, space, args.folder, args.config, args.backbone)
    print(args.folder)
    return 0
