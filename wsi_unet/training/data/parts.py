"""Which object a pixel belongs to where only classes are known: the connected parts of a class.

A part may be larger than any window: whether two pieces of a window are one object may be decided
far outside of it. So an image is cut into chunks once, the parts of each are found, and what
touches across the seams is joined. What is remembered is only which parts of different chunks are
one; a window finds the parts of the chunks that it meets anew. The result is that of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, Box, Shape
from wsi_unet.metrics.components import Joined, label_chunk

CHUNK = 512
"""px: side of a chunk."""

ReadClasses = Callable[[Box], NDArray[np.uint8]]
"""Returns, for a box, a number above 0 for each class that has objects and 0 elsewhere."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The connected parts of an image; pixels that share a side or a corner are connected.

    Attributes:
        grid: the chunks.
        joined: which parts of different chunks are one.
    """

    grid: BlockGrid
    joined: Joined

    @classmethod
    def find(cls, read: ReadClasses, shape: Shape, chunk: int = CHUNK) -> Parts:
        """Look at all of an image, chunk by chunk.

        Args:
            read: the classes of a box inside the image.
            shape: (rows, columns) of the image, px.
            chunk: side of a chunk, px.
        """
        grid = BlockGrid(shape, chunk)
        number = _numbering(grid)
        edges = (
            {
                (i, j): label_chunk(read(grid.core((i, j))), number(i, j))[1]
                for j in range(grid.size[1])
            }
            for i in range(grid.size[0])
        )
        return cls(grid, Joined.of_rows(edges))

    def read(self, read: ReadClasses, box: Box) -> NDArray[np.int64]:
        """Return the objects' numbers (h, w) in a box inside the image, 0 for none.

        Args:
            read: as it was when the parts were found.
            box: px of the image.
        """
        number = _numbering(self.grid)
        result = np.zeros(box.shape, np.int64)
        for index in self.grid.touching(box):
            core = self.grid.core(index)
            common = core.intersection(box)
            parts, _ = label_chunk(read(core), number(*index))
            result[common.relative_to(box).slices()] = parts[common.relative_to(core).slices()]
        return self.joined.objects(result)


def _numbering(grid: BlockGrid) -> Callable[[int, int], int]:
    across = grid.size[1]
    return lambda i, j: i * across + j
