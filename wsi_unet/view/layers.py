"""The arrays of a result under a picture: where their pixels lie on it, read a strip at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.geometry import Box, Shape

STRIP_BYTES = 1 << 25
"""Bytes that are read at once of each array: the rows of several bands of the picture."""

Edges = tuple[float, float, float, float]
"""(y0, x0, y1, x1)"""


@dataclass(frozen=True)
class PixelGrid:
    """Where an array's pixels lie: pixel (i, j) begins at start + (i, j)·step.

    Attributes:
        start: (y, x) of the first pixel's top left corner, full-resolution px of the slide.
        step: (y, x) size of a pixel, full-resolution px of the slide.
    """

    start: tuple[float, float]
    step: tuple[float, float]

    @classmethod
    def of(cls, array: xr.DataArray) -> PixelGrid:
        """Return the grid of labels or of an image, as `labels.reading` opens them."""
        mpp = slide_mpp(array)
        step = array.attrs["pixel_size"][0] / mpp[0], array.attrs["pixel_size"][1] / mpp[1]
        # Coordinates count from the centre of the slide's first pixel.
        start = (
            float(array["y"][0]) / mpp[0] + 0.5 - step[0] / 2,
            float(array["x"][0]) / mpp[1] + 0.5 - step[1] / 2,
        )
        return cls(start, step)

    def at_level(self, level: int) -> PixelGrid:
        """Return the grid of a coarser level of the same pyramid."""
        return PixelGrid(self.start, (self.step[0] * 2**level, self.step[1] * 2**level))

    def extent(self, shape: Shape) -> Edges:
        """Return the edges of an array with so many rows and columns, px of the slide."""
        (y, x), (step_y, step_x) = self.start, self.step
        return y, x, y + shape[0] * step_y, x + shape[1] * step_x


def slide_mpp(array: xr.DataArray) -> tuple[float, float]:
    """Return the size (y, x) of a slide pixel in the unit of an array's coordinates."""
    if array.attrs["unit"] != "micrometer":
        return 1.0, 1.0
    mpp = array.attrs["provenance"].get("slide", {}).get("mpp")
    return (1.0, 1.0) if mpp is None else (float(mpp[0]), float(mpp[1]))


@dataclass(frozen=True)
class Canvas:
    """The part of the slide that a picture shows.

    Attributes:
        edges: of the part, full-resolution px of the slide.
        size: (width, height) of the picture, px.
    """

    edges: Edges
    size: tuple[int, int]

    def edges_on(self, grid: PixelGrid) -> Edges:
        """Return the edges of the part in px of a grid."""
        y0, x0, y1, x1 = self.edges
        (y, x), (step_y, step_x) = grid.start, grid.step
        return (y0 - y) / step_y, (x0 - x) / step_x, (y1 - y) / step_y, (x1 - x) / step_x

    def scale_of(self, grid: PixelGrid) -> tuple[float, float]:
        """Return how many (y, x) px of a grid lie under one px of the picture."""
        y0, x0, y1, x1 = self.edges_on(grid)
        return (y1 - y0) / self.size[1], (x1 - x0) / self.size[0]

    def choose_level(self, grid: PixelGrid, levels: int, finer: float) -> int:
        """Return the coarsest of `levels` whose pixels are at least `finer` times as fine."""
        scale = min(self.scale_of(grid))
        return max((level for level in range(levels) if scale >= finer * 2**level), default=0)


