"""Integer geometry: boxes, the border of a network, the grid of blocks. No I/O, no torch.

Coordinates are (y, x) pixels of one raster (a slide level, or the slide resampled to the
model's pixel size), origin at the top left, boxes half open. They may lie beyond the raster's
edge: a window does, wherever its core touches the edge of the slide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]
"""(rows, columns)."""

Edge = Literal["mirror", "clip", "cut"]
"""How a window continues beyond the slide's edge; see `Border`."""

BlockIndex = tuple[int, int]
"""(row, column) of a block in its grid."""


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """The pixels with y0 <= y < y1 and x0 <= x < x1.

    >>> Box(0, 0, 4, 6).shape
    (4, 6)
    """

    y0: int
    x0: int
    y1: int
    x1: int

    def __str__(self) -> str:
        """Return how messages name it.

        >>> str(Box(0, 10, 4, 60))
        'the box of columns 10 to 60 and rows 0 to 4'
        """
        return f"the box of columns {self.x0} to {self.x1} and rows {self.y0} to {self.y1}"

    @classmethod
    def from_shape(cls, shape: Shape) -> Box:
        """Return the box that covers a whole raster of `shape`."""
        return cls(0, 0, shape[0], shape[1])

    @property
    def shape(self) -> Shape:
        """(rows, columns); a side of an empty box is 0, never negative."""
        return max(0, self.y1 - self.y0), max(0, self.x1 - self.x0)

    @property
    def area(self) -> int:
        """Number of pixels."""
        rows, columns = self.shape
        return rows * columns

    def shift(self, dy: int, dx: int) -> Box:
        """Return this box moved by (dy, dx)."""
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def grow(self, before: int, after: int) -> Box:
        """Return this box with `before` px more at top and left, `after` at bottom and right."""
        return Box(self.y0 - before, self.x0 - before, self.y1 + after, self.x1 + after)

    def intersection(self, other: Box) -> Box:
        """Return the box that both cover (an empty one where there is none)."""
        return Box(
            max(self.y0, other.y0),
            max(self.x0, other.x0),
            min(self.y1, other.y1),
            min(self.x1, other.x1),
        )

    def contains(self, other: Box) -> bool:
        """Return whether every pixel of `other` is in this box."""
        return other.area == 0 or self.intersection(other) == other

    def union(self, other: Box) -> Box:
        """Return the smallest box that covers both."""
        return Box(
            min(self.y0, other.y0),
            min(self.x0, other.x0),
            max(self.y1, other.y1),
            max(self.x1, other.x1),
        )

    def relative_to(self, other: Box) -> Box:
        """Return this box in the frame whose origin is the top left of `other`."""
        return self.shift(-other.y0, -other.x0)

    def slices(self) -> tuple[slice, slice]:
        """Return the numpy index of this box; the box must not reach below 0.

        Raises:
            ValueError: the box begins above or left of the array it would index.
        """
        if self.y0 < 0 or self.x0 < 0:
            raise ValueError(f"{self} begins before the array; shift it into the array's frame")
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def tiles(self, side: int) -> Iterator[Box]:
        """Yield boxes of `side` x `side` px that cover this one, row by row, clipped to it."""
        for y in range(self.y0, self.y1, side):
            for x in range(self.x0, self.x1, side):
                yield Box(y, x, min(y + side, self.y1), min(x + side, self.x1))


def find_pixels(box: Box, downsample: tuple[float, float]) -> Box:
    """Return the pixels of another grid whose centres lie in a box of level 0.

    Pixel i of a grid with downsample f has its centre at (i + 1/2)·f. A centre on the box's top or
    left edge is inside, one on its bottom or right edge isn't; so boxes that share an edge never
    share a pixel, and none is lost between them.

    >>> find_pixels(Box(1, 2, 7, 9), (2.0, 4.0))
    Box(y0=0, x0=0, y1=3, x1=2)

    Args:
        box: px of level 0.
        downsample: (y, x) level-0 px per px of the grid.
    """

    def first(edge: int, factor: float) -> int:
        return math.ceil(Fraction(edge) / Fraction(factor) - Fraction(1, 2))

    fy, fx = downsample
    return Box(first(box.y0, fy), first(box.x0, fx), first(box.y1, fy), first(box.x1, fx))


