"""The pixels that a run predicts: tissue inside its regions.

All others are 0 as background is, and nothing is known about them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape
from wsi_unet.slides.tissue.mask import (
    TissueMask,
    find_cells,
    mask_digest,
    mask_in_box,
    mask_touches,
)

STRIP = 64
"""Rows that are looked up at once."""


@dataclass(frozen=True, eq=False)
class PredictedArea:
    """The pixels of a grid that lie in any of several boxes and in tissue.

    Attributes:
        shape: (rows, columns) of the grid, px.
        boxes: disjoint boxes inside the grid, px.
        mask: tissue, stretched over the grid; None takes all of the boxes.
    """

    shape: Shape
    boxes: tuple[Box, ...]
    mask: TissueMask | None = None

    @property
    def whole(self) -> bool:
        """Whether every pixel of the grid is predicted."""
        everywhere = self.mask is None or bool(self.mask.all())
        return everywhere and self.boxes == (Box.from_shape(self.shape),)

    def near(self, box: Box) -> PredictedArea:
        """Return the same pixels inside a box, by those boxes alone that meet it.

        Whoever looks at many parts of a box needn't compare each with all boxes of the area.
        """
        return replace(self, boxes=tuple(b for b in self.boxes if box.intersection(b).area))

    def touches(self, box: Box) -> bool:
        """Return whether a box inside the grid may contain a predicted pixel; quick."""
        shared = (box.intersection(own) for own in self.boxes)
        return any(
            part.area and (self.mask is None or mask_touches(self.mask, part, self.shape))
            for part in shared
        )

    def read(self, box: Box, level: int = 0) -> NDArray[np.bool_]:
        """Return which pixels (h, w) of a box are predicted.

        Args:
            box: px of the level, inside it.
            level: level of the grid's pyramid, 0 the finest. A pixel of a coarser level is
                predicted if any of its level-0 pixels is, so whatever has a class is.
        """
        predicted = np.zeros(box.shape, np.bool_)
        step = 1 << level
        for own in self.boxes:
            reduced = Box(own.y0 // step, own.x0 // step, -(-own.y1 // step), -(-own.x1 // step))
            part = box.intersection(reduced)
            if part.area:
                predicted[part.relative_to(box).slices()] |= self._read_part(own, part, step)
        return predicted

    def _read_part(self, own: Box, part: Box, step: int) -> NDArray[np.bool_] | np.bool_:
        """Return which pixels of `part`, px of a level that all touch `own`, contain tissue."""
        if self.mask is None:
            return np.True_
        if step == 1:
            return mask_in_box(self.mask, part, self.shape)
        (used_rows, rows), (used_columns, columns) = (
            _find_cell_ranges(pixels, step, ends, side, cells)
            for pixels, ends, side, cells in (
                ((part.y0, part.y1), (own.y0, own.y1), self.shape[0], self.mask.shape[0]),
                ((part.x0, part.x1), (own.x0, own.x1), self.shape[1], self.mask.shape[1]),
            )
        )
        # sums[i, j] counts the tissue in the first i rows and j columns of the cells.
        sums = np.zeros((len(used_rows) + 1, len(used_columns) + 1), np.int32)
        sums[1:, 1:] = self.mask[used_rows][:, used_columns].cumsum(0, np.int32).cumsum(1)
        found = np.empty(part.shape, np.bool_)
        for start in range(0, len(rows), STRIP):  # sums take four times as much memory as pixels
            strip = rows[start : start + STRIP]
            counts = sums[strip[:, 1]] - sums[strip[:, 0]]
            found[start : start + STRIP] = counts[:, columns[:, 1]] > counts[:, columns[:, 0]]
        return found


def is_mask_of(mask: TissueMask, tissue: str) -> bool:
    """Return whether a stored mask is the one that a run was planned with.

    Args:
        mask: the mask.
        tissue: how the run names its mask: "auto:" or "mask:" and the mask's hash.
    """
    return mask_digest(mask) == tissue.partition(":")[2]


def _find_cell_ranges(
    pixels: tuple[int, int], step: int, ends: tuple[int, int], side: int, cells: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the cells of a mask that rows, or columns, of a level lie on.

    Args:
        pixels: first and last + 1 of the rows, or columns, of the level.
        step: level-0 px per px of the level.
        ends: first and last + 1 of the level-0 rows, or columns, that count.
        side: number of level-0 rows, or columns.
        cells: number of rows, or columns, of the mask.

    Returns:
        The m cells that contain the centre of a level-0 pixel, ascending, and (n, 2) which of them
        each pixel of the level has, as first and last + 1.
    """
    start, stop = max(pixels[0] * step, ends[0]), min(pixels[1] * step, ends[1])
    used, position = np.unique(find_cells(np.arange(start, stop), side, cells), return_inverse=True)
    edges = np.clip(np.arange(pixels[0], pixels[1] + 1) * step, start, stop) - start
    return used, np.stack((position[edges[:-1]], position[edges[1:] - 1] + 1), axis=1)
