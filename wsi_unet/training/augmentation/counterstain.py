"""Synthetic counterstain: the background gets a colour of its own, as a second dye gives it.

If one dye colours everything, a network learns that what is dark is an object. With a counterstain,
the background is as dark as the objects, of another colour and full of structure. The labels say
where objects are, so the background can be given any tone and cytoplasm without changing them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_unet.training.augmentation.filters import gaussian_blur
from wsi_unet.training.augmentation.stains import GROUND_QUANTILE, Planes
from wsi_unet.training.augmentation.synthetic import clouds, dye

SOFTNESS = 0.7
"""σ of the Gaussian that softens the edges of objects, px."""

STRENGTH = 1.7
"""Ratio of a dye density's length to the mean of its three channels, roughly (√3 for grey)."""


def counterstain(density: Planes, objects: NDArray[np.bool_], rng: np.random.Generator) -> Planes:
    """Return densities with a pink to purple background and synthetic cytoplasm.

    Objects keep their structure; half of the time their tone moves towards haematoxylin's.

    Args:
        density: (3, h, w).
        objects: (h, w), false in the background.
        rng: random generator.
    """
    amount = density.mean(axis=0)
    cytoplasm = _dyed(_cytoplasm(objects.shape, rng), dye(0.5, rng))
    floor = rng.uniform(0, 1) * float(np.quantile(amount[::4, ::4], GROUND_QUANTILE))
    structure = np.maximum(amount - np.float32(floor), 0) * np.float32(rng.uniform(0.3, 1.5))
    ground = _dyed(structure, STRENGTH * dye(0.7, rng)) + cytoplasm
    kept = density
    if rng.random() < 0.5:
        share = np.float32(rng.uniform(0, 1))
        purple = rng.uniform(0.7, 1.4) * STRENGTH * dye(1.0, rng, least=0.6)
        kept = share * _dyed(amount, purple) + (1 - share) * density
        kept += np.float32(rng.uniform(0, 1)) * cytoplasm
    inside = gaussian_blur(objects.astype(np.float32), SOFTNESS)
    return ground + inside * (kept - ground)


def _cytoplasm(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return amounts (h, w) of synthetic cytoplasm: clouds with a fine grain."""
    rows, columns = shape
    cloud = clouds((rows, columns), rng.uniform(3, 25), rng) * np.float32(rng.uniform(0.1, 0.6))
    cloud = np.maximum(cloud + np.float32(rng.uniform(0, 1.2)), 0) * np.float32(rng.uniform(0, 0.5))
    grain: NDArray[np.float32] = cloud * (
        1 + np.float32(rng.uniform(0, 0.3)) * clouds((rows, columns), 0.8, rng)
    )
    return grain


def _dyed(amount: NDArray[np.float32], colour: NDArray[np.float64]) -> Planes:
    """Return the densities (3, h, w) of an amount (h, w) of a dye with the colour (3,)."""
    return colour.astype(np.float32)[:, None, None] * amount