def merge_boxes(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """Return disjoint boxes that cover the same pixels; equal areas give equal boxes.

    >>> merge_boxes([Box(0, 0, 2, 2), Box(0, 2, 2, 4), Box(1, 1, 2, 3)])
    (Box(y0=0, x0=0, y1=2, x1=4),)
    """
    filled = [box for box in boxes if box.area]
    bands: list[tuple[int, int, list[tuple[int, int]]]] = []  # y0, y1, [(x0, x1)]
    for y0, y1 in pairwise(sorted({y for box in filled for y in (box.y0, box.y1)})):
        spans = _merge_spans((b.x0, b.x1) for b in filled if b.y0 <= y0 and y1 <= b.y1)
        if bands and bands[-1][1:] == (y0, spans):
            bands[-1] = bands[-1][0], y1, spans
        else:
            bands.append((y0, y1, spans))
    return tuple(Box(y0, x0, y1, x1) for y0, y1, spans in bands for x0, x1 in spans)


def _merge_spans(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


@dataclass(frozen=True, slots=True)
class Border:
    """The context a network needs around a core, and where its tiles may start.

    Attributes:
        before: rows and columns of context that a window has above and left of its core, px.
        after: rows and columns of context below and right of it, px.
        shrink: by how much the output is smaller than the input on each side, px (0 for same
            padding).
        period: cores start at multiples of this and are multiples of it long, px.
        edge: at the slide's edge a window is continued by mirroring ("mirror"), or ends at the
            slide's side rounded up to the period ("clip") or just there ("cut").
        tile: side of the only core there is, px; None where any multiple of the period is one.
    """

    before: int
    after: int
    shrink: int
    period: int
    edge: Edge
    tile: int | None = None

    def __post_init__(self) -> None:
        if self.period < 1 or min(self.before, self.after, self.shrink) < 0:
            raise ValueError(f"not a border: {self}")
        if self.edge != "mirror" and (self.shrink or self.before % self.period):
            raise ValueError(f"a clipped window must stay aligned to the period: {self}")
        if self.tile is not None and (self.tile % self.period or self.edge != "mirror"):
            raise ValueError(f"windows of one size can't be clipped, nor leave the grid: {self}")

    def core(self, box: Box) -> Box:
        """Return `box` with its sides rounded up to the period: what the network can compute.

        They are rounded up to the tile where there is only one. Where windows are cut at the
        slide's edge, a box that ends there stays as it is.

        Raises:
            ValueError: the box doesn't start at a multiple of the period.
        """
        if box.y0 % self.period or box.x0 % self.period:
            raise ValueError(
                f"core origin ({box.y0}, {box.x0}) is not a multiple of the period {self.period}"
            )
        if self.edge == "cut":
            return box
        rows, columns = (round_up(side, self.tile or self.period) for side in box.shape)
        return Box(box.y0, box.x0, box.y0 + rows, box.x0 + columns)

    def full_shape(self, shape: Shape) -> Shape:
        """Return the (rows, columns) at which windows that aren't mirrored end, px.

        Args:
            shape: (rows, columns) of the raster, px.
        """
        if self.edge != "clip":
            return shape
        return round_up(shape[0], self.period), round_up(shape[1], self.period)

    def window(self, core: Box, shape: Shape) -> Box:
        """Return the input that the network needs to compute `core`.

        Args:
            core: an aligned core (see `core`), px.
            shape: (rows, columns) of the whole raster. Clipping happens at the raster's sides
                rounded up to the period, for networks that can't see less.
        """
        window = core.grow(self.before, self.after)
        if self.edge == "mirror":
            return window
        return window.intersection(Box.from_shape(self.full_shape(shape)))

    def core_in_output(self, core: Box, window: Box) -> Box:
        """Return where `core` lies in the network's output for `window`, in that output's frame."""
        return core.shift(-window.y0 - self.shrink, -window.x0 - self.shrink)


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The blocks of a raster: one unit of work and one shard each.

    Attributes:
        shape: (rows, columns) of the raster, px.
        side: side of a block, px; the last row and column of blocks may be smaller.
    """

    shape: Shape
    side: int

    def __post_init__(self) -> None:
        if min(*self.shape, self.side) < 1:
            raise ValueError(f"an empty grid: {self}")

    @property
    def size(self) -> Shape:
        """Number of blocks as (rows, columns)."""
        rows, columns = self.shape
        return -(-rows // self.side), -(-columns // self.side)

    def __len__(self) -> int:
        rows, columns = self.size
        return rows * columns

    def __iter__(self) -> Iterator[BlockIndex]:
        rows, columns = self.size
        return ((i, j) for i in range(rows) for j in range(columns))

    def core(self, index: BlockIndex) -> Box:
        """Return the pixels that block `index` is responsible for, clipped to the raster.

        Raises:
            IndexError: there is no such block.
        """
        i, j = index
        rows, columns = self.size
        if not (0 <= i < rows and 0 <= j < columns):
            raise IndexError(f"no block {index} in a grid of {rows} x {columns} blocks")
        y, x = i * self.side, j * self.side
        whole = Box(y, x, y + self.side, x + self.side)
        return whole.intersection(Box.from_shape(self.shape))

    def touching(self, box: Box) -> Iterator[BlockIndex]:
        """Yield the blocks that share pixels with `box`."""
        inside = box.intersection(Box.from_shape(self.shape))
        if not inside.area:
            return
        for i in range(inside.y0 // self.side, -(-inside.y1 // self.side)):
            for j in range(inside.x0 // self.side, -(-inside.x1 // self.side)):
                yield i, j


def reflect(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return the positions inside [0, size) that [start, stop) mirrors to.

    The edge pixel isn't repeated, and mirroring goes on without end: numpy's `reflect` padding,
    which is what the U-Net paper does at the image's edge (Ronneberger et al. 2015, figure 2).

    >>> reflect(-3, 5, 3).tolist()
    [1, 2, 1, 0, 1, 2, 1, 0]
    """
    if size == 1:
        return np.zeros(max(0, stop - start), dtype=np.intp)
    phase = np.arange(start, stop, dtype=np.intp) % (2 * size - 2)
    return np.minimum(phase, 2 * size - 2 - phase)
