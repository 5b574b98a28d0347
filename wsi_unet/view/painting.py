"""Blending classes and outlines into a band of a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_unet.view.layers import Window

OUTLINE = 0.95
"""Opacity of outlines."""

DASH = 4
"""Length of a dash, in widths of the line."""

Band = NDArray[np.float32]
"""RGB (3, rows, width) of a picture, 0 to 255."""


def paint_classes(
    band: Band, window: Window, colors: Mapping[int, str], fill: float, width: int | None
) -> None:
    """Blend the classes' colours over a band, with darker outlines.

    Args:
        band: changed in place.
        window: label values under the band, with a margin of at least `width` px.
        colors: "#rrggbb" by label value; values without one, and 0, aren't drawn.
        fill: opacity inside the outlines.
        width: of the outlines, px of the window; None draws none.
    """
    for value, code in colors.items():
        inside = window.pixels == value
        if value == 0 or not inside.any():
            continue
        color = _parse_color(code)
        _blend(band, color, window.resize_mask(inside) * np.float32(fill))
        if width is not None:
            outline = find_outline(inside, width)
            _blend(band, color, window.resize_mask(outline) * np.float32(OUTLINE))


def paint_objects(band: Band, window: Window, colors: Mapping[int, str], width: int) -> None:
    """Draw the outline of each object in the colour of its class.

    Args:
        band: changed in place.
        window: numbers of objects under the band, 0 for none, whose lowest byte is the label value;
            with a margin of at least `width` px.
        colors: "#rrggbb" by label value; objects of values without one aren't drawn.
        width: of the outlines, px of the window.
    """
    outlines = find_outlines(window.pixels, width)
    if not outlines.any():
        return
    values = window.pixels.astype(np.uint8)
    for value, code in colors.items():
        outline = outlines & (values == value)
        if value and outline.any():
            _blend(band, _parse_color(code), window.resize_mask(outline) * np.float32(OUTLINE))


def _parse_color(code: str) -> list[np.float32 | NDArray[np.float32]]:
    return [np.float32(channel) for channel in bytes.fromhex(code[1:])]


def paint_dashes(band: Band, window: Window, width: int, top: int) -> None:
    """Draw a dashed line, black and white, along the inside of an area.

    Args:
        band: changed in place.
        window: booleans of the area under the band, with a margin of at least `width` px.
        width: of the line, px of the window.
        top: row of the picture that the band begins with.
    """
    outline = find_outline(window.pixels, width)
    if not outline.any():
        return
    share = window.resize_mask(outline)
    scale = (window.part[3] - window.part[1]) / window.size[1]
    dash = max(4, round(DASH * width / scale))
    rows, columns = np.arange(top, top + band.shape[1]), np.arange(band.shape[2])
    # Slanted, so that no line along the rows or columns, and none at 45°, lies between two dashes.
    light = (3 * rows[:, None] + 2 * columns) // (2 * dash) % 2 * np.float32(255)
    _blend(band, [light] * 3, share * np.float32(OUTLINE))


def find_outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the outermost `width` px of a mask; the edge of the array is no outline."""
    return mask & ~_erode(mask, width)


def find_outlines(numbers: NDArray[np.uint64], width: int) -> NDArray[np.bool_]:
    """Return the outermost `width` px of each object; the edge of the array is no outline.

    Args:
        numbers: (h, w) 0 where there is no object.
        width: px, at least 1.
    """
    inner = np.ones(numbers.shape, np.bool_)
    for here, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        same = numbers[here] == numbers[other]
        inner[here] &= same
        inner[other] &= same
    # All neighbours of what is left are of the same object, so objects needn't be told apart.
    return (numbers > 0) & ~_erode(inner, width - 1)


def _blend(
    band: Band, color: Sequence[np.float32 | NDArray[np.float32]], opacity: NDArray[np.float32]
) -> None:
    for plane, channel in zip(band, color, strict=True):
        difference = channel - plane
        difference *= opacity
        plane += difference


def _erode(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    for _ in range(times):
        smaller = mask.copy()
        smaller[1:] &= mask[:-1]
        smaller[:-1] &= mask[1:]
        smaller[:, 1:] &= mask[:, :-1]
        smaller[:, :-1] &= mask[:, 1:]
        mask = smaller
    return mask
