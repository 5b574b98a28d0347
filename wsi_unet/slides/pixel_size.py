"""Pixel sizes as files state them: one parser of numbers and units, and one way to choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_unet.slides.levels import PixelSize, format_mpp

TOLERANCE = 0.01
"""Share by which two statements may differ without a warning."""

_PREFIXES = {"": 1e6, "d": 1e5, "c": 1e4, "m": 1e3, "µ": 1.0, "u": 1.0, "n": 1e-3, "p": 1e-6}
_PREFIXES |= {"f": 1e-9, "da": 1e7, "h": 1e8, "k": 1e9, "M": 1e12}
_LONG_PREFIXES = {"": "", "deci": "d", "centi": "c", "milli": "m", "micro": "µ", "nano": "n"}
_LONG_PREFIXES |= {"pico": "p", "femto": "f", "deca": "da", "hecto": "h", "kilo": "k", "mega": "M"}
_INCH = 25_400.0

UNITS = {f"{prefix}m": factor for prefix, factor in _PREFIXES.items()}
UNITS |= {
    f"{long}met{ending}": _PREFIXES[short]
    for long, short in _LONG_PREFIXES.items()
    for ending in ("er", "re", "ers", "res")
}
UNITS |= dict.fromkeys(("micron", "microns"), 1.0)
UNITS |= dict.fromkeys(("å", "angstrom", "angstroms", "ångström", "ångstrom"), 1e-4)
UNITS |= dict.fromkeys(("in", "inch", "inches", '"'), _INCH)
UNITS |= {"thou": _INCH / 1000, "mil": _INCH / 1000, "li": _INCH / 12, "pt": _INCH / 72}
UNITS |= {"ft": _INCH * 12, "foot": _INCH * 12, "yd": _INCH * 36, "yard": _INCH * 36}
"""µm per unit of length, as OME-XML, OME-Zarr and ImageJ spell them; Mm and mm differ in case."""


@dataclass(frozen=True)
class Statement:
    """What one part of a file says about the size of its pixels.

    Attributes:
        source: which part, for messages ("its OME-XML").
        size: µm per level-0 px.
    """

    source: str
    size: PixelSize


def parse_number(text: object) -> float | None:
    """Return a positive number, with a decimal point or comma; None if it isn't one.

    >>> parse_number("0,4990"), parse_number("0.5"), parse_number("1/0"), parse_number(None)
    (0.499, 0.5, None, None)
    """
    try:
        number = float(str(text).strip().strip("\"'").replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def to_micrometres(number: object, unit: object) -> float | None:
    """Return a length in µm; None if the number or the unit isn't understood.

    >>> to_micrometres("500", "nm"), to_micrometres(0.0005, "mm"), to_micrometres(1, "pixel")
    (0.5, 0.5, None)
    """
    value, factor = parse_number(number), _factor(unit)
    return None if value is None or factor is None else value * factor


def _factor(unit: object) -> float | None:
    if not isinstance(unit, str):
        return None
    # ImageJ escapes the micro sign, of which there are two; some programs store it twice encoded.
    name = unit.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    name = name.replace("Âµ", "µ").replace("\u03bc", "µ").replace("\u212b", "å")
    return UNITS.get(name, UNITS.get(name.lower()))


def stated_size(source: str, y: float | None, x: float | None) -> list[Statement]:
    """Return a statement, if both sides are known and finite."""
    if y is None or x is None or not all(math.isfinite(side) and side > 0 for side in (y, x)):
        return []
    return [Statement(source, PixelSize(y, x))]


def choose_size(statements: Sequence[Statement]) -> tuple[PixelSize | None, tuple[str, ...]]:
    """Return the pixel size of the first statement, and a line for each that contradicts it."""
    if not statements:
        return None, ()
    taken = statements[0]
    return taken.size, tuple(
        f"{taken.source} states pixels of {_text(taken.size)} µm, which was taken, but "
        f"{other.source} {_text(other.size)} µm; give `mpp` if that is right"
        for other in statements[1:]
        if not _agree(taken.size, other.size)
    )


def _agree(one: PixelSize, other: PixelSize) -> bool:
    return math.isclose(one.y, other.y, rel_tol=TOLERANCE) and math.isclose(
        one.x, other.x, rel_tol=TOLERANCE
    )


def _text(size: PixelSize) -> str:
    return format_mpp(size.y, size.x)
