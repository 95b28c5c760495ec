"""The command line: one exit code for each kind of refusal, and on failure nothing on standard output.

Refuses nothing itself; typer is imported only when a command runs, so that embedding ehrfast never loads it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

from ehrfast.cli.failure import EXIT_CODES, USAGE, Failure, failure_of, report

__all__ = ["EXIT_CODES", "Failure", "failure_of", "main"]

_INTERRUPTED: Final = 130
_BROKEN_PIPE: Final = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit code: 0, or the one `EXIT_CODES` gives to what went wrong.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given[: given.index("--")] if "--" in given else "--json" in given
    try:
        import typer
    except ModuleNotFoundError:
        return report(Failure(6, "cli.not_installed", "pip install 'ehrfast[cli]' adds the command line", {}), as_json)
    from ehrfast.cli.app import app

    usage_error: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, wherever this typer keeps it
    try:
        code = app(args=given, prog_name="ehrfast", standalone_mode=False)
        sys.stdout.flush()
    except typer.Exit as left:
        return left.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return report(Failure(_INTERRUPTED, "interrupted", "interrupted", {}), as_json)
    except BrokenPipeError:
        _leave_broken_pipe()
        return _BROKEN_PIPE
    except usage_error as error:
        return report(Failure(USAGE, "usage", _usage_text(error), {}), as_json)
    except Exception as error:
        if os.environ.get("EHRFAST_TRACEBACK"):
            raise
        return report(failure_of(error), as_json)
    return code if isinstance(code, int) else 0


def _usage_text(error: Exception) -> str:
    told: str = error.format_message() if hasattr(error, "format_message") else str(error)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ehrfast"
    return told if not told or "\n" in told else f"{told.removesuffix('.')} (see {path} --help)"


def _leave_broken_pipe() -> None:
    """The reader went away; what the interpreter still wants to flush goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
