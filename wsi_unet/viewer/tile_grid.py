"""Where the tiles of the page lie on a slide. No I/O.

All layers of the page, the slide's and the labels', share one grid, so they can't be off against
each other. At zoom z a pixel of a tile covers 2^z by 2^z px of the slide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape, round_up

TILE = 512
"""Side of a tile, px."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TilePlace:
    """A tile.

    Attributes:
        zoom: its pixels cover 2^zoom px of the slide per side.
        row: its row at this zoom.
        column: its column.
        shape: (rows, columns) of the slide, px.
    """

    zoom: int
    row: int
    column: int
    shape: Shape

    @property
    def step(self) -> int:
        """Side of what a pixel covers, px of the slide."""
        return 1 << self.zoom

    @property
    def box(self) -> Box:
        """What the tile covers, px of the slide; it may reach beyond the slide."""
        side = TILE << self.zoom
        return Box(0, 0, side, side).shift(self.row * side, self.column * side)

    @property
    def inside(self) -> Shape:
        """(rows, columns) of the pixels that cover something of the slide."""
        rows, columns = self.box.intersection(Box.from_shape(self.shape)).shape
        return -(-rows // self.step), -(-columns // self.step)

    def find_inside(self, margin: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which rows and columns of pixels cover something of the slide.

        Args:
            margin: how many pixels around the tile are looked up too.
        """
        numbers = np.arange(-margin, TILE + margin)
        rows, columns = (
            (first * TILE + numbers >= 0) & ((first * TILE + numbers) * self.step < side)
            for first, side in zip((self.row, self.column), self.shape, strict=True)
        )
        return rows, columns

    def find_indices(
        self, downsample: tuple[float, float], margin: int = 0
    ) -> tuple[Indices, Indices]:
        """Return which rows and columns of another grid lie under the centres of the pixels.

        Both grids begin at the slide's top left corner.

        >>> rows, columns = TilePlace(1, 0, 0, (900, 900)).find_indices((1.0, 4.0))
        >>> rows[:4].tolist(), columns[:4].tolist()
        ([1, 3, 5, 7], [0, 0, 1, 1])

        Args:
            downsample: (y, x) px of the slide per px of the other grid.
            margin: how many pixels around the tile are looked up too.

        Returns:
            (TILE + 2·margin,) rows, and as many columns; they may lie beyond the other grid.
        """
        numbers = np.arange(-margin, TILE + margin)
        rows, columns = (
            np.floor((first * TILE + numbers + 0.5) * self.step / factor).astype(np.int64)
            for first, factor in zip((self.row, self.column), downsample, strict=True)
        )
        return rows, columns


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of a slide.

    Attributes:
        shape: (rows, columns) of the slide, px.
    """

    shape: Shape

    @property
    def zooms(self) -> int:
        """Number of zooms; at the last one, one tile shows the whole slide.

        >>> TileGrid((500, 512)).zooms, TileGrid((500, 513)).zooms, TileGrid((2048, 9)).zooms
        (1, 2, 3)
        """
        return max(0, (max(self.shape) - 1) // TILE).bit_length() + 1

    @property
    def padded(self) -> Shape:
        """(rows, columns) of the slide and a rest around it, so that pixels are whole at any zoom.

        >>> TileGrid((2967, 2220)).padded
        (2968, 2224)
        """
        step = 1 << (self.zooms - 1)
        return round_up(self.shape[0], step), round_up(self.shape[1], step)

    def place(self, zoom: int, row: int, column: int) -> TilePlace | None:
        """Return a tile; None if it shows nothing of the slide."""
        if not 0 <= zoom < self.zooms:
            return None
        side = TILE << zoom
        inside = 0 <= row * side < self.shape[0] and 0 <= column * side < self.shape[1]
        return TilePlace(zoom, row, column, self.shape) if inside else None
