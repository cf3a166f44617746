"""``czslkit completion``: print the script with which a shell completes commands, options, names and settings."""

from __future__ import annotations

import argparse

from .arguments import Commands

#: How each shell reads the script at every start.
_SET_UP = {
    "bash": "echo 'eval \"$(czslkit completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(czslkit completion zsh)\"' >> ~/.zshrc, after the line with compinit",
    "fish": "czslkit completion fish > ~/.config/fish/completions/czslkit.fish",
}


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "completion",
        help="print the script that completes commands and names in bash, zsh or fish",
        description="Print the script with which a shell completes, after a TAB, the commands and options of czslkit, "
        "the names of methods and datasets, and the keys of settings.",
        epilog="\n".join(["run this once:", *(f"  {shell}: {command}" for shell, command in _SET_UP.items())]),
    )
    parser.add_argument("shell", choices=tuple(_SET_UP), help="shell that will read the script: bash, zsh or fish")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the script and return the exit status."""
    import argcomplete

    print(argcomplete.shellcode(["czslkit"], shell=args.shell))
    return 0
