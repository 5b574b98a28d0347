"""How an error becomes one line on stderr and an exit code."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

import click

from wsi_unet.errors import WsiUnetError

VERBOSE = "wsi_unet.verbose"
"""Key in `click.Context.meta`: whether `-v` was given, so that failures show their traceback."""

UNEXPECTED_EXIT_CODE = 1

QUOTES = "'\""
_OPTION = re.compile(r"`([a-z][a-z_]*)(?:=([^`\s]+))?`")


def printable(text: str) -> str:
    r"""Return `text` as one line that is safe to print on any terminal.

    Line breaks become blanks; control characters and undecodable bytes, which file names and
    foreign metadata may hold, become escapes.

    >>> printable("a\nb\x1b[2J")
    'a b\\x1b[2J'
    """
    line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def with_dashes(text: str) -> str:
    """Write options as they are typed: `` `tile=104` `` becomes --tile 104.

    The library names options as Python does, in backticks; other words in backticks stay.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return text
    known = set(_options_of(context.find_root().command))

    def typed(match: re.Match[str]) -> str:
        option, value = f"--{match[1].replace('_', '-')}", match[2]
        if option not in known:
            return match[0]
        return option if value is None or value == "True" else f"{option} {value.strip(QUOTES)}"

    return _OPTION.sub(typed, text)


def _options_of(command: click.Command) -> Iterator[str]:
    """Yield the long options of a command and of all commands below it."""
    for parameter in command.params:
        yield from parameter.opts
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from _options_of(below)


def describe(error: Exception) -> str:
    """Return the line that tells a person about `error`."""
    if isinstance(error, WsiUnetError):
        return printable(with_dashes(str(error)))
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return printable(f"unexpected {what} (run again with -v for the traceback)")


def exit_code(error: Exception) -> int:
    """Return what the process exits with because of `error`: 2 for bad input, otherwise 1."""
    return error.exit_code if isinstance(error, WsiUnetError) else UNEXPECTED_EXIT_CODE


def show_error(error: Exception, *, verbose: bool, what: str = "") -> None:
    """Print `error` on stderr as one line, after its traceback when `verbose`.

    Args:
        error: what went wrong.
        verbose: whether to print the traceback.
        what: what was being worked on; errors raised on purpose name it themselves.
    """
    if verbose:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    named = isinstance(error, WsiUnetError) or not what
    click.echo(f"error: {'' if named else printable(what) + ': '}{describe(error)}", err=True)
