"""The command line: parse the arguments and run the module of the command.

The exit status is 0 on success, 1 on failure, 2 on wrong usage and 130 on an interruption. What a terminal or a pipe
does with the output ends no command: text that cannot be written is dropped, and a full disk is reported at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from .. import __version__
from ..errors import ConfigError, CzslkitError, NameTakenError, UnknownNameError, did_you_mean
from ..torchrun import process_rank
from . import (
    bench,
    check,
    completion,
    convert,
    data,
    doctor,
    evaluate,
    explain,
    export,
    init,
    list_names,
    new_plugin,
    plot,
    predict,
    push,
    report,
    runs,
    table,
)
from .streams import LastingStream, lasting_streams

#: The module of each command, in the order of ``czslkit --help``.
_COMMANDS = (
    bench,
    init,
    check,
    convert,
    predict,
    explain,
    export,
    evaluate,
    list_names,
    new_plugin,
    table,
    plot,
    report,
    runs,
    push,
    data,
    doctor,
    completion,
)

#: A process of torchrun that is not the first one waits so long before it prints an error.
_FOLLOWER_SECONDS = 20.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; print user errors to standard error.

    Args:
        argv: arguments after ``czslkit``; ``sys.argv[1:]`` if None.
    """
    with lasting_streams() as output:
        try:
            parser = _parser()
            if "_ARGCOMPLETE" in os.environ:  # the shell asks what can stand after a TAB
                from .completers import complete

                complete(parser)
            status = _run(parser.parse_args(argv))
        except SystemExit as end:  # after --help, --version and wrong usage
            if _is_lost(output) and not end.code:
                raise SystemExit(1) from None
            raise
        lost = _is_lost(output)
        return status or int(lost)


def _is_lost(output: LastingStream) -> bool:
    """Write what is buffered for standard output; return whether text was lost, and print why."""
    output.flush()
    if output.problem is None or isinstance(output.problem, BrokenPipeError):  # as in czslkit ... | head
        return False
    print(f"czslkit: standard output cannot be written: {output.problem.strerror}", file=sys.stderr)
    return True


def _run(args: argparse.Namespace) -> int:
    """Run the command of the arguments and return its exit status; print user errors to standard error."""
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except (ConfigError, NameTakenError, UnknownNameError) as error:
        _print_error(error, args)
        return 2
    except (CzslkitError, OSError) as error:
        _print_error(error, args)
        return 1
    except KeyboardInterrupt:
        print("czslkit: interrupted; run the same command again to continue", file=sys.stderr)
        return 130


def _print_error(error: Exception, args: argparse.Namespace) -> None:
    """Print an error to standard error, with ``--verbose`` after its traceback.

    If all processes of torchrun have the same error, the first one prints it, and torchrun ends the others meanwhile.
    """
    if _is_follower():
        time.sleep(_FOLLOWER_SECONDS)
    if getattr(args, "verbose", False):
        traceback.print_exception(error)
    print(f"czslkit: {error}", file=sys.stderr)


def _is_follower() -> bool:
    """Return whether torchrun has started this process, and another one before it."""
    try:
        return process_rank() > 0
    except ConfigError:  # what the environment says about processes is wrong, which is the error to print
        return False


class _Formatter(argparse.HelpFormatter):
    """A formatter that wraps every text but one of several lines, such as a list of examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """A parser that answers an unknown option with the usage of its command and the options that may be meant."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, **settings})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            hint = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{hint}")
        return found, unknown


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets ``command`` to the function that runs it."""
    parser = _Parser(
        prog="czslkit",
        description="Compositional zero-shot learning: train, evaluate and compare methods that name unseen "
        "attribute-object pairs. 'czslkit COMMAND --help' explains one command.",
    )
    version = f"czslkit {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version of czslkit and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add_parser(commands)
    return parser
