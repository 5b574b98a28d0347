from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from wsi_unet.training.augmentation.filters import (
    blur_inside,
    gaussian_blur,
    gaussian_taps,
    radius_of,
)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.3, 5.0])
@pytest.mark.parametrize("shape", [(3, 31, 24), (17, 40), (2, 2, 9, 8)])
def test_a_blur_is_scipys(shape: tuple[int, ...], sigma: float) -> None:
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    before = image.copy()
    expected = image.astype(np.float64)
    for axis in (-2, -1):
        expected = ndimage.gaussian_filter1d(
            expected, sigma, axis, mode="mirror", radius=radius_of(sigma)
        )
    found = gaussian_blur(image, sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (image == before).all()


def test_inside_nothing_is_mirrored() -> None:
    image = np.random.default_rng(0).random((30, 41), dtype=np.float32)
    inside = blur_inside(image, 1.2)
    assert inside.shape == (22, 33)
    assert (inside == gaussian_blur(image, 1.2)[4:-4, 4:-4]).all()


def test_taps_are_a_gaussians_and_add_up_to_one() -> None:
    taps = gaussian_taps(2.0)
    assert len(taps) == 13
    assert taps.sum() == pytest.approx(1)
    assert taps[6 + 3] / taps[6] == pytest.approx(np.exp(-(3**2) / (2 * 2**2)))


def test_an_image_smaller_than_the_blur_keeps_its_mean() -> None:
    image = np.array([[0.0, 1.0]], np.float32)
    blurred = gaussian_blur(image, 3.0)
    assert blurred.shape == (1, 2)
    assert blurred.mean() == pytest.approx(0.5)
    assert 0.3 < blurred.min() <= blurred.max() < 0.7
