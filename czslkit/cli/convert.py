"""``czslkit convert``: convert a checkpoint of a method's authors to a folder that ``--checkpoint`` reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import Commands, add_data_folder, add_plugins, expanded_path, load_given_plugins, path_or_name


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "convert",
        help="convert a checkpoint of a method's authors to a folder that --checkpoint reads",
        description="Convert a checkpoint that a method's authors released to a folder that czslkit bench and czslkit "
        "explain read with --checkpoint.",
        epilog="example: czslkit convert best_model.pt msci-mit --method msci --dataset mit-states --config mit.yml",
    )
    parser.add_argument("file", metavar="IN.pt", type=expanded_path, help="the authors' checkpoint, a file of tensors")
    parser.add_argument(
        "folder", metavar="OUT_DIR", type=expanded_path, help="folder to write; it must not contain a method yet"
    )
    parser.add_argument(
        "--method",
        required=True,
        metavar="NAME",
        help="method that was trained, required: a name that czslkit list prints",
    )
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME",
        help="dataset that the method was trained on, required; its attributes, objects and pairs are read from --data",
    )
    add_data_folder(parser)
    parser.add_argument(
        "--config",
        type=expanded_path,
        metavar="FILE.yml",
        help="the authors' settings, in the format of their program (default: sizes from the tensors, other settings "
        "from the defaults of the method)",
    )
    parser.add_argument(
        "--backbone",
        type=path_or_name,
        metavar="NAME|FILE",
        help="image encoder that the method was trained with: a name such as ViT-L-14-quickgelu/openai or "
        "timm/resnet18.tv_in1k, or a file; required if the checkpoint does not contain it, and for encoders other than "
        "CLIP (default: the CLIP model in the checkpoint)",
    )
    parser.add_argument(
        "--word-vectors",
        nargs="+",
        action="extend",
        default=[],
        type=_table_and_file,
        metavar="TABLE=FILE",
        help="files of word vectors that the checkpoint does not hold: word2vec=FILE, fasttext=FILE or glove=FILE "
        "(default: none)",
    )
    add_plugins(parser)
    parser.set_defaults(command=run)


def _table_and_file(text: str) -> tuple[str, Path]:
    """Return the table and the file of word vectors in an argument.

    Raises:
        argparse.ArgumentTypeError: there is no table or no file.

    >>> _table_and_file("glove=/data/glove.6B.300d.txt")[0]
    'glove'
    """
    table, _, file = text.partition("=")
    if table not in ("glove", "word2vec", "fasttext") or not file:
        raise argparse.ArgumentTypeError(f"{text!r}, expected glove=FILE, word2vec=FILE or fasttext=FILE")
    return table, expanded_path(file)


def run(args: argparse.Namespace) -> int:
    """Convert the checkpoint, print the folder and return the exit status."""
    from ..checkpoints.authors import convert
    from ..data.loading import load_dataset

    load_given_plugins(args)
    space = load_dataset(args.dataset, args.data).space
    vectors = dict(args.word_vectors) or None
    convert(args.method, args.file, space, args.folder, args.config, args.backbone, word_vectors=vectors)
    print(args.folder)
    return 0
