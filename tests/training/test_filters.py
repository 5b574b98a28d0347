from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from wsi_unet.training.samples.filters import NUMBERS, gaussian_blur, radius_of, white_noise


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


def test_white_noise_is_white_and_a_new_piece_each_time() -> None:
    rng = np.random.default_rng(0)
    first, second = (white_noise((3, 200, 200), rng) for _ in range(2))
    assert first.std() == pytest.approx(1, abs=0.01)
    assert first.mean() == pytest.approx(0, abs=0.01)
    assert abs(np.corrcoef(first[:, 1:].ravel(), first[:, :-1].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.01
    first[...] = 0  # a copy: what is drawn later doesn't change
    assert (white_noise((5,), np.random.default_rng(1)) != 0).all()


def test_more_noise_than_there_are_numbers_repeats_nothing() -> None:
    noise = white_noise((2, NUMBERS), np.random.default_rng(0))
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.01
