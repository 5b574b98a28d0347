"""A pixel has the same value in every window, with every reader, at every level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.geometry import Box
from wsi_unet.slides import Slide, open_slide

Pixels = NDArray[np.uint8]


def assert_windows_agree(slide: Slide, side: int = 300) -> None:
    """Compare windows, differently placed and of different sizes, where they overlap."""
    for number, level in enumerate(slide.levels):
        rows, columns = level.shape
        y, x = rows // 3, columns // 3
        common = Box(y, x, min(rows, y + side), min(columns, x + side))
        expected = slide.read(number, common)
        for up, left, down, right in ((1, 0, 0, 0), (7, 13, 5, 0), (64, 101, 40, 230)):
            window = Box(common.y0 - up, common.x0 - left, common.y1 + down, common.x1 + right)
            window = window.intersection(Box.from_shape(level.shape))
            pixels = slide.read(number, window)[common.relative_to(window).slices()]
            assert (pixels == expected).all(), (slide, number, window)


@pytest.fixture
def smooth() -> Pixels:
    """Return a picture, (2003, 1501, 3), in which a shift by part of a pixel shows."""
    noise = np.random.default_rng(3).integers(0, 256, (201, 151, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((1501, 2003), Image.Resampling.BICUBIC))


@pytest.fixture
def reduced(smooth: Pixels) -> Pixels:
    """Return that picture, coarser by 2003/1001 and 1501/751."""
    return np.asarray(Image.fromarray(smooth).resize((751, 1001)))


@pytest.fixture
def pyramid_path(smooth: Pixels, reduced: Pixels, tmp_path: Path) -> Path:
    """Return both levels as a tiled TIFF."""
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        for tile, pixels in ((256, smooth), (128, reduced)):
            writer.write(
                pixels,
                tile=(tile, tile),
                compression="zlib",
                subfiletype=int(pixels is reduced),
                metadata=None,
            )
    return path


@pytest.mark.parametrize("reader", ["tiffslide", "openslide"])
def test_levels_of_a_fractional_downsample(pyramid_path: Path, reader: str) -> None:
    with open_slide(pyramid_path, reader) as slide:
        assert [level.shape for level in slide.levels] == [(2003, 1501), (1001, 751)]
        assert_windows_agree(slide)


def test_openslides_pieces_are_joined_without_gaps(pyramid_path: Path, reduced: Pixels) -> None:
    with open_slide(pyramid_path, "openslide") as slide:
        whole = slide.read(1, Box(0, 0, 1001, 751))
        # The readers differ by a shift of at most half a level-0 px: no line is missing.
        difference = np.abs(whole.astype(int) - reduced)[:-1, :-1]
        assert difference.max() < 60
        assert difference[500:524].mean() < 3 * difference.mean() + 1
        for box in (Box(511, 511, 513, 513), Box(0, 0, 1, 1), Box(1000, 750, 1001, 751)):
            assert (slide.read(1, box) == whole[box.slices()]).all()


def test_zarr_and_images(smooth: Pixels, tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=smooth.shape, chunks=(300, 200, 3), dtype=np.uint8
    )
    array[:] = smooth
    Image.fromarray(smooth).save(tmp_path / "a.png")
    for name in ("a.zarr", "a.png"):
        with open_slide(tmp_path / name) as slide:
            assert_windows_agree(slide)


@pytest.mark.parametrize("reader", ["tiffslide", "openslide"])
def test_the_example(example_slide_path: Path, reader: str) -> None:
    with open_slide(example_slide_path, reader) as slide:
        assert_windows_agree(slide)


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("OS-1-detail.ome.tif", ["tiffslide"]),
        ("OS-2-ndpi.ome.tif", ["tiffslide"]),
        ("glycogen_HE_15071x13500.tiff", ["tiffslide", "openslide"]),
        ("hamamatsu_DAPI.ndpi", ["tiffslide", "openslide"]),
        ("luna_1065626.svs", ["tiffslide", "openslide"]),
        ("camelyon_jpeg.dcm", ["dicom", "openslide"]),
    ],
)
def test_real_slides(shared_data: Path, name: str, readers: list[str]) -> None:
    for reader in readers:
        with open_slide(shared_data / "slides" / name, reader) as slide:
            assert slide.reader == reader
            assert_windows_agree(slide)
