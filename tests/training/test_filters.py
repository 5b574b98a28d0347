from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from wsi_unet.training.samples.filters import gaussian_blur, radius_of


@pytest.mark.parametrize("sigmas", [(0, 1.3, 0.6), (0.5, 0, 2.4), (0, 0, 0)])
def test_a_blur_is_scipys(sigmas: tuple[float, ...]) -> None:
    image = np.random.default_rng(0).random((9, 31, 24), dtype=np.float32)
    expected = image.astype(np.float64)
    for axis, sigma in enumerate(sigmas):
        if sigma:
            expected = ndimage.gaussian_filter1d(
                expected, sigma, axis, mode="mirror", radius=radius_of(sigma)
            )
    found = gaussian_blur(image, sigmas)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_smaller_than_the_blur_keeps_its_mean() -> None:
    image = np.array([[0.0, 1.0]], np.float32)
    blurred = gaussian_blur(image, (3.0, 3.0))
    assert blurred.shape == (1, 2)
    assert blurred.mean() == pytest.approx(0.5)
    assert 0.3 < blurred.min() <= blurred.max() < 0.7
