"""Gaussians on small images, in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TRUNCATE = 3.0
"""A Gaussian ends after so many σ."""


def radius_of(sigma: float) -> int:
    """Return how far a Gaussian of deviation `sigma` px looks, px."""
    return math.ceil(TRUNCATE * sigma)


def gaussian_taps(sigma: float) -> NDArray[np.float32]:
    """Return the weights, which add up to 1, of a pixel's neighbours within `radius_of(sigma)`."""
    reach = radius_of(sigma)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weights: NDArray[np.float32] = (taps / taps.sum()).astype(np.float32)
    return weights


def gaussian_blur(image: NDArray[np.float32], sigmas: Sequence[float]) -> NDArray[np.float32]:
    """Return the image convolved with a Gaussian, mirrored at its edges (not the edge pixel).

    Args:
        image: of any shape, at least one pixel.
        sigmas: a deviation for each axis, px; 0: that axis is left alone.
    """
    for axis, sigma in enumerate(sigmas):
        if sigma > 0:
            image = _blur_along(axis, image, sigma)
    return image


def _blur_along(axis: int, image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    reach = radius_of(sigma)
    taps = gaussian_taps(sigma)[reach:]
    pads = [(0, 0)] * image.ndim
    pads[axis] = (reach, reach)
    padded = np.moveaxis(np.pad(image, pads, mode="reflect"), axis, 0)
    length = image.shape[axis]
    blurred = padded[reach : reach + length] * taps[0]
    pair = np.empty_like(blurred)
    for i, tap in enumerate(taps[1:], 1):
        before, after = padded[reach - i :][:length], padded[reach + i :][:length]
        np.add(before, after, out=pair)
        pair *= tap
        blurred += pair
    return np.moveaxis(blurred, 0, axis)
