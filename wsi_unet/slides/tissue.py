"""Where the tissue is: found on an overview of the slide, or given as a mask.

A mask is a small raster of cells, stretched over the slide's extent; a pixel belongs to tissue
if the cell that its centre lies in does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape
from wsi_unet.slides.resample import choose_sampling, open_raster
from wsi_unet.slides.slide import Slide

CELL = 32
"""Level-0 px per cell: 8 µm at 40x, 16 µm at 20x."""
MOST_CELLS = 4096
FEWEST_CELLS = 256
"""Cells along the longer side of a mask; small slides get smaller cells."""

DARK = 60
BRIGHT = 170
"""Grey levels: fluorescence has its background below the first, empty glass lies above the second."""
LEAST_STAIN, MOST_STAIN = 12, 28
"""Bounds of the threshold on the difference from glass, grey levels: above noise, below tissue."""
LEAST_GLOW, MOST_GLOW = 6, 24
"""Bounds of the threshold on fluorescence above its background, grey levels."""
SMOOTHING = 1.5
MARGIN = 3
SPECK = 24
HOLE = 64
"""Cells: Gaussian sigma, safety margin, and the areas of what is dropped and filled."""


def find_tissue(slide: Slide) -> NDArray[np.bool_]:
    """Find the tissue of a slide, generously.

    On an overview of fixed cells, tissue is what differs enough from the background: from the
    colour of empty glass, or, on fluorescence slides, from black. The threshold is Otsu's,
    kept within bounds so that a slide of nothing but glass stays empty and one of nothing but
    tissue stays full. Specks are dropped, holes filled, and a margin of three cells is added.

    Args:
        slide: the slide; its overview is read (from the coarsest adequate level).

    Returns:
        (rows, columns) bool, stretched over the slide: cells of 32 level-0 px, larger where
        the slide has more than 4096 of them and smaller where it has fewer than 256 along its
        longer side. The same for the same slide, always.

    Raises:
        SlideError: the slide can't be read.
    """
    from scipy import ndimage

    overview = _read_overview(slide)
    difference = _difference(overview)
    smooth = ndimage.gaussian_filter(difference, SMOOTHING, mode="nearest")
    least, most = (LEAST_GLOW, MOST_GLOW) if _is_dark(overview) else (LEAST_STAIN, MOST_STAIN)
    found = smooth > min(max(_otsu(smooth), least), most)
    return _tidy(found)


def _read_overview(slide: Slide) -> NDArray[np.uint8]:
    """Return the slide as RGB cells."""
    longer = max(slide.shape)
    cell = max(CELL, -(-longer // MOST_CELLS))
    cell = max(1, min(cell, longer // FEWEST_CELLS))
    raster = open_raster(slide, choose_sampling(slide, (cell, cell), tolerance=0.0))
    return raster.read(Box.of_shape(raster.shape))


def _is_dark(overview: NDArray[np.uint8]) -> bool:
    """Whether the background is dark: mostly black, and nothing as bright as glass."""
    brightness = overview.max(axis=2)
    return bool(np.mean(brightness < DARK) > 0.3 and np.mean(brightness > BRIGHT) < 0.05)


def _difference(overview: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how far each cell is from the background, in grey levels (h, w)."""
    values = overview.astype(np.float32)
    if _is_dark(overview):
        brightest = values.max(axis=2)
        return brightest - np.percentile(brightest, 10).astype(np.float32)
    # Glass is what is brightest; where nothing is bright there is no glass, and white stands in.
    glass = np.percentile(values.reshape(-1, 3), 98, axis=0).astype(np.float32)
    if glass.min() < BRIGHT:
        glass = np.full(3, 240, np.float32)
    darker = np.clip(glass - values, 0, None)
    # Stain absorbs some colours more than others; shadows and dust absorb all alike.
    coloured = darker.max(axis=2) - darker.min(axis=2)
    difference = (darker.mean(axis=2) + 2 * coloured) / 2
    # Scanners leave black what they didn't scan.
    difference[overview.max(axis=2) < 8] = 0
    return difference


def _otsu(values: NDArray[np.float32]) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values)) if values.max() > values.min() else float(values.max())


def _tidy(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop specks, fill small holes, add the margin."""
    from scipy import ndimage

    found = _without_small(found, SPECK)
    found = ~_without_small(~found, HOLE)
    distance = ndimage.distance_transform_edt(~found) if found.any() else np.ones(found.shape)
    result: NDArray[np.bool_] = distance <= MARGIN if found.any() else found
    return result


def _without_small(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Return the mask without its 8-connected parts of fewer than `least` cells."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    large = np.bincount(parts.ravel()) >= least
    large[0] = False
    kept: NDArray[np.bool_] = large[parts]
    return kept


def load_mask(path: str | Path, slide: Slide) -> NDArray[np.bool_]:
    """Load a mask that somebody made.

    Args:
        path: a PNG or TIFF raster that covers the slide's extent (non-zero is tissue), or
            GeoJSON with polygons in level-0 px.
        slide: the slide that it belongs to.

    Returns:
        (rows, columns) bool, stretched over the slide.

    Raises:
        MaskError: it can't be read, holds no polygon, or lies beside the slide.
    """
    from wsi_unet.slides.masks import read_mask

    return read_mask(Path(path), slide.shape)


def mask_in_box(mask: NDArray[np.bool_], box: Box, shape: Shape) -> NDArray[np.bool_]:
    """Return the part of a mask that covers a box, at the raster's resolution.

    Args:
        mask: (rows, columns) bool, stretched over a whole raster.
        box: px of that raster, inside it.
        shape: (rows, columns) of the raster, px.

    Returns:
        (h, w) bool of the box: each pixel takes the mask's cell that its centre lies in.
    """
    if not box.area:
        return np.zeros(box.shape, np.bool_)
    rows = _cells(box.y0, box.y1, shape[0], mask.shape[0])
    columns = _cells(box.x0, box.x1, shape[1], mask.shape[1])
    # Widened first, row by row after: gathering whole rows is a plain copy.
    wide = mask[rows[0] : rows[-1] + 1][:, columns]
    return wide[rows - rows[0]]


def mask_touches(mask: NDArray[np.bool_], box: Box, shape: Shape) -> bool:
    """Whether any cell of the mask between a box's first and last pixel is tissue.

    Args:
        mask: (rows, columns) bool, stretched over a whole raster.
        box: px of that raster, inside it.
        shape: (rows, columns) of the raster, px.
    """
    if not box.area:
        return False
    rows = _cells(box.y0, box.y1, shape[0], mask.shape[0])
    columns = _cells(box.x0, box.x1, shape[1], mask.shape[1])
    return bool(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any())


def _cells(start: int, stop: int, side: int, cells: int) -> NDArray[np.intp]:
    """Return the mask's cell of each pixel [start, stop): floor of (i + 1/2)·cells/side."""
    return ((2 * np.arange(start, stop, dtype=np.intp) + 1) * cells) // (2 * side)