@dataclass
class Layer:
    """A level of an array under a picture.

    Attributes:
        read_box: returns a box inside the level, (..., rows, columns).
        shape: (rows, columns) of the level.
        grid: where its pixels lie.
        canvas: the picture.
        margin: how many px around the picture's pixels are needed, px of the level.
        planes: number of channels.
    """

    read_box: Callable[[Box], NDArray[Any]]
    shape: Shape
    grid: PixelGrid
    canvas: Canvas
    margin: int
    planes: int = 1
    _strip: NDArray[Any] = field(init=False, repr=False)
    _rows: range = field(default=range(0), init=False, repr=False)

    def read(self, rows: range) -> Window:
        """Return the pixels under rows of the picture and the margin around them.

        Beyond the array's edge, the pixels at the edge are repeated.
        """
        y0, x0, y1, x1 = self.canvas.edges_on(self.grid)
        step = (y1 - y0) / self.canvas.size[1]
        edges = y0 + rows.start * step, x0, y0 + rows.stop * step, x1
        box = Box(*(math.floor(edge) for edge in edges[:2]), *(math.ceil(e) for e in edges[2:]))
        box = box.grow(self.margin, self.margin)
        inside = Box(*np.clip((box.y0, box.x0, box.y1 - 1, box.x1 - 1), 0, self._last).tolist())
        inside = Box(inside.y0, inside.x0, inside.y1 + 1, inside.x1 + 1)
        pixels = self._read_strip(inside)
        missing = (
            (inside.y0 - box.y0, box.y1 - inside.y1),
            (inside.x0 - box.x0, box.x1 - inside.x1),
        )
        if any(map(any, missing)):
            pixels = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [*missing], mode="edge")
        y, x = edges[0] - box.y0, edges[1] - box.x0
        part = (x, y, x + edges[3] - edges[1], y + edges[2] - edges[0])
        return Window(pixels, part, (self.canvas.size[0], len(rows)))

    @property
    def _last(self) -> tuple[int, int, int, int]:
        return self.shape[0] - 1, self.shape[1] - 1, self.shape[0] - 1, self.shape[1] - 1

    def _read_strip(self, box: Box) -> NDArray[Any]:
        """Return a box as wide as all others, from a strip of rows that is read at once."""
        if box.y0 not in self._rows or box.y1 > self._rows.stop:
            rows = max(box.shape[0], STRIP_BYTES // (self.planes * box.shape[1]))
            self._strip = np.zeros(0)  # frees the last one first
            self._rows = range(box.y0, min(self.shape[0], box.y0 + rows))
            self._strip = self.read_box(Box(box.y0, box.x0, self._rows.stop, box.x1))
        start = box.y0 - self._rows.start
        return self._strip[..., start : start + box.shape[0], :]


@dataclass(frozen=True)
class Window:
    """Pixels of a layer under a band of a picture.

    Attributes:
        pixels: (..., rows, columns) with the layer's margin.
        part: (x0, y0, x1, y1) of the band, px of the window.
        size: (width, height) of the band, px.
    """

    pixels: NDArray[Any]
    part: Edges
    size: tuple[int, int]

    def resize_colours(self, method: Image.Resampling) -> NDArray[np.float32]:
        """Return RGB (3, rows, columns) in px of the picture, float32 (3, h, w) from 0 to 255."""
        planes = [self._resize(np.ascontiguousarray(plane), method) for plane in self.pixels]
        return np.stack([np.asarray(plane, np.float32) for plane in planes])

    def resize_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the share of each px of the picture that a mask of the window covers, 0 to 1."""
        resized = self._resize(mask.view(np.uint8) * np.uint8(255), Image.Resampling.BOX)
        return np.asarray(resized, np.float32) / np.float32(255)

    def _resize(self, plane: NDArray[np.uint8], method: Image.Resampling) -> Image.Image:
        """Resize columns, then rows: Pillow's own order depends on the sizes, thus on the bands."""
        (x0, y0, x1, y1), (width, height) = self.part, self.size
        image = Image.fromarray(plane)
        image = image.resize((width, image.height), method, (x0, 0, x1, image.height))
        return image.resize((width, height), method, (0, y0, width, y1))


def array_reader(array: xr.DataArray) -> Callable[[Box], NDArray[Any]]:
    """Return what reads a box of a lazy array, one chunk after the other to save memory."""

    def read(box: Box) -> NDArray[Any]:
        rows, columns = box.slices()
        part = array.data[..., rows, columns]
        return np.asarray(part.compute(scheduler="synchronous"))

    return read
