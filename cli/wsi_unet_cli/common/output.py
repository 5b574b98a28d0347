"""Printing, and how numbers are written.

Nothing else prints: whatever comes from files, be it a name, a value or a library's message, is
made printable here, so that it can't send escape sequences to a terminal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from wsi_unet_cli.common.text import printable, speak_document

if TYPE_CHECKING:
    from rich.console import Console


def say(line: str, *, err: bool = False) -> None:
    """Print one line, whatever it holds.

    Args:
        line: the line; line breaks in it become blanks.
        err: whether to print on stderr.
    """
    click.echo(printable(line), err=err)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print several lines, such as a traceback."""
    for line in text.splitlines():
        say(line, err=err)


def write_json(text: str, *, nl: bool = True) -> None:
    """Print a part of a JSON document that `json.dumps` wrote: ASCII, escaped already."""
    click.echo(text, nl=nl)


def print_json(document: object) -> None:
    """Print one JSON document on stdout; options in its sentences are written as they are typed.

    Raises:
        ValueError: it holds a number that JSON can't express (NaN, infinity).
    """
    write_json(json.dumps(speak_document(document), indent=2, allow_nan=False))


def stdout_console() -> Console:
    """Return rich's console on stdout, with markup off: file names may hold brackets."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True)


def stderr_console() -> Console:
    """Return rich's console on stderr, with markup off."""
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_facts(title: str, facts: Iterable[tuple[str, str]]) -> None:
    """Print a title and, indented below it, names with their values in one column."""
    rows = [(printable(name), printable(value)) for name, value in facts if value]
    width = max((len(name) for name, _ in rows), default=0)
    console = stdout_console()
    console.print(printable(title), style="bold")
    for name, value in rows:
        console.print(f"  {name:<{width}}  {value}")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under headings; columns are never cut, whatever the width of the terminal."""
    headings = [printable(heading) for heading in headings]
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max([len(heading), *(len(row[i]) for row in cells)]) for i, heading in enumerate(headings)
    ]
    console = stdout_console()
    console.print(_align(headings, widths), style="bold")
    for row in cells:
        console.print(_align(row, widths))


def _align(cells: Sequence[str], widths: Sequence[int]) -> str:
    line = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
    return line.rstrip()


def duration(seconds: float) -> str:
    """Write a duration.

    >>> [duration(s) for s in (0.04, 9.87, 75, 3700)]
    ['0.04 s', '9.9 s', '1 min 15 s', '1 h 01 min']
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(count: float) -> str:
    """Write a number of bytes in binary units.

    >>> [size(n) for n in (17, 2048, 3 * 2**30)]
    ['17 B', '2.0 KiB', '3.0 GiB']
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} PiB"


def percent(fraction: float) -> str:
    """Write a fraction of 1 as a percentage.

    >>> percent(0.1234)
    '12.3 %'
    """
    return f"{100 * fraction:.1f} %"


def pixels(shape: Sequence[int]) -> str:
    """Write (rows, columns) as people do, width first.

    >>> pixels((2967, 2220))
    '2220 × 2967 px'
    """
    rows, columns = shape
    return f"{columns} × {rows} px"


def micrometres(y: float, x: float | None = None) -> str:
    """Write a pixel size; both sides only if they differ; x is y where it isn't given.

    >>> micrometres(0.499, 0.499), micrometres(0.25, 0.5)
    ('0.499 µm/px', '0.5 × 0.25 µm/px')
    """
    from wsi_unet.slides.levels import format_mpp

    return f"{format_mpp(y, y if x is None else x)} µm/px"


def score(value: float) -> str:
    """Write a score from 0 to 1; NaN becomes n/a.

    >>> score(0.91239), score(float("nan"))
    ('0.9124', 'n/a')
    """
    return "n/a" if math.isnan(value) else f"{value:.4f}"
