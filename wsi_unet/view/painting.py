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
    band: Band, window: Window, colors: Mapping[int, str], fill: float, width: int
) -> None:
    """Blend the classes' colours over a band, with darker outlines.

    Args:
        band: changed in place.
        window: label values under the band, with a margin of at least `width` px.
        colors: "#rrggbb" by label value; values without one, and 0, aren't drawn.
        fill: opacity inside the outlines.
        width: of the outlines, px of the window.
    """
    for value, code in colors.items():
        inside = window.pixels == value
        if value == 0 or not inside.any():
            continue
        color = [np.float32(channel) for channel in bytes.fromhex(code[1:])]
        _blend(band, color, window.resize_mask(inside) * np.float32(fill))
        _blend(band, color, window.resize_mask(find_outline(inside, width)) * np.float32(OUTLINE))


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
    light = (rows[:, None] // dash + columns // dash) % 2 * np.float32(255)
    _blend(band, [light] * 3, share * np.float32(OUTLINE))


def find_outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the outermost `width` px of a mask; the edge of the array is no outline."""
    return mask & ~_erode(mask, width)


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
