"""What tissue looks like, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import hed2rgb

from wsi_unet.slides.tissue.appearance import average_cells, measure_appearance


def dyed(haematoxylin: float, eosin: float, dab: float) -> NDArray[np.float64]:
    """Return cells (n, 3) with amounts of dyes around those given."""
    random = np.random.default_rng(0)
    amounts = np.array([haematoxylin, eosin, dab]) * random.uniform(0.5, 1.5, (100, 1))
    colours: NDArray[np.float64] = np.round(255 * hed2rgb(amounts))
    return colours


def test_it_is_the_mean_absorbance() -> None:
    cells = np.random.default_rng(1).integers(10, 180, (50, 3))
    found = measure_appearance(cells)
    means = [np.mean([-np.log10(cell[c] / 255) for cell in cells]) for c in range(3)]
    assert found is not None
    assert found.values() == pytest.approx([*(m / sum(means) for m in means), np.log10(sum(means))])


def test_glass_does_not_count() -> None:
    tissue = dyed(0.05, 0.05, 0)
    with_glass = np.concatenate([tissue, np.full((1000, 3), 250)])
    assert measure_appearance(with_glass) == measure_appearance(tissue)
    assert measure_appearance(np.full((1000, 3), 250)) is None
    assert measure_appearance(np.zeros((0, 3))) is None


def test_dyes_differ_in_their_colours_and_not_by_their_amount() -> None:
    pale, dark = (measure_appearance(dyed(0.03 * times, 0.015 * times, 0)) for times in (1, 3))
    assert pale is not None
    assert dark is not None
    assert dark.values()[:3] == pytest.approx(pale.values()[:3], abs=0.02)
    assert dark.density - pale.density == pytest.approx(np.log10(3), abs=0.02)
    assert pale.green > max(pale.red, pale.blue)
    brown = measure_appearance(dyed(0, 0, 0.05))
    assert brown is not None
    assert brown.blue > max(brown.red, brown.green)
    grey = measure_appearance(np.repeat(np.arange(40, 200)[:, None], 3, axis=1))
    assert grey is not None
    assert grey.values()[:3] == pytest.approx([1 / 3] * 3)


def test_black_is_finite() -> None:
    found = measure_appearance(np.zeros((20, 3)))
    assert found is not None
    assert np.isfinite(found.values()).all()


@pytest.mark.parametrize("shape", [(16, 16), (40, 70), (15, 64)])
def test_cells_are_means(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    expected = [
        image[y : y + 16, x : x + 16].mean(axis=(0, 1))
        for y in range(0, shape[0] - 15, 16)
        for x in range(0, shape[1] - 15, 16)
    ]
    assert average_cells(image) == pytest.approx(np.reshape(expected, (-1, 3)))
