"""Components that reach the faces of blocks.

A block says which of its components touch a face that it shares with another block, and in which
runs of pixels: all that joining them needs.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.metrics.components import CHUNK_BITS, ChunkEdges
from wsi_unet.objects.regions import label_components

BOTTOM = 1
"""The side at the bottom of a block, in the first column of `Faces.runs`."""


@dataclass(frozen=True, eq=False)
class Faces:
    """The k components of a block that touch faces it shares with other blocks.

    Attributes:
        numbers: (k,) their numbers in the block, ascending.
        values: (k,) label values.
        first: (k, 2) first pixels (y, x), px of the labels.
        boxes: (k, 4) bounding boxes of what lies in the block (y0, x0, y1, x1), px of the labels.
        runs: (r, 4) side (0 top, 1 bottom, 2 left, 3 right), start and stop along it from the
            block's corner, and which of the k components it is.
    """

    numbers: NDArray[np.int32]
    values: NDArray[np.uint8]
    first: NDArray[np.int64]
    boxes: NDArray[np.int64]
    runs: NDArray[np.int32]

    @classmethod
    def find(cls, labels: NDArray[np.uint8], grid: BlockGrid, index: BlockIndex) -> Faces:
        """Find them among the labels (h, w) of block `index`."""
        regions, core = label_components(labels), grid.core(index)
        (row, column), (rows, columns) = index, grid.size
        height, width = labels.shape
        sides = (
            (row > 0, regions.runs.draw_row(0)),
            (row + 1 < rows, regions.runs.draw_row(height - 1)),
            (column > 0, regions.runs.draw_column(0)),
            (column + 1 < columns, regions.runs.draw_column(width - 1)),
        )
        runs = [_find_runs(side, line) for side, (shared, line) in enumerate(sides) if shared]
        found = np.concatenate([*runs, np.zeros((0, 4), np.int32)])
        touching, positions = np.unique(found[:, 3], return_inverse=True)
        found[:, 3] = positions
        origin = np.array([core.y0, core.x0])
        return cls(
            numbers=touching,
            values=regions.values[touching - 1],
            first=regions.first[touching - 1] + origin,
            boxes=regions.boxes[touching - 1] + np.tile(origin, 2),
            runs=found,
        )

    def without(self, values: Collection[int]) -> Faces:
        """Return those of the components that have none of some label values."""
        kept = ~np.isin(self.values, list(values))
        runs = self.runs[kept[self.runs[:, 3]]]
        runs[:, 3] = (np.cumsum(kept) - 1)[runs[:, 3]]
        return Faces(
            self.numbers[kept], self.values[kept], self.first[kept], self.boxes[kept], runs
        )

    def to_edges(self, block: Box, number: int) -> ChunkEdges:
        """Return the pixels along the faces of a block with a number of its own."""
        lines, labels = [], []
        for side, length in enumerate((block.shape[1], block.shape[1], *(2 * block.shape[:1]))):
            runs = self.runs[self.runs[:, 0] == side]
            line, values = np.zeros(length, np.int64), np.zeros(length, np.uint8)
            for _, start, stop, which in runs.tolist():
                line[start:stop] = ((number + 1) << CHUNK_BITS) + int(self.numbers[which])
                values[start:stop] = self.values[which]
            lines.append(line)
            labels.append(values)
        return ChunkEdges(tuple(lines), tuple(labels))

    def to_bytes(self) -> bytes:
        """Return them as bytes, for `from_bytes`."""
        file = io.BytesIO()
        np.savez(file, **{each.name: getattr(self, each.name) for each in fields(self)})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, core: Box) -> Faces | None:
        """Return what `to_bytes` wrote of a block; None if it can't be that."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                found = cls(**{each.name: stored[each.name] for each in fields(cls)})
        except Exception:  # numpy may raise anything on a forged file
            return None
        return found if found._is_sound(core) else None

    def _is_sound(self, core: Box) -> bool:
        k = len(self.numbers)
        shapes: dict[str, tuple[tuple[int, ...], type[Any]]] = {
            "numbers": ((k,), np.int32),
            "values": ((k,), np.uint8),
            "first": ((k, 2), np.int64),
            "boxes": ((k, 4), np.int64),
            "runs": ((len(self.runs), 4), np.int32),
        }
        for name, (shape, kind) in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != kind:
                return False
        side, start, stop, which = self.runs.T
        longest = max(core.shape)
        return bool(
            ((side >= 0) & (side < 4) & (start >= 0) & (start < stop) & (stop <= longest)).all()
            and ((which >= 0) & (which < k)).all()
            and all(core.contains(Box(*box)) and Box(*box).area for box in self.boxes.tolist())
        )


NO_FACES = Faces(
    np.zeros(0, np.int32),
    np.zeros(0, np.uint8),
    np.zeros((0, 2), np.int64),
    np.zeros((0, 4), np.int64),
    np.zeros((0, 4), np.int32),
)


def _find_runs(side: int, line: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the runs (r, 4) of equal numbers above 0 along a side; the last column is theirs."""
    starts = np.flatnonzero(np.diff(line, prepend=-1))
    stops = np.append(starts[1:], len(line))
    own = line[starts] > 0
    runs = np.stack([np.full(len(starts), side), starts, stops, line[starts]], axis=1)
    return runs[own].astype(np.int32)
