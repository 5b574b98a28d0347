"""Options that say how labels become objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def _parse_per_class(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str | None, str] | None:
    """Parse values of the form `[CLASS=]VALUE`; later ones win."""
    parsed: dict[str | None, str] = {}
    for text in values:
        name, equals, value = text.rpartition("=")
        parsed[name if equals else None] = value
    return parsed or None


def _parse_areas(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str | None, float] | None:
    parsed = {}
    for name, value in (_parse_per_class(ctx, param, values) or {}).items():
        try:
            parsed[name] = float(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not an area in µm².") from error
    return parsed or None


_OPTIONS = (
    click.option(
        "--split",
        multiple=True,
        callback=_parse_per_class,
        metavar="[CLASS=]RULE",
        help="How touching objects are told apart, of one class or of all: none; distance:H, "
        "which cuts where the distance to the edge falls by more than H µm between two maxima; or "
        "interior:BOUNDARY:G, which grows objects by at most G µm into the class BOUNDARY between "
        "them; may be given several times.  [default: as the model's card says]",
    ),
    click.option(
        "--min-area",
        multiple=True,
        callback=_parse_areas,
        metavar="[CLASS=]A",
        help="Drop and count objects smaller than this, in µm².",
    ),
    click.option(
        "--max-area",
        multiple=True,
        callback=_parse_areas,
        metavar="[CLASS=]A",
        help="Drop and count objects larger than this, in µm².",
    ),
    click.option(
        "--measure",
        metavar="WHAT,…",
        help="What is measured: shape; and on the slide, at the labels' pixel size, intensity "
        "(mean and standard deviation of each channel) or stain (those of the optical densities "
        "of haematoxylin, eosin and DAB).  [default: shape]",
    ),
)


def object_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add options that decide the table: `split`, `min_area`, `max_area` and `measure`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
