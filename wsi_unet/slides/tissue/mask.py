"""Tissue masks: small rasters of cells that are stretched over a whole slide.

A pixel belongs to the tissue if the cell that its centre lies in does.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape

TissueMask = NDArray[np.bool_]
"""(rows, columns) of cells, stretched over a whole slide; True is tissue."""


def mask_digest(mask: TissueMask) -> str:
    """Return a hash of a mask's size and cells, hexadecimal."""
    return hashlib.sha256(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()


def mask_in_box(mask: TissueMask, box: Box, shape: Shape) -> NDArray[np.bool_]:
    """Return the part of a mask that covers a box, at the raster's resolution.

    Args:
        mask: stretched over the whole raster.
        box: px of that raster, inside it.
        shape: (rows, columns) of the raster, px.

    Returns:
        (h, w) bool of the box: each pixel takes the mask's cell that its centre lies in.
    """
    if not box.area:
        return np.zeros(box.shape, np.bool_)
    rows = _cells(box.y0, box.y1, shape[0], mask.shape[0])
    columns = _cells(box.x0, box.x1, shape[1], mask.shape[1])
    # Columns first, then rows: gathering whole rows is a plain copy.
    wide = mask[rows[0] : rows[-1] + 1][:, columns]
    result: NDArray[np.bool_] = wide[rows - rows[0]]
    return result


def mask_touches(mask: TissueMask, box: Box, shape: Shape) -> bool:
    """Return whether any cell of a mask from a box's first pixel to its last is tissue.

    Args:
        mask: stretched over the whole raster.
        box: px of that raster, inside it.
        shape: (rows, columns) of the raster, px.
    """
    if not box.area:
        return False
    rows = _cells(box.y0, box.y1, shape[0], mask.shape[0])
    columns = _cells(box.x0, box.x1, shape[1], mask.shape[1])
    return bool(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any())


def find_cells(pixels: NDArray[np.intp], side: int, cells: int) -> NDArray[np.intp]:
    """Return the mask's cell that each pixel's centre lies in: floor of (i + 1/2)·cells/side.

    Args:
        pixels: rows, or columns, of a raster.
        side: number of rows, or columns, of the raster.
        cells: number of rows, or columns, of the mask.
    """
    return ((2 * pixels + 1) * cells) // (2 * side)


def _cells(start: int, stop: int, side: int, cells: int) -> NDArray[np.intp]:
    return find_cells(np.arange(start, stop, dtype=np.intp), side, cells)
