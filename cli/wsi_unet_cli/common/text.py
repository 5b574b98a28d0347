"""Text for people: one printable line, options as they are typed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from typing import Any

import click

COMMAND = "wsi_unet.command"
"""Key in `click.Context.meta`: the command that runs; options of this command are known best."""

PROSE = frozenset({"error", "warnings", "inexact_because", "reason"})
"""Keys of JSON documents whose values are sentences of the library, for people to read."""

_OPTION = re.compile(r"`([a-z][a-z_]*)(?:=([^`]+))?`")


def printable(text: str) -> str:
    r"""Return `text` as one line that is safe to print on any terminal.

    Line breaks become blanks; control characters and undecodable bytes, which file names and
    foreign metadata may hold, become escapes.

    >>> printable("a\nb\x1b[2J")
    'a b\\x1b[2J'
    """
    line = " ".join(text.splitlines())
    return line if line.isprintable() else "".join(map(_escape, line))


def shell_word(word: str) -> str:
    r"""Return `word` as a shell reads it, printable too.

    >>> shell_word("a.svs"), shell_word("a b.svs"), shell_word("caf\udce9's.svs")
    ('a.svs', "'a b.svs'", "$'caf\\xe9\\'s.svs'")
    """
    if word.isprintable():
        return shlex.quote(word)
    quoted = word.replace("\\", r"\\").replace("'", r"\'")
    return "$'" + "".join(c if c.isprintable() else _write_bytes(c) for c in quoted) + "'"


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return _write_bytes(character) if _is_byte(character) else ascii(character)[1:-1]


def _write_bytes(character: str) -> str:
    errors = "surrogateescape" if _is_byte(character) else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))


def _is_byte(character: str) -> bool:
    """Return whether a character stands for a byte of a file name that isn't UTF-8."""
    return "\udc80" <= character <= "\udcff"


def with_dashes(text: str) -> str:
    """Write options as they are typed: `` `tile=104` `` becomes --tile 104.

    The library names options as Python does, in backticks. A value becomes one word of the command
    line, quoted where it needs to be: `` `ignore='no tumour'` `` is --ignore 'no tumour' and
    `` `region=(0, 0, 64, 64)` `` is --region 0,0,64,64. Other words in backticks stay.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return text
    options = dict(_find_options(context.find_root().command))
    command = context.meta.get(COMMAND)
    if command is not None:
        options |= dict(_find_options(command))

    def write(match: re.Match[str]) -> str:
        option, value = options.get(match[1]), match[2]
        if option is None:
            return match[0]
        return option if value in (None, "True") else f"{option} {_write_value(value)}"

    return _OPTION.sub(write, text)


def speak(text: str) -> str:
    """Return a message of the library as one printable line, with options as they are typed."""
    return printable(with_dashes(text))


def speak_document(document: Any) -> Any:
    """Return a JSON document whose sentences have options as they are typed; see `PROSE`."""
    if isinstance(document, dict):
        return {
            key: _dash_all(value) if key in PROSE else speak_document(value)
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [speak_document(item) for item in document]
    return document


def _dash_all(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_dash_all(item) for item in value]
    return with_dashes(value) if isinstance(value, str) else value


def _find_options(command: click.Command) -> Iterator[tuple[str, str]]:
    """Yield the names in Python of the options of a command and those below it, with dashes."""
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--"):
                yield option[2:].replace("-", "_"), option
                if parameter.name:
                    yield parameter.name, option
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from _find_options(below)


def _write_value(text: str) -> str:
    """Write a Python literal, or any other text, as one word of the command line."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    values = value if isinstance(value, list | tuple) else [value]
    return shlex.quote(",".join("none" if item is None else str(item) for item in values))
