"""Gaussians on small images, in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TRUNCATE = 3.0
"""A Gaussian ends after so many σ."""


def radius_of(sigma: float) -> int:
    """Return how far a Gaussian of deviation `sigma` px looks, px."""
    return math.ceil(TRUNCATE * sigma)


def gaussian_blur(image: NDArray[np.float32], sigmas: Sequence[float]) -> NDArray[np.float32]:
    """Return the image convolved with a Gaussian, mirrored at its edges (not the edge pixel).

    Args:
        image: of any shape, at least one pixel.
        sigmas: a deviation for each axis, px; 0: that axis is left alone.
    """
    if not any(sigmas):
        return image
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(
        image, sigmas, mode="mirror", radius=[radius_of(sigma) for sigma in sigmas]
    )
    return blurred
