from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.slides import Slide, choose_resampling, open_raster, read_mirrored

Pixels = NDArray[np.uint8]
SlideOf = Callable[..., Slide]

quick = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    before=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    after=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    data=st.data(),
)
def test_windows_are_cut_from_numpys_reflection(
    slide_of: SlideOf,
    shape: tuple[int, int],
    before: tuple[int, int],
    after: tuple[int, int],
    data: st.DataObject,
) -> None:
    """Also where the border exceeds the slide, and where the window lies wholly outside."""
    pixels = np.random.default_rng(7).integers(0, 256, (*shape, 3), dtype=np.uint8)
    padding = [(before[0], after[0]), (before[1], after[1])]
    if 1 in shape:  # numpy repeats a single pixel, as we do
        pixels = pixels.copy()
    reference = np.pad(pixels, [*padding, (0, 0)], mode="reflect")
    y0 = data.draw(st.integers(0, reference.shape[0] - 1))
    x0 = data.draw(st.integers(0, reference.shape[1] - 1))
    y1 = data.draw(st.integers(y0 + 1, reference.shape[0]))
    x1 = data.draw(st.integers(x0 + 1, reference.shape[1]))
    slide = slide_of(pixels)
    raster = open_raster(slide, choose_resampling(slide, (1.0, 1.0)))
    window = Box(y0, x0, y1, x1).shift(-before[0], -before[1])
    assert (read_mirrored(raster, window) == reference[y0:y1, x0:x1]).all()


def test_only_what_occurs_in_the_window_is_read(slide_of: SlideOf) -> None:
    slide = slide_of(np.zeros((1000, 1000, 3), np.uint8))
    raster = open_raster(slide, choose_resampling(slide, (1.0, 1.0)))
    read_mirrored(raster, Box(-20, 500, 50, 600))
    read_mirrored(raster, Box(-30, 980, -10, 1050))
    boxes = [box for _, box in slide.boxes]  # type: ignore[attr-defined]
    assert boxes == [Box(0, 500, 50, 600), Box(11, 949, 31, 1000)]


def test_resampled_slides_are_mirrored_on_their_grid(slide_of: SlideOf, random_rgb: Pixels) -> None:
    slide = slide_of(random_rgb)
    raster = open_raster(slide, choose_resampling(slide, (1.5, 1.5)))
    whole = raster.read(Box.from_shape(raster.shape))
    reference = np.pad(whole, ((10, 10), (10, 10), (0, 0)), mode="reflect")
    rows, columns = raster.shape
    assert (read_mirrored(raster, Box(-10, -10, rows + 10, columns + 10)) == reference).all()


def test_empty_windows_are_refused(slide_of: SlideOf, random_rgb: Pixels) -> None:
    slide = slide_of(random_rgb)
    raster = open_raster(slide, choose_resampling(slide, (1.0, 1.0)))
    with pytest.raises(ValueError, match="empty"):
        read_mirrored(raster, Box(3, 3, 3, 9))
