from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.slides import Resampling, Slide, antialias, choose_resampling, open_raster, open_slide
from wsi_unet.slides.antialias import dyadic

Pixels = NDArray[np.uint8]
SlideOf = Callable[..., Slide]

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ratios = st.floats(0.3, 30).map(dyadic)


def sampling_of(shape: tuple[int, int], ratio: tuple[float, float]) -> Resampling:
    rows, columns = (math.ceil(side / one) for side, one in zip(shape, ratio, strict=True))
    return Resampling(0, ratio, (rows, columns), ratio)


def weights(side: int, ratio: float) -> NDArray[np.float64]:
    """Return the filter as a matrix (grid px, level px), written from its definition."""
    count = math.ceil(side / ratio)
    half = max(1.0, ratio)
    matrix = np.zeros((count, side))
    for i in range(count):
        centre = (i + 0.5) * ratio - 0.5
        for j in range(math.floor(centre - half) - 1, math.ceil(centre + half) + 2):
            matrix[i, min(max(j, 0), side - 1)] += max(0.0, 1 - abs(j - centre) / half)
        matrix[i] /= matrix[i].sum()
    return matrix


def brute_force(pixels: Pixels, ratio: tuple[float, float]) -> NDArray[np.float64]:
    down, across = weights(pixels.shape[0], ratio[0]), weights(pixels.shape[1], ratio[1])
    return np.asarray(np.einsum("ij,jkc,lk->ilc", down, pixels.astype(np.float64), across))


@quick
@given(
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    ratio=st.tuples(ratios, ratios),
)
def test_resampling_is_the_filter_that_it_claims_to_be(
    slide_of: SlideOf, seed: int, shape: tuple[int, int], ratio: tuple[float, float]
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    raster = open_raster(slide_of(pixels), sampling_of(shape, ratio))
    whole = raster.read(Box.from_shape(raster.shape))
    expected = pixels if ratio == (1.0, 1.0) else brute_force(pixels, ratio)
    assert np.abs(whole - expected).max() <= 1.01


@quick
@given(data=st.data(), ratio=st.tuples(ratios, ratios))
def test_every_window_is_cut_from_the_same_grid(
    slide_of: SlideOf, data: st.DataObject, ratio: tuple[float, float]
) -> None:
    """To the last bit, whatever strips and pieces a window happens to be computed in."""
    pixels = np.random.default_rng(3).integers(0, 256, (301, 257, 3), dtype=np.uint8)
    raster = open_raster(slide_of(pixels), sampling_of((301, 257), ratio))
    whole = raster.read(Box.from_shape(raster.shape))
    rows, columns = raster.shape
    y0, x0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, rows)), data.draw(st.integers(x0 + 1, columns))
    strip = data.draw(st.sampled_from([16, 100, antialias.STRIP_ROWS]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(antialias, "STRIP_ROWS", strip)
        patch.setattr(antialias, "MAX_COLUMNS", 4 * strip)
        assert (raster.read(Box(y0, x0, y1, x1)) == whole[y0:y1, x0:x1]).all()


@pytest.mark.parametrize("wanted", [0.37, 1.0201, 1.9, 2.0, 3.7, 17.3])
def test_real_pixels_agree_between_windows(example_slide_path: Path, wanted: float) -> None:
    with open_slide(example_slide_path) as slide:
        raster = open_raster(slide, choose_resampling(slide, (wanted, wanted)))
        rows, columns = (min(side, 1500) for side in raster.shape)
        whole = raster.read(Box(0, 0, rows, columns))
        for y, x, h, w in ((0, 0, 30, 30), (77, 31, 60, 41), (rows - 9, columns - 50, 9, 50)):
            box = Box(y, x, y + h, x + w).intersection(Box(0, 0, rows, columns))
            assert (raster.read(box) == whole[box.slices()]).all()


def test_wide_windows_are_exact_too(slide_of: SlideOf) -> None:
    """A row of 40,000 px spans several pieces of float32-exact positions."""
    pixels = np.random.default_rng(5).integers(0, 256, (3, 40_000, 3), dtype=np.uint8)
    ratio = (1.0, dyadic(2.7))
    raster = open_raster(slide_of(pixels), sampling_of((3, 40_000), ratio))
    whole = raster.read(Box.from_shape(raster.shape))
    for x0, x1 in ((0, 9), (1400, 1900), (7000, 14_000), (14_700, raster.shape[1])):
        assert (raster.read(Box(0, x0, 3, x1)) == whole[:, x0:x1]).all()
    index = np.array([0, 5000, 9999, 14_000])
    centre = (index + 0.5) * ratio[1] - 0.5
    for i, position in zip(index, centre, strict=True):
        near = np.arange(math.floor(position) - 5, math.ceil(position) + 6)
        weight = np.clip(1 - np.abs(near - position) / ratio[1], 0, None)
        inside = pixels[1, near.clip(0, 39_999)].astype(float)
        assert np.abs((weight @ inside) / weight.sum() - whole[1, i]).max() <= 1.01


@pytest.mark.parametrize("ratio", [0.5, 2.0, 3.0, 5.5])
def test_nothing_is_shifted(slide_of: SlideOf, ratio: float) -> None:
    side = 198  # a multiple of every ratio here: the grid ends with the level
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8)[None, :, None], (side, side, 3)).copy()
    raster = open_raster(slide_of(ramp), sampling_of((side, side), (ratio, ratio)))
    whole = raster.read(Box.from_shape(raster.shape)).astype(float)
    centres = (np.arange(raster.shape[1]) + 0.5) * ratio - 0.5
    inner = (centres > ratio + 1) & (centres < side - ratio - 2)
    assert np.abs(whole[5, inner, 0] - centres[inner]).max() <= 1
    half = np.random.default_rng(1).integers(0, 256, (side, side // 2, 3), dtype=np.uint8)
    symmetric = np.concatenate([half, half[:, ::-1]], axis=1)
    raster = open_raster(slide_of(symmetric), sampling_of((side, side), (ratio, ratio)))
    whole = raster.read(Box.from_shape(raster.shape)).astype(float)
    assert np.abs(whole - whole[:, ::-1]).max() <= 1


def test_constant_slides_stay_constant(slide_of: SlideOf) -> None:
    pixels = np.full((50, 40, 3), 201, np.uint8)
    raster = open_raster(slide_of(pixels), sampling_of((50, 40), (dyadic(1.37), dyadic(0.61))))
    assert (raster.read(Box.from_shape(raster.shape)) == 201).all()


def test_source_rows_are_read_once_and_in_bounded_strips(slide_of: SlideOf) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9000, 20, 3), dtype=np.uint8)
    slide = slide_of(pixels)
    raster = open_raster(slide, sampling_of((9000, 20), (2.0, 2.0)))
    raster.read(Box.from_shape(raster.shape))
    boxes = [box for _, box in slide.boxes]  # type: ignore[attr-defined]
    assert sum(box.shape[0] for box in boxes) == 9000
    assert max(box.shape[0] for box in boxes) <= antialias.STRIP_ROWS + 64
    assert all(box.y0 % 7 == 0 for box in boxes)  # whole rows of the slide's tiles


