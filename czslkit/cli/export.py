"""``czslkit export``: write a trained method as a program that does not need czslkit."""

from __future__ import annotations

import argparse

from .arguments import CHECKPOINT_FORMS, Commands, add_plugins, load_given_plugins, new_file, path_or_name

_FORMATS = ("onnx", "torchscript", "pt2")


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "export",
        help="write a trained method as an ONNX, TorchScript or torch.export program",
        description="Write the scoring of images by a trained method as a program that runs without czslkit: pixels "
        "of any number of images go in, scores of fixed pairs come out. The texts are computed once and their features "
        "are in the file, which also holds the names of the pairs and how images are prepared. The file is loaded "
        "again, and its scores are compared with PyTorch's. A method that adapts to the images that it has seen cannot "
        "be exported.",
    )
    parser.add_argument("checkpoint", metavar="DIR", type=path_or_name, help=f"trained method: {CHECKPOINT_FORMS}")
    parser.add_argument(
        "--format",
        required=True,
        choices=_FORMATS,
        help="format of the file, required: onnx for ONNX Runtime and other programs, which needs pip install "
        '"czslkit[onnx]"; torchscript for PyTorch in C++; pt2 for torch.export.load',
    )
    parser.add_argument("--out", required=True, metavar="FILE", type=new_file, help="file to write, required")
    parser.add_argument(
        "--pairs",
        metavar='"ATTR OBJ,..."',
        help="pairs to score, or attributes or objects that stand for their pairs, with commas between them; write a + "
        "between words with spaces, as in 'wet+tin can' (default: all pairs of the world)",
    )
    parser.add_argument(
        "--world",
        default="closed",
        choices=("closed", "open"),
        help="closed scores the pairs of the dataset, open every combination of its attributes and objects (default: "
        "closed)",
    )
    add_plugins(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Write the program, print what it takes and returns, and return the exit status."""
    from ..checkpoints.trained import load
    from ..export import export_method
    from ..sizes import format_bytes

    load_given_plugins(args)
    made = export_method(load(args.checkpoint), args.out, args.format, args.pairs, world=args.world)
    sides = (made.description[side] for side in ("input", "output"))
    shapes = " -> ".join(f"{side['name']} [{', '.join(map(str, side['shape']))}]" for side in sides)
    print(f"{made.file}: {shapes}, {format_bytes(made.file.stat().st_size)}")
    print(f"largest difference of a score from PyTorch: {made.difference:.2g}")
    return 0
