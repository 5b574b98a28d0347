"""Objects as the connected parts of equal labels, found chunk by chunk.

Each chunk numbers its own parts; what touches across the seams is joined at the end. Two pixels
belong together if they share a side or a corner and have the same label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockIndex

CHUNK_BITS = 32
"""A part's number is that of its chunk shifted by this, plus its number in the chunk."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Numbers and labels of the pixels along a chunk's four sides.

    Attributes:
        numbers: top, bottom, left, right; 0 for no object.
        labels: the same.
    """

    numbers: tuple[NDArray[np.int64], ...]
    labels: tuple[NDArray[Any], ...]


def label_chunk(labels: NDArray[Any], number: int) -> tuple[NDArray[np.int64], Edges]:
    """Number the connected parts of a chunk.

    Args:
        labels: (h, w); 0 is no object.
        number: of the chunk, which all its parts' numbers tell.

    Returns:
        (h, w) numbers, 0 for no object, and what lies along the sides.
    """
    from skimage.measure import label

    parts = label(labels, background=0, connectivity=2)  # type: ignore[no-untyped-call]
    parts = parts.astype(np.int64)
    parts[parts > 0] += (number + 1) << CHUNK_BITS
    return parts, Edges(_sides(parts), _sides(labels))


def _sides(pixels: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return tuple(side.copy() for side in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


class Joined:
    """Which parts of different chunks are one object."""

    def __init__(self, pairs: Iterable[NDArray[np.int64]]) -> None:
        """Join parts that touch.

        Args:
            pairs: arrays (2, n) of parts that touch each other.
        """
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        touching = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
        self._known, place = np.unique(touching, return_inverse=True)
        first, second = place.reshape(2, -1)
        size = len(self._known)
        graph = coo_matrix((np.ones(len(first), np.bool_), (first, second)), (size, size))
        _, group = connected_components(graph, directed=False)
        lowest = np.full(size, np.iinfo(np.int64).max)
        np.minimum.at(lowest, group, self._known)
        self._object = lowest[group]

    @classmethod
    def of(cls, edges: dict[BlockIndex, Edges]) -> Joined:
        """Join the parts that touch across seams.

        Args:
            edges: of every chunk of a full grid, by (row, column).
        """
        return cls(_seams(edges))

    @classmethod
    def of_rows(cls, rows: Iterable[dict[BlockIndex, Edges]]) -> Joined:
        """Join the parts that touch across seams, of which few are held at a time.

        Args:
            rows: the edges of each row of a full grid of chunks, from top to bottom.
        """
        return cls(_seams_of_rows(rows))

    def objects(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the objects that parts with these numbers belong to."""
        if not len(self._known):
            return numbers
        place = np.minimum(np.searchsorted(self._known, numbers), len(self._known) - 1)
        result: NDArray[np.int64] = np.where(
            self._known[place] == numbers, self._object[place], numbers
        )
        return result


def _seams(edges: dict[BlockIndex, Edges]) -> Iterator[NDArray[np.int64]]:
    """Yield (2, n) pairs of parts that touch across each seam."""
    rows = 1 + max(i for i, _ in edges)
    columns = 1 + max(j for _, j in edges)
    return _seams_of_rows({(i, j): edges[i, j] for j in range(columns)} for i in range(rows))


def _seams_of_rows(rows: Iterable[dict[BlockIndex, Edges]]) -> Iterator[NDArray[np.int64]]:
    above: list[Edges] | None = None
    for row in rows:
        chunks = [row[index] for index in sorted(row)]
        for left, right in pairwise(chunks):
            yield _touching(left, right, 3, 2)
        if above is not None:
            yield _touching(_in_line(above, 1), _in_line(chunks, 0), 0, 0)
        above = chunks


def _in_line(chunks: list[Edges], side: int) -> Edges:
    """Return one side of a row of chunks in one piece, so that corners meet as well."""
    numbers = np.concatenate([chunk.numbers[side] for chunk in chunks])
    labels = np.concatenate([chunk.labels[side] for chunk in chunks])
    return Edges((numbers,), (labels,))


def _touching(one: Edges, other: Edges, side: int, other_side: int) -> NDArray[np.int64]:
    a, b = one.numbers[side], other.numbers[other_side]
    label_a, label_b = one.labels[side], other.labels[other_side]
    found = []
    for shift in (-1, 0, 1):
        here = slice(max(0, shift), len(a) + min(0, shift))
        there = slice(max(0, -shift), len(a) + min(0, -shift))
        same = (a[here] > 0) & (label_a[here] == label_b[there])
        found.append(np.stack([a[here][same], b[there][same]]))
    return np.unique(np.concatenate(found, axis=1), axis=1)
