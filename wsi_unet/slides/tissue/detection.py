"""Finding the tissue of a slide on a small overview of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box, Shape
from wsi_unet.slides.levels import PixelSize, check_mpp
from wsi_unet.slides.slide import Slide
from wsi_unet.slides.tissue.appearance import Appearance, measure_appearance
from wsi_unet.slides.tissue.mask import TissueMask, mask_in_box
from wsi_unet.slides.tissue.overview import read_overview

CELL_SIDE = 32
"""Level-0 px per side of a cell: 8 µm at 40x, 16 µm at 20x."""
MOST_CELLS = 4096
FEWEST_CELLS = 256
"""Cells along the longer side of a mask; small slides get smaller cells."""

DARK = 60
BRIGHT = 170
"""Grey levels: dark backgrounds lie below the first, empty glass above the second."""
STAIN_BOUNDS = (10.0, 20.0)
GLOW_BOUNDS = (6.0, 20.0)
"""Bounds of the threshold on the difference from glass or from black, grey levels: above the
noise of an empty slide, below the palest tissue."""
STAIN_SIGMA = 16.0
GLOW_SIGMA = 24.0
"""Gaussian smoothing, µm; between stained nuclei fluorescence leaves wider gaps."""
MARGIN = 48.0
"""Tissue is widened by this, µm, to be on the safe side."""
SPECK = 40.0
HOLE = 250.0
"""Sides of squares, µm: specks smaller than the first are dropped, holes smaller than the second
filled."""
USUAL_MPP = 0.5
"""µm per level-0 px where the slide doesn't say, or says something absurd."""


def find_tissue(slide: Slide) -> TissueMask:
    """Find the tissue of a slide, generously.

    On an overview of fixed cells, tissue is what differs enough from the background: from the
    colour of empty glass, or, on fluorescence slides, from black. The threshold is Otsu's,
    kept within bounds so that a slide of nothing but glass stays empty and one of nothing but
    tissue stays full. Specks are dropped, holes filled, and a margin of 48 µm is added.

    Args:
        slide: the slide; its overview is read (from the coarsest adequate level).

    Returns:
        (rows, columns) bool, stretched over the slide: cells of 32 level-0 px, larger where
        the slide has more than 4096 of them along its longer side, smaller where it has fewer
        than 256. Always the same for the same slide.

    Raises:
        SlideError: the slide can't be read.
    """
    return survey_tissue(slide).mask


@dataclass(frozen=True, eq=False)
class TissueSurvey:
    """The tissue of a slide.

    Attributes:
        mask: where it is; see `find_tissue`.
        appearance: what it looks like; None if there is next to none.
    """

    mask: TissueMask
    appearance: Appearance | None


def survey_tissue(slide: Slide) -> TissueSurvey:
    """Find the tissue of a slide and look at it, reading its overview once.

    Raises:
        SlideError: the slide can't be read.
    """
    cell = cell_side(slide.shape)
    overview = read_overview(slide, cell)
    mask = _find_tissue(overview, cell * _usable_mpp(slide.mpp))
    return TissueSurvey(mask, measure_appearance(overview[mask]))


def look_at_tissue(slide: Slide, mask: TissueMask | None) -> Appearance | None:
    """Return what the tissue of a slide looks like; None if there is next to none.

    Args:
        slide: the slide; its overview is read.
        mask: tissue, stretched over the slide; None takes everything for tissue.

    Raises:
        SlideError: the slide can't be read.
    """
    overview = read_overview(slide, cell_side(slide.shape))
    if mask is None:
        return measure_appearance(overview.reshape(-1, 3))
    inside = mask_in_box(mask, Box.from_shape(overview.shape[:2]), overview.shape[:2])
    return measure_appearance(overview[inside])


def _find_tissue(overview: NDArray[np.uint8], micrometres: float) -> TissueMask:
    """Return where tissue is on an overview whose pixels have that many µm a side."""
    from scipy import ndimage

    dark = _is_dark(overview)
    difference = _measure_glow(overview) if dark else _measure_stain(overview)
    sigma, (least, most) = (GLOW_SIGMA, GLOW_BOUNDS) if dark else (STAIN_SIGMA, STAIN_BOUNDS)
    smooth = ndimage.gaussian_filter(difference, max(0.7, sigma / micrometres), mode="nearest")
    return _tidy(smooth > min(max(_otsu(smooth), least), most), micrometres)


def cell_side(shape: Shape) -> int:
    """Return the side of a cell of `find_tissue`, level-0 px, for a slide of `shape` px."""
    longer = max(shape)
    cell = max(CELL_SIDE, -(-longer // MOST_CELLS))
    return max(1, min(cell, longer // FEWEST_CELLS))


def _usable_mpp(mpp: PixelSize | None) -> float:
    """Return the mean of both sides in µm, or `USUAL_MPP` where there is none to rely on."""
    if mpp is None:
        return USUAL_MPP
    try:
        check_mpp(mpp)
    except SlideError:
        return USUAL_MPP
    return (mpp.y + mpp.x) / 2


def _is_dark(overview: NDArray[np.uint8]) -> bool:
    """Return whether the background is dark: mostly black, and nothing as bright as glass."""
    brightness = overview.max(axis=2)
    return bool(np.mean(brightness < DARK) > 0.3 and np.mean(brightness > BRIGHT) < 0.05)


def _measure_glow(overview: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how much each cell glows above the dark background, grey levels (h, w)."""
    brightest = overview.max(axis=2).astype(np.float32)
    glow: NDArray[np.float32] = brightest - np.float32(np.percentile(brightest, 10))
    return glow


def _measure_stain(overview: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how much each cell differs from empty glass, grey levels (h, w)."""
    values = overview.astype(np.float32)
    # Glass is what is brightest; where nothing is bright there is no glass, so white is taken.
    glass = np.percentile(values.reshape(-1, 3), 98, axis=0).astype(np.float32)
    if glass.min() < BRIGHT:
        glass = np.full(3, 240, np.float32)
    darker = np.clip(glass - values, 0, None)
    # Stain absorbs some colours more than others; shadows and dust absorb all alike.
    coloured = darker.max(axis=2) - darker.min(axis=2)
    difference: NDArray[np.float32] = darker.mean(axis=2) / 2 + coloured
    # Scanners leave black what they didn't scan.
    difference[overview.max(axis=2) < 8] = 0
    return difference


def _otsu(values: NDArray[np.float32]) -> float:
    from skimage.filters import threshold_otsu

    if values.min() == values.max():
        return float(values.max())
    return float(threshold_otsu(values))  # type: ignore[no-untyped-call]


def _tidy(mask: TissueMask, cell: float) -> TissueMask:
    """Drop specks, fill small holes and add the margin; cells have `cell` µm per side."""
    from scipy import ndimage

    mask = _drop_small(mask, max(4, (SPECK / cell) ** 2))
    mask = ~_drop_small(~mask, max(4, (HOLE / cell) ** 2))
    if not mask.any():
        return mask
    distance = ndimage.distance_transform_edt(~mask)
    widened: TissueMask = distance <= max(1.5, MARGIN / cell)
    return widened


def _drop_small(mask: TissueMask, least: float) -> TissueMask:
    """Return the mask without its 8-connected components of fewer than `least` cells."""
    from scipy import ndimage

    components, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    large = np.bincount(components.ravel()) >= least
    large[0] = False
    kept: TissueMask = large[components]
    return kept