def test_boxes_beyond_the_grid_are_refused(slide_of: SlideOf, random_rgb: Pixels) -> None:
    raster = open_raster(slide_of(random_rgb), sampling_of((90, 70), (2.0, 2.0)))
    for box in (Box(0, 0, 46, 35), Box(-1, 0, 3, 3), Box(5, 5, 5, 8)):
        with pytest.raises(ValueError, match="grid of shape"):
            raster.read(box)


def test_the_coarsest_level_that_is_not_coarser_is_read(slide_of: SlideOf) -> None:
    full = np.zeros((1001, 999, 3), np.uint8)
    slide = slide_of(full, full[::4, ::4], full[::16, ::16])
    assert slide.levels[1].downsample == (4.0, 4.0)

    def chosen(wanted: float) -> tuple[int, tuple[float, float]]:
        sampling = choose_resampling(slide, (wanted, wanted))
        return sampling.level, sampling.ratio

    assert chosen(1.0) == (0, (1.0, 1.0))
    assert chosen(1.009) == (0, (1.0, 1.0))
    assert chosen(3.9) == (0, (dyadic(3.9), dyadic(3.9)))
    assert chosen(3.97) == (1, (1.0, 1.0))
    assert chosen(4.5) == (1, (1.125, 1.125))
    assert chosen(64.0) == (2, (4.0, 4.0))
    assert chosen(0.5) == (0, (0.5, 0.5))
    plain = choose_resampling(slide, (4.03, 4.0))
    assert (plain.shape, plain.downsample) == (slide.levels[1].shape, (4.0, 4.0))
    uneven = choose_resampling(slide, (8.0, 4.0))
    assert (uneven.level, uneven.ratio, uneven.shape) == (1, (2.0, 1.0), (126, 250))
    assert uneven.downsample == (8.0, 4.0)
    for bad in ((0.0, 1.0), (1.0, -2.0), (math.nan, 1.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match="positive number"):
            choose_resampling(slide, bad)


@given(st.floats(0.5, 1000))
def test_dyadic_ratios_are_close_and_stable(ratio: float) -> None:
    near = dyadic(ratio)
    assert abs(near / ratio - 1) < 0.00025
    assert dyadic(near) == near
    assert float(np.float32(near)) == near


def test_samplings_of_another_slide_are_refused(slide_of: SlideOf, random_rgb: Pixels) -> None:
    slide = slide_of(random_rgb)
    with pytest.raises(ValueError, match="no level 3"):
        open_raster(slide, Resampling(3, (1.0, 1.0), (1, 1), (1.0, 1.0)))
    with pytest.raises(ValueError, match="isn't exact"):
        open_raster(slide, Resampling(0, (1 / 3, 1 / 3), (1, 1), (1.0, 1.0)))
