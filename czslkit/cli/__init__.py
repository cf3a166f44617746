"""The command line: parse the arguments and run the module of the command.

The exit status is 0 on success, 1 on failure, 2 on wrong usage and 130 on an interruption.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from .. import __version__
from ..errors import ConfigError, CzslkitError, NameTakenError, UnknownNameError
from . import bench, check, convert, data, doctor, evaluate, explain, list_names, new_plugin, report, runs, table

#: The module of each command, in the order of ``czslkit --help``.
_COMMANDS = (bench, check, convert, explain, evaluate, list_names, new_plugin, table, report, runs, data, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; print user errors to standard error.

    Args:
        argv: arguments after ``czslkit``; ``sys.argv[1:]`` if None.
    """
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        status = command(args)
        sys.stdout.flush()  # inside the try, which handles a closed pipe
        return status
    except (ConfigError, NameTakenError, UnknownNameError) as error:
        _print_error(error, args)
        return 2
    except BrokenPipeError:  # the reading program has ended, as in czslkit ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CzslkitError, OSError) as error:
        _print_error(error, args)
        return 1
    except KeyboardInterrupt:
        print("czslkit: interrupted; run the same command again to continue", file=sys.stderr)
        return 130


def _print_error(error: Exception, args: argparse.Namespace) -> None:
    """Print an error to standard error, with ``--verbose`` after its traceback."""
    if getattr(args, "verbose", False):
        traceback.print_exception(error)
    print(f"czslkit: {error}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets ``command`` to the function that runs it."""
    parser = argparse.ArgumentParser(
        prog="czslkit",
        description="Compositional zero-shot learning: train, evaluate and compare methods that name unseen "
        "attribute-object pairs. 'czslkit COMMAND --help' explains one command.",
    )
    parser.add_argument("--version", action="version", version=f"czslkit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in _COMMANDS:
        module.add_parser(commands)
    return parser
