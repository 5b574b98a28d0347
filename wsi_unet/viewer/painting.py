"""Colouring what lies over the slide: classes, where the model looked, probabilities."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_unet.viewer.run_states import Look, Looks
from wsi_unet.viewer.tile_grid import TILE, TilePlace

Style = Literal["fill", "outline", "both"]
STYLES: tuple[Style, ...] = ("fill", "outline", "both")

MARGIN = 2
"""Pixels around a tile that outlines at its edge depend on."""

FILL, FILL_INSIDE = 255, 96
"""Opacity of filled classes, and of those that have an outline too, 0 to 255."""

PERIOD = 16
"""Pixels after which hatching repeats; a tile has a whole number of them."""

Colour = tuple[int, int, int]
RGBA = NDArray[np.uint8]


def paint_classes(
    values: NDArray[np.uint8], colours: Mapping[int, Colour], shown: Collection[int], style: Style
) -> RGBA:
    """Return classes in their colours; everything else is transparent.

    Args:
        values: label values of a tile and `MARGIN` pixels around it.
        colours: by label value.
        shown: the label values that are drawn.
        style: areas, their outlines, or both.

    Returns:
        (TILE, TILE, 4).
    """
    table = np.zeros((256, 4), np.uint8)
    for value in shown:
        if value in colours:
            table[value] = (*colours[value], FILL if style == "fill" else FILL_INSIDE)
    drawn = np.where(table[values, 3] > 0, values, 0)
    inner = _crop(drawn)
    painted: RGBA = table[inner]
    if style == "fill":
        return painted
    edge = _crop(find_edges(drawn)) & (inner > 0)
    if style == "outline":
        painted[~edge] = 0
    painted[edge, 3] = 255
    return painted


def find_edges(values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels have another value within two steps; beyond the array is none.

    Two pixels wide, an outline is seen on any screen.
    """
    edge = np.zeros(values.shape, np.bool_)
    for step in (1, MARGIN):
        down, right = values[step:] != values[:-step], values[:, step:] != values[:, :-step]
        edge[step:] |= down
        edge[:-step] |= down
        edge[:, step:] |= right
        edge[:, :-step] |= right
    return edge


@dataclass(frozen=True)
class Hatching:
    """How pixels in a state are shown.

    Attributes:
        colour: of the veil and the lines.
        veil: opacity between the lines, 0 to 255.
        line: opacity of the lines.
        rising: whether they rise to the right, rather than fall.
        width: of the lines, px.
    """

    colour: Colour
    veil: int
    line: int
    rising: bool
    width: int


HATCHINGS = {
    Look.NOT_LOOKED: Hatching((110, 116, 125), 70, 135, True, 1),
    Look.WAITING: Hatching((38, 92, 168), 54, 120, False, 3),
    Look.FAILED: Hatching((200, 30, 40), 70, 190, False, 6),
}

BORDER = (20, 22, 26, 210)
"""Colour of the line around what the model looked at."""


def paint_looks(looks: Looks) -> RGBA:
    """Return where the model didn't look, hasn't looked yet and failed, hatched.

    A line surrounds what it looked at.

    Args:
        looks: of a tile and `MARGIN` pixels around it.

    Returns:
        (TILE, TILE, 4); transparent where the model looked, and beyond the slide.
    """
    inner = _crop(looks)
    painted = np.zeros((TILE, TILE, 4), np.uint8)
    for look in HATCHINGS:
        here = inner == look
        if here.any():
            painted[here] = _make_pattern(look)[here]
    inside = (looks == Look.LOOKED).view(np.uint8)
    inside[looks == Look.OUTSIDE] = 2  # the slide's edge is no border
    border = np.zeros(looks.shape, np.bool_)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (inside[here] + inside[there]) == 1
        border[here] |= differs
        border[there] |= differs
    painted[_crop(border) & (inner == Look.LOOKED)] = BORDER
    return painted


@cache
def _make_pattern(look: Look) -> RGBA:
    hatching = HATCHINGS[look]
    y, x = np.indices((TILE, TILE))
    on_line = (x + y if hatching.rising else x - y) % PERIOD < hatching.width
    pattern = np.zeros((TILE, TILE, 4), np.uint8)
    pattern[..., :3] = hatching.colour
    pattern[..., 3] = np.where(on_line, hatching.line, hatching.veil)
    return pattern


@cache
def paint_unreadable() -> RGBA:
    """Return a tile that can't be read, which must look like nothing else."""
    painted = _make_pattern(Look.FAILED).copy()
    painted[..., 3] = np.maximum(painted[..., 3], 120)
    return painted


HEAT = (
    (0, (68, 1, 84)), (64, (59, 82, 139)), (128, (33, 145, 140)), (192, (94, 201, 98)),
    (255, (253, 231, 37)),
)  # fmt: skip
"""Colours of probabilities 0 to 255: five of viridis (CC0), between which we interpolate."""


@cache
def _make_heat() -> RGBA:
    at = [value for value, _ in HEAT]
    table = np.zeros((256, 4), np.uint8)
    for channel in range(3):
        colour = [colours[channel] for _, colours in HEAT]
        table[:, channel] = np.rint(np.interp(np.arange(256), at, colour))
    table[:, 3] = 255
    return table


def paint_probabilities(values: NDArray[np.uint8], looks: Looks, threshold: int) -> RGBA:
    """Return probabilities as a heat map.

    Args:
        values: (TILE, TILE) probabilities, 0 to 255 for 0 to 1.
        looks: (TILE, TILE); only where the model looked is there a probability.
        threshold: smaller values are transparent.
    """
    painted: RGBA = _make_heat()[values]
    painted[(values < threshold) | (looks != Look.LOOKED)] = 0
    return painted


def clear_outside(painted: RGBA, place: TilePlace) -> RGBA:
    """Make what lies beyond the slide transparent, in place; return it."""
    rows, columns = place.inside
    painted[rows:] = 0
    painted[:, columns:] = 0
    return painted


def _crop(values: NDArray[np.generic]) -> NDArray:  # type: ignore[type-arg]
    """Return a tile without the pixels around it."""
    return values[MARGIN:-MARGIN, MARGIN:-MARGIN]
