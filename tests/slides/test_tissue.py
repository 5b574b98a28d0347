from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.slides import PixelSize, Slide, find_tissue, mask_in_box, mask_touches, open_slide
from wsi_unet.slides.tissue.detection import cell_side

Pixels = NDArray[np.uint8]
SlideOf = Callable[..., Slide]
EOSIN = (215, 140, 180)


def glass(height: int = 2000, width: int = 1600, seed: int = 0) -> Pixels:
    noise = np.random.default_rng(seed).normal(0, 2, (height, width, 3))
    return np.clip(243 + noise, 0, 255).astype(np.uint8)


def found_where(slide: Slide, box: Box) -> float:
    """Return the share of a box (level-0 px) that is found to be tissue."""
    mask = find_tissue(slide)
    return float(mask_in_box(mask, box, slide.shape).mean())


def test_empty_glass_stays_empty(slide_of: SlideOf) -> None:
    assert not find_tissue(slide_of(glass())).any()
    assert not find_tissue(slide_of(np.full((900, 700, 3), 255, np.uint8))).any()
    assert not find_tissue(slide_of(np.zeros((900, 700, 3), np.uint8))).any()


def test_a_slide_full_of_tissue_stays_full(slide_of: SlideOf) -> None:
    noise = np.random.default_rng(0).normal(0, 25, (1200, 1000, 3))
    tissue = np.clip(np.array(EOSIN) + noise, 0, 255).astype(np.uint8)
    assert find_tissue(slide_of(tissue)).all()
    assert find_tissue(slide_of(np.full((500, 500, 3), EOSIN, np.uint8))).all()


def test_tissue_is_found_with_a_margin_and_without_dust(slide_of: SlideOf) -> None:
    pixels = glass()
    pixels[600:1200, 500:1000] = EOSIN
    pixels[100:115, 100:115] = 90  # dust
    pixels[800:850, 700:750] = 243  # a vessel
    slide = slide_of(pixels, mpp=PixelSize(0.5, 0.5))
    assert found_where(slide, Box(600, 500, 1200, 1000)) == 1
    assert found_where(slide, Box(560, 460, 1240, 1040)) == 1
    assert found_where(slide, Box(0, 0, 400, 1600)) == 0
    assert found_where(slide, Box(1500, 0, 2000, 1600)) == 0


def test_pale_tissue_and_unscanned_corners(slide_of: SlideOf) -> None:
    pixels = glass()
    pixels[600:1200, 500:1000] = (228, 215, 224)
    pixels[:300, :300] = 0
    slide = slide_of(pixels, mpp=PixelSize(0.5, 0.5))
    assert found_where(slide, Box(600, 500, 1200, 1000)) == 1
    assert found_where(slide, Box(0, 0, 200, 200)) == 0


def test_fluorescence_is_what_glows(slide_of: SlideOf) -> None:
    pixels = np.random.default_rng(0).integers(0, 4, (2000, 1600, 3), dtype=np.uint8)
    pixels[600:1200:20, 500:1000:20, 2] = 255
    pixels[601:1200:20, 501:1000:20, 2] = 255
    pixels[605:1195, 505:995, 2] = np.maximum(pixels[605:1195, 505:995, 2], 30)
    slide = slide_of(pixels, mpp=PixelSize(0.5, 0.5))
    assert found_where(slide, Box(620, 520, 1180, 980)) == 1
    assert found_where(slide, Box(0, 0, 350, 1600)) == 0


def test_the_grid_is_fixed_and_bounded(example_slide_path: Path) -> None:
    assert cell_side((15071, 13500)) == 32
    assert cell_side((400_000, 100_000)) == 98
    assert cell_side((2967, 2220)) == 11
    assert cell_side((90, 70)) == 1
    with open_slide(example_slide_path) as slide:
        first = find_tissue(slide)
        assert first.shape == (270, 202)
        assert (find_tissue(slide) == first).all()


@pytest.mark.parametrize(
    ("name", "least", "most", "tissue", "background"),
    [
        ("CMU-1-Small-Region.svs", 0.4, 0.6, (2500, 800), (300, 300)),
        ("glycogen_HE_15071x13500.tiff", 0.24, 0.31, (1500, 7000), (6750, 3000)),
        ("luna_1065626.svs", 0.008, 0.03, (7200, 8100), (2000, 8000)),
        ("hamamatsu_DAPI.ndpi", 0.6, 0.95, (3600, 2000), (4700, 600)),
        ("OS-1-detail.ome.tif", 0.99, 1.0, (500, 500), None),
        ("OS-2-ndpi.ome.tif", 0.9, 1.0, (500, 300), None),
    ],
)
def test_real_slides(
    real_slides: dict[str, Path],
    name: str,
    least: float,
    most: float,
    tissue: tuple[int, int],
    background: tuple[int, int] | None,
) -> None:
    with open_slide(real_slides[name]) as slide:
        mask = find_tissue(slide)
        assert least <= mask.mean() <= most
        y, x = tissue
        assert mask_in_box(mask, Box(y, x, y + 1, x + 1), slide.shape).all()
        if background is not None:
            y, x = background
            assert not mask_in_box(mask, Box(y, x, y + 1, x + 1), slide.shape).any()


@given(
    mask_shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_a_pixel_takes_the_cell_of_its_centre(
    mask_shape: tuple[int, int], shape: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    mask = np.random.default_rng(seed).random(mask_shape) < 0.3
    y0, x0 = (data.draw(st.integers(0, side)) for side in shape)
    y1, x1 = data.draw(st.integers(y0, shape[0])), data.draw(st.integers(x0, shape[1]))
    box = Box(y0, x0, y1, x1)
    expected = np.array(
        [
            [
                mask[
                    int((y + 0.5) * mask_shape[0] / shape[0]),
                    int((x + 0.5) * mask_shape[1] / shape[1]),
                ]
                for x in range(x0, x1)
            ]
            for y in range(y0, y1)
        ],
        dtype=bool,
    ).reshape(box.shape)
    assert (mask_in_box(mask, box, shape) == expected).all()
    if expected.any():
        assert mask_touches(mask, box, shape)
    if not mask.any() or not box.area:
        assert not mask_touches(mask, box, shape)
