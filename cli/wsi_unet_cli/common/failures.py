"""Errors as one line on stderr and an exit code."""

from __future__ import annotations

import traceback

from wsi_unet.errors import WsiUnetError
from wsi_unet_cli.common.output import say, say_lines
from wsi_unet_cli.common.text import printable, speak

VERBOSE = "wsi_unet.verbose"
"""Key in `click.Context.meta`: whether `-v` was given, so that failures show their traceback."""

UNEXPECTED_EXIT_CODE = 1


def describe(error: Exception) -> str:
    """Return the one-line message for `error`."""
    if isinstance(error, WsiUnetError):
        return speak(str(error))
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return printable(f"unexpected {text} (run again with -v for the traceback)")


def exit_code(error: Exception) -> int:
    """Return the exit code of the process after `error`: 2 for bad input, otherwise 1."""
    return error.exit_code if isinstance(error, WsiUnetError) else UNEXPECTED_EXIT_CODE


def show_error(error: Exception, *, verbose: bool, subject: str = "") -> None:
    """Print `error` on stderr as one line, after its traceback when `verbose`.

    Args:
        error: what went wrong.
        verbose: whether to print the traceback.
        subject: what was being worked on; errors raised on purpose name it themselves.
    """
    if verbose:
        say_lines("".join(traceback.format_exception(error)), err=True)
    named = isinstance(error, WsiUnetError) or not subject
    say(f"error: {'' if named else subject + ': '}{describe(error)}", err=True)
