"""Densities of stains: colour deconvolution as in `skimage.color.rgb2hed`, in whole numbers.

Ruifrok and Johnston, Analytical and Quantitative Cytology and Histology 23, 2001.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.intensities.quantities import Quantity

STEPS = 1 << 20
"""Whole numbers per unit of density: what each colour adds is rounded to one of them."""

DARKEST = 1e-6
"""The intensity that scikit-image takes for 0, and of which the density is 1."""

STAINS = tuple(Quantity(name, 1 / STEPS) for name in ("haematoxylin", "eosin", "dab"))


def unmix(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the densities (n, 3) of haematoxylin, eosin and DAB in pixels (n, 3), in `STEPS`."""
    tables = _make_tables()
    density: NDArray[np.int64] = tables[0, rgb[:, 0]]
    density += tables[1, rgb[:, 1]]
    density += tables[2, rgb[:, 2]]
    np.maximum(density, 0, out=density)
    return density


@cache
def _make_tables() -> NDArray[np.int64]:
    """Return (3, 256, 3) what each value of red, green and blue adds to each stain's density."""
    from skimage.color import hed_from_rgb

    intensities = [max(value / 255, DARKEST) for value in range(256)]
    density = np.array([math.log(each) / math.log(DARKEST) for each in intensities])
    exact = density[None, :, None] * hed_from_rgb[:, None, :] * STEPS
    table: NDArray[np.int64] = np.rint(exact).astype(np.int64)
    return table
