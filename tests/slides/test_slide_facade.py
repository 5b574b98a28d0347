from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import wsi_unet.slides
from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box
from wsi_unet.slides import PixelSize, Slide, check_mpp, open_slide
from wsi_unet.slides.levels import make_levels

Pixels = NDArray[np.uint8]
SlideOf = Callable[..., Slide]


def test_public_names_are_loaded_lazily_and_all_exist() -> None:
    for name in wsi_unet.slides.__all__:
        assert getattr(wsi_unet.slides, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = wsi_unet.slides.no_such_name  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(13500, 15071), (6750, 7536), (422, 471)], [(1.0, 1.0), (2.0, 2.0), (32.0, 32.0)]),
        ([(10249, 11952), (2562, 2988)], [(1.0, 1.0), (4.0, 4.0)]),
        ([(1001, 999), (500, 499)], [(1.0, 1.0), (2.0, 2.0)]),
        # Nothing integer explains 2.5; 1000/399 is more than a rounding away from it too.
        ([(1000, 1000), (400, 399)], [(1.0, 1.0), (2.5, 1000 / 399)]),
        # One pixel is left of a side: the longer one decides.
        ([(5, 4096), (1, 1024)], [(1.0, 1.0), (4.0, 4.0)]),
    ],
)
def test_downsamples_are_exact_where_sizes_allow(
    shapes: list[tuple[int, int]], expected: list[tuple[float, float]]
) -> None:
    levels = make_levels(shapes, [(512, 512)] * len(shapes))
    assert [level.downsample for level in levels] == expected


def test_example_slide_tells_what_it_is(example_slide_path: Path) -> None:
    with open_slide(example_slide_path) as slide:
        assert slide.shape == (2967, 2220)
        assert slide.mpp == PixelSize(0.499, 0.499)
        assert slide.vendor == "aperio"
        assert slide.compression == "JPEG"
        assert slide.reader == "tiffslide"
        assert slide.levels[0].tile == (240, 240)
        assert slide.properties["aperio.AppMag"] == "20"
        assert slide.path == str(example_slide_path)
        assert slide.name == example_slide_path.name


def test_boxes_beyond_the_level_are_the_callers_error(
    slide_of: SlideOf, random_rgb: Pixels
) -> None:
    slide = slide_of(random_rgb)
    for box in (Box(0, 0, 91, 70), Box(-1, 0, 5, 5), Box(0, 60, 5, 71)):
        with pytest.raises(ValueError, match="reaches beyond level 0"):
            slide.read(0, box)
    with pytest.raises(ValueError, match="empty"):
        slide.read(0, Box(3, 3, 3, 9))
    for level in (-1, 1):
        with pytest.raises(ValueError, match=f"no level {level}"):
            slide.read(level, Box(0, 0, 1, 1))


def test_a_closed_slide_says_so_and_a_running_read_delays_closing(
    slide_of: SlideOf, random_rgb: Pixels
) -> None:
    slide = slide_of(random_rgb)
    reader = slide._reader
    started, go_on, order = threading.Event(), threading.Event(), []
    read = reader.read

    def slow(level: int, box: Box) -> Pixels:
        started.set()
        assert go_on.wait(10)
        order.append("read")
        return read(level, box)

    def close() -> None:
        slide.close()
        order.append("closed")

    reader.read = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        pixels = pool.submit(slide.read, 0, Box(0, 0, 9, 9))
        assert started.wait(10)
        closing = pool.submit(close)
        assert not closing.done()
        go_on.set()
        assert (pixels.result() == random_rgb[:9, :9]).all()
        closing.result()
    assert order == ["read", "closed"]
    slide.close()
    with pytest.raises(SlideError, match="is closed"):
        slide.read(0, Box(0, 0, 1, 1))
    with pytest.raises(SlideError, match="is closed"):
        slide.fingerprint()


def test_a_slide_is_not_pickled(slide_of: SlideOf, random_rgb: Pixels) -> None:
    with pytest.raises(TypeError, match="send its path"):
        pickle.dumps(slide_of(random_rgb))


def test_thumbnail_is_the_reduced_slide(example_slide_path: Path) -> None:
    with open_slide(example_slide_path) as slide:
        thumbnail = slide.thumbnail(300)
        assert max(thumbnail.shape) == 300
        assert thumbnail.shape[1] == pytest.approx(300 * 2220 / 2967, abs=1)
        whole = slide.read(0, Box.from_shape(slide.shape))
        assert np.abs(thumbnail.mean((0, 1)) - whole.mean((0, 1))).max() < 0.5
        with pytest.raises(ValueError, match="at least 1 px"):
            slide.thumbnail(0)


def test_thumbnail_never_enlarges(slide_of: SlideOf, random_rgb: Pixels) -> None:
    assert (slide_of(random_rgb).thumbnail(1000) == random_rgb).all()


@pytest.mark.parametrize("bad", [0.0, -1.0, 0.019, 100.1, 352.9, math.nan, math.inf])
def test_absurd_pixel_sizes_are_refused(bad: float) -> None:
    with pytest.raises(SlideError, match="give the true `mpp`"):
        check_mpp(bad)
    with pytest.raises(SlideError, match="give the true `mpp`"):
        check_mpp(PixelSize(0.5, bad))


def test_usual_pixel_sizes_pass() -> None:
    for good in (0.02, 0.25, 28.97, 100.0, PixelSize(0.5, 0.25)):
        check_mpp(good)
