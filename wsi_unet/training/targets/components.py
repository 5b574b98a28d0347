"""Objects where only classes are known: connected components of each class.

A component may be larger than any window, and whether two pieces in a window are connected may be
decided far outside it. So all of an image is labelled once, chunk by chunk, and components that
touch across seams are joined. Only this joining is remembered; a window labels the chunks that it
meets again. The result is that of labelling the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box, Shape
from wsi_unet.metrics.components import ChunkEdges, JoinedComponents, label_chunk

CHUNK = 512
"""Side of a chunk, px."""
AT_ONCE = 8
"""Chunks that are read together."""

ReadClasses = Callable[[Box], NDArray[np.uint8]]
"""Function that returns the classes in a box: a number above 0 for each class with objects, 0
elsewhere."""


@dataclass(frozen=True, eq=False)
class ConnectedComponents:
    """The connected components of an image; pixels that share a side or a corner are connected.

    Attributes:
        grid: the chunks.
        joined: which components of different chunks are connected.
    """

    grid: BlockGrid
    joined: JoinedComponents

    @classmethod
    def find(cls, read: ReadClasses, shape: Shape, chunk: int = CHUNK) -> ConnectedComponents:
        """Find the components of a whole image, chunk by chunk.

        Args:
            read: returns the classes in a box inside the image.
            shape: (rows, columns) of the image, px.
            chunk: side of a chunk, px.
        """
        grid = BlockGrid(shape, chunk)
        rows = range(grid.size[0])
        return cls(grid, JoinedComponents.from_rows(_edges_of_row(read, grid, row) for row in rows))

    def read(self, read: ReadClasses, box: Box) -> NDArray[np.int64]:
        """Return the components' numbers (h, w) in a box inside the image, 0 for none.

        Args:
            read: returns the same classes as when the components were found.
            box: box, px of the image.
        """
        result = np.zeros(box.shape, np.int64)
        indices = list(self.grid.touching(box))
        for index, core, classes in _chunks(read, self.grid, indices):
            common = core.intersection(box)
            numbers, _ = label_chunk(classes, _number(self.grid, index))
            result[common.relative_to(box).slices()] = numbers[common.relative_to(core).slices()]
        return self.joined.find_objects(result)


def _edges_of_row(read: ReadClasses, grid: BlockGrid, row: int) -> dict[BlockIndex, ChunkEdges]:
    """Return the components along the sides of each chunk in a row."""
    edges = {}
    for first in range(0, grid.size[1], AT_ONCE):
        indices = [(row, j) for j in range(first, min(first + AT_ONCE, grid.size[1]))]
        for index, _, classes in _chunks(read, grid, indices):
            edges[index] = label_chunk(classes, _number(grid, index))[1]
    return edges


def _chunks(
    read: ReadClasses, grid: BlockGrid, indices: Sequence[BlockIndex]
) -> Iterator[tuple[BlockIndex, Box, NDArray[np.uint8]]]:
    """Yield index, box and classes of chunks that form a rectangle and are read together."""
    whole = reduce(Box.union, (grid.core(index) for index in indices))
    classes = read(whole)
    for index in indices:
        core = grid.core(index)
        yield index, core, classes[core.relative_to(whole).slices()]


def _number(grid: BlockGrid, index: BlockIndex) -> int:
    return index[0] * grid.size[1] + index[1]
