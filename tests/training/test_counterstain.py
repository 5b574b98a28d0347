"""The counterstain: objects keep their structure, and the background gets another colour."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_unet.training.augmentation.counterstain import counterstain
from wsi_unet.training.augmentation.stains import DYES


def purple_field(seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return densities (3, 96, 96) of discs on a ground of the same dye, and the discs' mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    objects = np.zeros((96, 96), np.bool_)
    for cy, cx in rng.integers(8, 88, (12, 2)):
        objects |= (y - cy) ** 2 + (x - cx) ** 2 < 36
    amount = np.where(objects, 1.2, 0.3) + 0.1 * rng.random((96, 96))
    return (DYES[0][:, None, None] * amount).astype(np.float32), objects


def hue(density: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the direction of the mean density."""
    mean = density.mean(axis=1)
    return np.asarray(mean / np.linalg.norm(mean), np.float64)


@pytest.mark.parametrize("seed", range(6))
def test_the_ground_gets_another_tone_and_objects_stay_purple(seed: int) -> None:
    density, objects = purple_field(seed)
    found = counterstain(density, objects, np.random.default_rng(seed))
    assert found.shape == density.shape
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    haematoxylin = DYES[0] / np.linalg.norm(DYES[0])
    before = hue(density[:, ~objects]) @ haematoxylin
    assert hue(found[:, ~objects]) @ haematoxylin < before - 0.01
    assert hue(found[:, objects]) @ haematoxylin > hue(found[:, ~objects]) @ haematoxylin


@pytest.mark.parametrize("seed", range(6))
def test_objects_keep_their_structure(seed: int) -> None:
    """Far from their edges what was denser stays denser: amounts keep their order, nearly."""
    density, objects = purple_field(seed)
    found = counterstain(density, objects, np.random.default_rng(seed))
    within = objects.copy()
    for shift in (-3, 3):
        within &= np.roll(objects, shift, 0) & np.roll(objects, shift, 1)
    was, is_now = density.mean(axis=0)[within], found.mean(axis=0)[within]
    assert np.corrcoef(was, is_now)[0, 1] > 0.5


def test_without_objects_everything_is_ground() -> None:
    density, objects = purple_field()
    none = counterstain(density, np.zeros_like(objects), np.random.default_rng(1))
    everything = counterstain(density, np.ones_like(objects), np.random.default_rng(1))
    assert not np.allclose(none, everything)
    some = counterstain(density, objects, np.random.default_rng(1))
    far = np.ones_like(objects)
    for shift in (-3, 0, 3):
        for axis in (0, 1):
            far &= ~np.roll(objects, shift, axis)
    np.testing.assert_allclose(some[:, far], none[:, far], atol=1e-2)


def test_chance_comes_from_the_generator_alone() -> None:
    density, objects = purple_field()
    one, two = (counterstain(density, objects, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
