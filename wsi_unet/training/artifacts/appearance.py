"""The appearance of the images of a training, for its model's card."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_unet.geometry import Box
from wsi_unet.models.appearance_range import AppearanceRange
from wsi_unet.slides.tissue.appearance import Appearance, average_cells, measure_appearance
from wsi_unet.training.fields import TrainingField

MOST_PIECES = 256
"""Most pieces that are measured, spread evenly over all fields."""

PIECE_SIDE = 512
"""Longest side of a piece, px of the training's grid."""


def measure_appearance_range(fields: Sequence[TrainingField]) -> AppearanceRange | None:
    """Return the appearance range of fields; None if too few of their pieces have tissue.

    Raises:
        SlideError: a field can't be read.
    """
    pieces = [(field, _find_centre(area)) for field in fields for area in field.areas]
    count = min(len(pieces), MOST_PIECES)
    chosen = [pieces[number * len(pieces) // count] for number in range(count)]
    return AppearanceRange.from_pieces(_measure_piece(field, piece) for field, piece in chosen)


def _find_centre(area: Box) -> Box:
    """Return the middle of an area, at most `PIECE_SIDE` px a side."""
    height, width = (min(side, PIECE_SIDE) for side in area.shape)
    y, x = area.y0 + (area.shape[0] - height) // 2, area.x0 + (area.shape[1] - width) // 2
    return Box(y, x, y + height, x + width)


def _measure_piece(field: TrainingField, piece: Box) -> Appearance | None:
    return measure_appearance(average_cells(field.read(piece).image))
