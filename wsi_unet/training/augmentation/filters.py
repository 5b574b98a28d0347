"""Gaussians on small images, in float32."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

TRUNCATE = 3.0
"""A Gaussian ends after so many σ."""

Planes = NDArray[np.float32]
"""(…, h, w)."""


def radius_of(sigma: float) -> int:
    """Return how far a Gaussian of deviation `sigma` px looks, px."""
    return math.ceil(TRUNCATE * sigma)


def gaussian_taps(sigma: float) -> NDArray[np.float32]:
    """Return the shares of a Gaussian's pixels along one axis, which add up to 1."""
    position = np.arange(-radius_of(sigma), radius_of(sigma) + 1)
    taps = np.exp(-np.square(position / sigma) / 2)
    shares: NDArray[np.float32] = (taps / taps.sum()).astype(np.float32)
    return shares


def gaussian_blur(image: Planes, sigma: float) -> Planes:
    """Return planes convolved with a Gaussian, mirrored at their edges (not the edge pixel).

    Args:
        image: (…, h, w), at least one pixel.
        sigma: deviation along both axes, px, above 0.
    """
    radius = radius_of(sigma)
    edges = [(0, 0)] * (image.ndim - 2) + [(radius, radius)] * 2
    return blur_inside(np.pad(image, edges, mode="reflect"), sigma)


def blur_inside(image: Planes, sigma: float) -> Planes:
    """Return planes convolved with a Gaussian where all that it looks at is there.

    Sums of moved planes take half of the time of SciPy's `gaussian_filter`, whose lines are copied
    one by one to be filtered, and of PyTorch's convolution of a few planes.

    Args:
        image: (…, h, w).
        sigma: deviation along both axes, px, above 0.

    Returns:
        (…, h − 2r, w − 2r), r being `radius_of(sigma)`.
    """
    taps, radius = gaussian_taps(sigma), radius_of(sigma)
    for axis in (image.ndim - 2, image.ndim - 1):
        length = image.shape[axis] - 2 * radius
        before = (slice(None),) * axis
        moved = [image[(*before, slice(i, i + length))] for i in range(len(taps))]
        image = moved[radius] * taps[radius]
        pair = np.empty_like(image)
        for one, other, tap in zip(moved[:radius], moved[:radius:-1], taps[:radius], strict=True):
            np.add(one, other, out=pair)
            pair *= tap
            image += pair
    return image
