"""Connected components of equal labels, found chunk by chunk.

Each chunk numbers its own components; those that touch across a seam are joined at the end. Two
pixels are connected if they share a side or a corner and have the same label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockIndex

CHUNK_BITS = 32
"""A component's number is its chunk's number shifted by this, plus its number in the chunk."""


@dataclass(frozen=True, eq=False)
class ChunkEdges:
    """Component numbers and labels of the pixels along a chunk's four sides.

    Attributes:
        numbers: component numbers along top, bottom, left and right; 0 for background.
        labels: labels along the same sides.
    """

    numbers: tuple[NDArray[np.int64], ...]
    labels: tuple[NDArray[Any], ...]


def label_chunk(labels: NDArray[Any], number: int) -> tuple[NDArray[np.int64], ChunkEdges]:
    """Number the connected components of a chunk.

    Args:
        labels: (h, w); 0 is background.
        number: the chunk's number, from which its components' numbers are made.

    Returns:
        (h, w) component numbers, 0 for background, and those along the chunk's sides.
    """
    from skimage.measure import label

    numbers = label(labels, background=0, connectivity=2)  # type: ignore[no-untyped-call]
    numbers = numbers.astype(np.int64)
    numbers[numbers > 0] += (number + 1) << CHUNK_BITS
    return numbers, ChunkEdges(_sides(numbers), _sides(labels))


def _sides(pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return tuple(side.copy() for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


class JoinedComponents:
    """Components of chunks, joined across the seams into objects."""

    def __init__(self, pairs: Iterable[NDArray[np.int64]]) -> None:
        """Join components that touch.

        Args:
            pairs: arrays (2, n) of numbers of components that touch each other.
        """
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        touching = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
        self._known, indices = np.unique(touching, return_inverse=True)
        first, second = indices.reshape(2, -1)
        size = len(self._known)
        graph = coo_matrix((np.ones(len(first), np.bool_), (first, second)), (size, size))
        _, group = connected_components(graph, directed=False)
        lowest = np.full(size, np.iinfo(np.int64).max)
        np.minimum.at(lowest, group, self._known)
        self._object = lowest[group]

    @classmethod
    def from_edges(cls, edges: dict[BlockIndex, ChunkEdges]) -> JoinedComponents:
        """Join the components that touch across seams.

        Args:
            edges: the edges of every chunk of a full grid, by (row, column).
        """
        return cls(_seams(edges))

    @classmethod
    def from_rows(cls, rows: Iterable[dict[BlockIndex, ChunkEdges]]) -> JoinedComponents:
        """Join the components that touch across seams, holding one row of edges at a time.

        Args:
            rows: the edges of each row of a full grid of chunks, from top to bottom.
        """
        return cls(_seams_of_rows(rows))

    def find_objects(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the objects that components with these numbers belong to."""
        if not len(self._known):
            return numbers
        index = np.minimum(np.searchsorted(self._known, numbers), len(self._known) - 1)
        result: NDArray[np.int64] = np.where(
            self._known[index] == numbers, self._object[index], numbers
        )
        return result


def _seams(edges: dict[BlockIndex, ChunkEdges]) -> Iterator[NDArray[np.int64]]:
    """Yield (2, n) pairs of components that touch across each seam."""
    rows = 1 + max(i for i, _ in edges)
    columns = 1 + max(j for _, j in edges)
    return _seams_of_rows({(i, j): edges[i, j] for j in range(columns)} for i in range(rows))


def _seams_of_rows(rows: Iterable[dict[BlockIndex, ChunkEdges]]) -> Iterator[NDArray[np.int64]]:
    above: dict[BlockIndex, ChunkEdges] = {}
    for row in rows:
        yield from find_touching_of_rows(above, row)
        above = row


def find_touching_of_rows(
    above: Mapping[BlockIndex, ChunkEdges], row: Mapping[BlockIndex, ChunkEdges]
) -> Iterator[NDArray[np.int64]]:
    """Yield (2, n) pairs of components that touch: in a row of chunks, and with the row above.

    Args:
        above: the edges of all chunks of the row above; none above the first.
        row: the edges of all chunks of the row.
    """
    chunks = [row[index] for index in sorted(row)]
    for left, right in pairwise(chunks):
        yield _find_touching(left, right, 3, 2)
    if above:
        upper = [above[index] for index in sorted(above)]
        yield _find_touching(_concatenate_sides(upper, 1), _concatenate_sides(chunks, 0), 0, 0)


def _concatenate_sides(chunks: list[ChunkEdges], side: int) -> ChunkEdges:
    """Return one side of a row of chunks in one piece, so that corners meet as well."""
    numbers = np.concatenate([chunk.numbers[side] for chunk in chunks])
    labels = np.concatenate([chunk.labels[side] for chunk in chunks])
    return ChunkEdges((numbers,), (labels,))


def _find_touching(
    one: ChunkEdges, other: ChunkEdges, side: int, other_side: int
) -> NDArray[np.int64]:
    a, b = one.numbers[side], other.numbers[other_side]
    label_a, label_b = one.labels[side], other.labels[other_side]
    pairs = []
    for shift in (-1, 0, 1):  # corners touch, too
        in_a = slice(max(0, shift), len(a) + min(0, shift))
        in_b = slice(max(0, -shift), len(a) + min(0, -shift))
        same = (a[in_a] > 0) & (label_a[in_a] == label_b[in_b])
        pairs.append(np.stack([a[in_a][same], b[in_b][same]]))
    return np.unique(np.concatenate(pairs, axis=1), axis=1)
