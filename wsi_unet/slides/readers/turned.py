"""Slides that are stored turned or mirrored, read as they are shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.geometry import Box, Shape
from wsi_unet.samples import TRANSPOSED, UPRIGHT, stored_box, turn_upright
from wsi_unet.slides.levels import Level, PixelSize, make_levels
from wsi_unet.slides.slide import Reader


def read_upright(reader: Reader) -> Reader:
    """Return a reader of what is shown, which is the reader itself unless the slide is turned."""
    return reader if reader.orientation == UPRIGHT else TurnedReader(reader)


class TurnedReader(Reader):
    """Reads another reader's slide upright."""

    orientation = UPRIGHT

    def __init__(self, reader: Reader) -> None:
        """Turn an open reader, which is closed with this."""
        self._reader = reader
        self._orientation = reader.orientation
        self._transposed = reader.orientation >= TRANSPOSED
        self.name = reader.name
        self.vendor = reader.vendor
        self.compression = reader.compression
        self.properties = reader.properties
        self.series = reader.series
        self.colours = reader.colours
        stored: tuple[Level, ...] = reader.levels
        self.levels = make_levels(
            [self._turn(level.shape) for level in stored],
            [self._turn(level.tile) for level in stored],
        )
        self.mpp = reader.mpp
        if self._transposed and self.mpp is not None:
            self.mpp = PixelSize(self.mpp.x, self.mpp.y)
        self.warnings = (
            *reader.warnings,
            f"it is stored turned (orientation {self._orientation}) and read upright",
        )

    def _turn(self, sides: Shape) -> Shape:
        return (sides[1], sides[0]) if self._transposed else sides

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        stored = stored_box(box, self.levels[level].shape, self._orientation)
        return np.ascontiguousarray(
            turn_upright(self._reader.read(level, stored), self._orientation)
        )

    @override
    def fingerprint(self) -> str:
        return self._reader.fingerprint()

    @override
    def close(self) -> None:
        self._reader.close()
