from __future__ import annotations

import numpy as np
import pytest

from wsi_unet.training.augmentation.noise import NUMBERS, white_noise


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
