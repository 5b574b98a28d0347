"""What the images of a training look like, for its model's card."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_unet.geometry import Box
from wsi_unet.models.appearance_range import AppearanceRange
from wsi_unet.slides.tissue.appearance import Appearance, average_cells, measure_appearance
from wsi_unet.training.fields import TrainingField

MOST_PIECES = 256
"""Pieces that are looked at, spread evenly over all there are."""

PIECE_SIDE = 512
"""Longest side of a piece, px of the training's grid."""


def measure_appearance_range(fields: Sequence[TrainingField]) -> AppearanceRange | None:
    """Return the range that pieces of fields span; None if there are too few with tissue.

    Raises:
        SlideError: a field can't be read.
    """
    pieces = [(field, _centre(area)) for field in fields for area in field.areas]
    count = min(len(pieces), MOST_PIECES)
    chosen = [pieces[number * len(pieces) // count] for number in range(count)]
    return AppearanceRange.of(_look(field, piece) for field, piece in chosen)


def _centre(area: Box) -> Box:
    """Return the middle of an area, at most `PIECE_SIDE` px a side."""
    height, width = (min(side, PIECE_SIDE) for side in area.shape)
    y, x = area.y0 + (area.shape[0] - height) // 2, area.x0 + (area.shape[1] - width) // 2
    return Box(y, x, y + height, x + width)


def _look(field: TrainingField, piece: Box) -> Appearance | None:
    return measure_appearance(average_cells(field.read(piece).image))
