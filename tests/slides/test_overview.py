from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.slides import Slide, choose_resampling, open_raster
from wsi_unet.slides.tissue import overview
from wsi_unet.slides.tissue.overview import read_overview

SlideOf = Callable[..., Slide]
Pixels = NDArray[np.uint8]


@pytest.mark.parametrize("cell", [4, 5, 9, 32, 64, 200])
@pytest.mark.parametrize("shape", [(90, 70), (64, 64), (1, 300), (257, 3)])
def test_overviews_hold_the_mean_of_each_cell(
    slide_of: SlideOf, monkeypatch: pytest.MonkeyPatch, cell: int, shape: tuple[int, int]
) -> None:
    monkeypatch.setattr(overview, "ROWS_AT_ONCE", 40)
    monkeypatch.setattr(overview, "COLUMNS_AT_ONCE", 30)
    pixels = np.random.default_rng(cell).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = read_overview(slide_of(pixels), cell)
    rows, columns = (-(-side // cell) for side in shape)
    assert found.shape == (rows, columns, 3)
    for r in range(rows):
        for c in range(columns):
            part = pixels[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell]
            exact = part.reshape(-1, 3).mean(axis=0)
            assert np.abs(found[r, c] - exact).max() <= 0.5 + 1e-9


def test_white_stays_white_in_the_largest_cells(slide_of: SlideOf) -> None:
    white = np.full((600, 520, 3), 255, np.uint8)
    for cell in (overview.MAX_RATIO, overview.MAX_RATIO + 1):
        assert (read_overview(slide_of(white), cell) == 255).all()


def test_coarse_levels_are_resampled(slide_of: SlideOf, random_rgb: Pixels) -> None:
    slide = slide_of(random_rgb, random_rgb[::4, ::4])
    raster = open_raster(slide, choose_resampling(slide, (8.0, 8.0), tolerance=0.0))
    slide.boxes.clear()  # type: ignore[attr-defined]
    assert (read_overview(slide, 8) == raster.read(Box.from_shape(raster.shape))).all()
    assert {level for level, _ in slide.boxes} == {1}  # type: ignore[attr-defined]


def test_aligned_pieces_decode_no_tile_twice(slide_of: SlideOf, random_rgb: Pixels) -> None:
    slide = slide_of(random_rgb)  # in tiles of (7, 5) px
    read_overview(slide, 14)
    assert sum(box.area for _, box in slide.boxes) == 90 * 70  # type: ignore[attr-defined]
    for about, ratio, tile in ((1024, 32, 240), (1024, 32, 512), (8192, 37, 256), (9, 14, 7)):
        step = overview._step(about, ratio, tile)
        assert step % ratio == 0
        assert step % tile == 0 or step <= about
