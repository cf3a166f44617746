"""``czslkit push``: share a trained method on the Hugging Face hub."""

from __future__ import annotations

import argparse

from .arguments import CHECKPOINT_FORMS, Commands, add_plugins, load_given_plugins, path_or_name


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "push",
        help="share a trained method on the Hugging Face hub, with a model card",
        description="Write a trained method to a repository of the Hugging Face hub: its learned tensors as "
        "safetensors, its description, and a model card with the results of its run, the protocol, the recipe and the "
        "citation. The command prints hf:USER/NAME@COMMIT, which --checkpoint takes. It needs a token that may write: "
        "log in with 'hf auth login', or set HF_TOKEN.",
    )
    parser.add_argument("folder", metavar="DIR", type=path_or_name, help=f"trained method: {CHECKPOINT_FORMS}")
    parser.add_argument("repository", metavar="USER/NAME", help="repository to write to; it is made if there is none")
    parser.add_argument(
        "--revision",
        metavar="BRANCH",
        help="branch to write to; it is made if there is none (default: the main branch)",
    )
    parser.add_argument(
        "--private",
        action="store_true",
        help="make the repository readable for its owners only (default: a new repository is public)",
    )
    parser.add_argument(
        "--message", metavar="TEXT", help="message of the commit (default: the names of the method and the dataset)"
    )
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="NAME",
        help="licence of the weights, as the hub names it, such as mit or cc-by-nc-4.0 (default: unknown)",
    )
    add_plugins(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Push the method, print where it is and return the exit status."""
    from ..sharing import push

    load_given_plugins(args)
    options = {key: getattr(args, key) for key in ("revision", "private", "message", "license")}
    print(push(args.folder, args.repository, **options))
    return 0
