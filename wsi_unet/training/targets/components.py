"""Which object a pixel belongs to where only classes are known: the connected parts of a class.

A part may be larger than any window: whether two pieces of a window are one object may be decided
far outside of it. So an image is cut into chunks once, the parts of each are found, and what
touches across the seams is joined. What is remembered is only which parts of different chunks are
one; a window finds the parts of the chunks that it meets anew. The result is that of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box, Shape
from wsi_unet.metrics.components import Edges, Joined, label_chunk

CHUNK = 512
"""px: side of a chunk."""
AT_ONCE = 8
"""Chunks that are read in one go."""

ReadClasses = Callable[[Box], NDArray[np.uint8]]
"""Returns, for a box, a number above 0 for each class that has objects and 0 elsewhere."""


@dataclass(frozen=True, eq=False)
class ConnectedComponents:
    """The connected parts of an image; pixels that share a side or a corner are connected.

    Attributes:
        grid: the chunks.
        joined: which parts of different chunks are one.
    """

    grid: BlockGrid
    joined: Joined

    @classmethod
    def find(cls, read: ReadClasses, shape: Shape, chunk: int = CHUNK) -> ConnectedComponents:
        """Look at all of an image, chunk by chunk.

        Args:
            read: the classes of a box inside the image.
            shape: (rows, columns) of the image, px.
            chunk: side of a chunk, px.
        """
        grid = BlockGrid(shape, chunk)
        rows = range(grid.size[0])
        return cls(grid, Joined.of_rows(_edges_of_row(read, grid, row) for row in rows))

    def read(self, read: ReadClasses, box: Box) -> NDArray[np.int64]:
        """Return the objects' numbers (h, w) in a box inside the image, 0 for none.

        Args:
            read: as it was when the parts were found.
            box: px of the image.
        """
        result = np.zeros(box.shape, np.int64)
        indices = list(self.grid.touching(box))
        for index, core, classes in _chunks(read, self.grid, indices):
            common = core.intersection(box)
            parts, _ = label_chunk(classes, _number(self.grid, index))
            result[common.relative_to(box).slices()] = parts[common.relative_to(core).slices()]
        return self.joined.objects(result)


def _edges_of_row(read: ReadClasses, grid: BlockGrid, row: int) -> dict[BlockIndex, Edges]:
    """Find the parts of a row of chunks and return what lies along their sides."""
    edges = {}
    for first in range(0, grid.size[1], AT_ONCE):
        indices = [(row, j) for j in range(first, min(first + AT_ONCE, grid.size[1]))]
        for index, _, classes in _chunks(read, grid, indices):
            edges[index] = label_chunk(classes, _number(grid, index))[1]
    return edges


def _chunks(
    read: ReadClasses, grid: BlockGrid, indices: Sequence[BlockIndex]
) -> Iterator[tuple[BlockIndex, Box, NDArray[np.uint8]]]:
    """Yield index, box and classes of chunks that form a rectangle, and are read in one go."""
    whole = reduce(Box.union, (grid.core(index) for index in indices))
    classes = read(whole)
    for index in indices:
        core = grid.core(index)
        yield index, core, classes[core.relative_to(whole).slices()]


def _number(grid: BlockGrid, index: BlockIndex) -> int:
    return index[0] * grid.size[1] + index[1]
