"""Where the tissue is: found on an overview, or given as a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape


def mask_in_box(mask: NDArray[np.bool_], box: Box, shape: Shape) -> NDArray[np.bool_]:
    """Return the part of a mask that covers a box, at the raster's resolution.

    Args:
        mask: (rows, columns) bool, stretched over a whole raster.
        box: px of that raster, inside it.
        shape: (rows, columns) of the raster, px.

    Returns:
        (h, w) bool of the box: each pixel takes the mask's cell that its centre lies in.
    """
    rows = _cells(box.y0, box.y1, shape[0], mask.shape[0])
    columns = _cells(box.x0, box.x1, shape[1], mask.shape[1])
    # Widened first, row by row after: gathering whole rows is a plain copy.
    wide = mask[rows[0] : rows[-1] + 1][:, columns] if len(rows) else mask[:0][:, columns]
    return wide[rows - rows[:1]]


def mask_touches(mask: NDArray[np.bool_], box: Box, shape: Shape) -> bool:
    """Whether any cell of the mask between a box's first and last pixel is tissue.

    Args:
        mask: (rows, columns) bool, stretched over a whole raster.
        box: px of that raster, inside it, not empty.
        shape: (rows, columns) of the raster, px.
    """
    rows = _cells(box.y0, box.y1, shape[0], mask.shape[0])
    columns = _cells(box.x0, box.x1, shape[1], mask.shape[1])
    return bool(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any())


def _cells(start: int, stop: int, side: int, cells: int) -> NDArray[np.intp]:
    """Return the mask's cell of each pixel [start, stop): floor of (i + 1/2)·cells/side."""
    return ((2 * np.arange(start, stop, dtype=np.intp) + 1) * cells) // (2 * side)
