"""Dense numbers of objects, 1 … n in order of identity, found row of blocks by row of blocks.

The identity of an object is its first pixel in raster order, so objects that begin in one row of
blocks come after all that begin above. How many those are is known from the markers of the parts;
the identities of a row are sorted when they are asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockIndex
from wsi_unet.objects.painting.stored import StoredObjects, StoredPart
from wsi_unet.process_cache import ProcessCache

CACHE_BYTES = 1 << 26
"""Bytes of sorted identities that are kept."""


class DenseNumbering:
    """The numbers of the objects of a label group; several threads may ask for them.

    Args:
        objects: the objects.

    Raises:
        OutputError: there are more than uint32 can count.
    """

    def __init__(self, objects: StoredObjects) -> None:
        self._objects = objects
        rows, _ = objects.grid.size
        self._counts = np.zeros(rows, np.int64)
        self._blocks: dict[int, list[BlockIndex]] = {}
        for block, marker in sorted(objects.markers.items()):
            for key, count in marker.reach.rows.items():
                self._counts[int(key)] += count
                self._blocks.setdefault(int(key), []).append(block)
        self._before = np.cumsum(self._counts) - self._counts
        self._sorted = ProcessCache[NDArray[np.uint64]](CACHE_BYTES)
        self.total = int(self._counts.sum())
        """Number of objects."""
        if self.total > np.iinfo(np.uint32).max:
            raise OutputError(
                f"{objects.store}: the {self.total} objects of {objects.label!r} are more than a "
                "label image can number; drop the small ones with `min_area`"
            )

    def number(self, part: StoredPart) -> NDArray[np.uint32]:
        """Return the numbers (n,) of the objects of a part.

        Raises:
            OutputError: a part that is needed for it isn't what was written.
        """
        numbers = np.empty(len(part.ids), np.uint32)
        for row, own in self._split(part.ids):
            ranks = np.searchsorted(self._sort(row), part.ids[own])
            numbers[own] = ranks + self._before[row] + 1
        return numbers

    def _split(self, ids: NDArray[np.uint64]) -> list[tuple[int, slice]]:
        """Return the rows of blocks in which objects begin, and which objects of a part those are.

        Args:
            ids: their identities, ascending.
        """
        grid = self._objects.grid
        rows = (ids // np.uint64(grid.side * grid.shape[1])).astype(np.int64)
        found, starts = np.unique(rows, return_index=True)
        stops = [*starts[1:].tolist(), len(ids)]
        parts = map(slice, starts.tolist(), stops)
        return list(zip(found.tolist(), parts, strict=True))

    def _sort(self, row: int) -> NDArray[np.uint64]:
        """Return the identities of all objects that begin in a row of blocks, ascending."""

        def sort() -> NDArray[np.uint64]:
            found = [np.zeros(0, np.uint64)]
            for block in self._blocks.get(row, ()):
                ids = self._objects.read_part(block).ids
                found += [ids[own] for other, own in self._split(ids) if other == row]
            ids = np.sort(np.concatenate(found))
            if len(ids) != self._counts[row]:
                raise OutputError(
                    f"{self._objects.store}: the markers of the objects of "
                    f"{self._objects.label!r} are damaged; find objects again with `object_labels`"
                )
            return ids

        return self._sorted.get(row, sort, 8 * int(self._counts[row]))
