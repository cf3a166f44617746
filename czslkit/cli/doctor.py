"""``czslkit doctor``: print what is installed on the machine and what is wrong with it."""

from __future__ import annotations

import argparse
import json

from .arguments import Commands, add_data_folder, path_or_name


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "doctor",
        help="print versions, devices, datasets, weights and plugins, and what is wrong with them",
        description="Print the versions, devices, datasets, weights and plugins of this machine, what is wrong with "
        "them and how to repair it. The command does not use the network. The exit status is 1 if something is wrong, "
        "else 0.",
    )
    add_data_folder(parser)
    parser.add_argument(
        "--backbone",
        type=path_or_name,
        metavar="NAME|FILE",
        help="also check that these weights are on this machine: a name such as ViT-L-14-quickgelu/openai, or a file "
        "(default: none)",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="format of the output (default: text)"
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings and return the exit status, 1 if something is wrong."""
    from ..doctor import examine

    findings = examine(args.data, args.backbone or "")
    print(json.dumps(findings.to_json(), indent=1) if args.format == "json" else findings.to_text())
    return 1 if findings.problems else 0
