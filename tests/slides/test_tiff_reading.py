from __future__ import annotations

import os
import threading
import time
import warnings
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
from numpy.typing import NDArray

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box, Shape
from wsi_unet.locations import Location
from wsi_unet.slides import Slide, open_slide
from wsi_unet.slides.readers import tiff_tiles as hot_path
from wsi_unet.slides.readers.tiff import TiffReader
from wsi_unet.slides.sources.opening import open_source

Pixels = NDArray[np.uint8]
REAL = [
    "CMU-1-Small-Region.svs",
    "OS-1-detail.ome.tif",
    "OS-2-ndpi.ome.tif",
    "glycogen_HE_15071x13500.tiff",
    "hamamatsu_DAPI.ndpi",
    "luna_1065626.svs",
]
OPENSLIDE_OPENS = [
    "CMU-1-Small-Region.svs",
    "glycogen_HE_15071x13500.tiff",
    "hamamatsu_DAPI.ndpi",
    "luna_1065626.svs",
]


def boxes(shape: Shape) -> list[Box]:
    """Return boxes in all corners, in the middle, and of one pixel."""
    height, width = shape
    h, w = min(height, 700), min(width, 650)
    y, x = (height - h) // 2, (width - w) // 2
    return [
        Box(0, 0, h, w),
        Box(height - h, width - w, height, width),
        Box(y + 3, x + 1, y + h - 1, x + w - 2),
        Box(y, x, y + 1, x + 1),
    ]


def tiffslide_pixels(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slide = tiffslide.TiffSlide(path)
        slide.properties  # noqa: B018
    return slide


@pytest.mark.parametrize("name", REAL)
def test_pixels_are_tiffslides_at_every_level(real_slides: dict[str, Path], name: str) -> None:
    reference = tiffslide_pixels(real_slides[name])
    with open_slide(real_slides[name]) as slide, reference:
        assert isinstance(slide._reader, TiffReader)
        assert slide._reader.direct
        assert [level.shape[::-1] for level in slide.levels] == list(reference.level_dimensions)
        for index, level in enumerate(slide.levels):
            whole = reference.zarr_group[str(index)]
            for box in boxes(level.shape):
                assert (slide.read(index, box) == whole[box.slices()]).all(), (index, box)


@pytest.mark.parametrize("name", OPENSLIDE_OPENS)
def test_pixels_are_openslides_at_level_0(real_slides: dict[str, Path], name: str) -> None:
    tolerance = 1 if name == "luna_1065626.svs" else 0  # JPEG 2000
    reference = openslide.OpenSlide(real_slides[name])
    with open_slide(real_slides[name]) as slide, reference:
        for box in boxes(slide.shape):
            rows, columns = box.shape
            region = reference.read_region((box.x0, box.y0), 0, (columns, rows))
            theirs = np.asarray(region)[..., :3].astype(int)
            assert np.abs(slide.read(0, box) - theirs).max() <= tolerance, box


def test_example_matches_both_references_everywhere(example_slide_path: Path) -> None:
    with (
        open_slide(example_slide_path) as slide,
        tiffslide_pixels(example_slide_path) as tiff,
        openslide.OpenSlide(example_slide_path) as osr,
    ):
        whole = slide.read(0, Box.from_shape(slide.shape))
        assert (whole == tiff.zarr_group["0"][:]).all()
        assert (whole == np.asarray(osr.read_region((0, 0), 0, osr.dimensions))[..., :3]).all()


def test_no_warning_and_no_open_file_is_left(real_slides: dict[str, Path]) -> None:
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    with open_slide(real_slides["hamamatsu_DAPI.ndpi"]) as slide:  # tiffslide warns about these
        slide.read(0, Box(0, 0, 100, 100))
    assert len(list(open_files.iterdir())) == before


def test_reads_from_many_threads_agree(example_slide_path: Path) -> None:
    with open_slide(example_slide_path) as slide:
        whole = slide.read(0, Box.from_shape(slide.shape))
        wanted = [Box(y, x, y + 500, x + 400) for y in range(0, 2400, 300) for x in (0, 700, 1800)]
        with ThreadPoolExecutor(6) as pool:
            for box, pixels in zip(
                wanted, pool.map(lambda b: slide.read(0, b), wanted), strict=True
            ):
                assert (pixels == whole[box.slices()]).all()


def test_concurrent_reads_overlap(
    example_slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles that take long to arrive are asked for together, within a read and across reads."""
    pread, lock = os.pread, threading.Lock()
    waiting = most = 0

    def slow(file: int, length: int, offset: int) -> bytes:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        time.sleep(0.02)
        with lock:
            waiting -= 1
        return pread(file, length, offset)

    reader = TiffReader(open_source(Location.parse(example_slide_path)), threads=8)
    with Slide(Location.parse(example_slide_path), reader) as slide:
        slide.read(0, Box(0, 0, 480, 480))  # the threads have started
        monkeypatch.setattr(os, "pread", slow)
        slide.read(0, Box(0, 0, 960, 960))
        assert most > 2
        with ThreadPoolExecutor(2) as pool:
            wanted = [Box(0, 0, 960, 960), Box(960, 960, 1920, 1920)]
            list(pool.map(lambda box: slide.read(0, box), wanted))
        assert most > 4


def tile_place(path: Path, number: int) -> tuple[int, int]:
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        return page.dataoffsets[number], page.databytecounts[number]


def test_a_short_pread_is_an_error(
    example_slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset, _ = tile_place(example_slide_path, 13)  # the fourth tile of the second row
    pread = os.pread

    def short(file: int, length: int, at: int) -> bytes:
        return pread(file, length // 2 if at == offset else length, at)

    with open_slide(example_slide_path) as slide:
        monkeypatch.setattr(os, "pread", short)
        with pytest.raises(SlideError, match=r"row 1, column 3 of level 0 is truncated") as caught:
            slide.read(0, Box(0, 0, 960, 960))
        assert "\n" not in str(caught.value)
        assert slide.read(0, Box(0, 0, 240, 240)).any()  # the rest stays readable


def damaged(source: Path, target: Path, offset: int, data: bytes) -> Path:
    content = bytearray(source.read_bytes())
    content[offset : offset + len(data)] = data
    target.write_bytes(content)
    return target


def test_a_tile_that_ends_early_is_an_error(example_slide_path: Path, tmp_path: Path) -> None:
    offset, length = tile_place(example_slide_path, 0)
    path = damaged(
        example_slide_path, tmp_path / "a.svs", offset + length // 2, bytes(length - length // 2)
    )
    with (
        open_slide(path) as slide,
        pytest.raises(SlideError, match=r"row 0, column 0 of level 0 is truncated"),
    ):
        slide.read(0, Box(0, 0, 100, 100))


def test_the_tile_that_fails_is_named_rather_than_those_cancelled_because_of_it() -> None:
    wrong = SlideError("the tile in row 3 is truncated")
    tasks: list[Future[None]] = [Future() for _ in range(4)]
    for task, error in zip(
        tasks, (None, CancelledError(), wrong, SlideError("later")), strict=True
    ):
        task.set_exception(error)
    assert hot_path._first_error(tasks) is wrong
    assert hot_path._first_error(tasks[:1]) is None


def test_a_garbled_tile_is_an_error(example_slide_path: Path, tmp_path: Path) -> None:
    offset, length = tile_place(example_slide_path, 0)
    path = damaged(example_slide_path, tmp_path / "a.svs", offset, bytes(length - 2))
    with (
        open_slide(path) as slide,
        pytest.raises(SlideError, match=r"row 0, column 0 of level 0 can't be decoded"),
    ):
        slide.read(0, Box(0, 0, 100, 100))


def test_missing_tiles_are_white_as_in_openslide(tmp_path: Path, random_rgb: Pixels) -> None:
    path = tmp_path / "sparse.tif"

    def tiles() -> Any:
        for number in range(12):
            yield None if number % 3 else random_rgb[:32, :32]

    tifffile.imwrite(path, tiles(), shape=(90, 128, 3), dtype=np.uint8, tile=(32, 32))
    with open_slide(path) as slide, open_slide(path, "openslide") as reference:
        pixels = slide.read(0, Box(0, 0, 90, 128))
        assert (pixels == reference.read(0, Box(0, 0, 90, 128))).all()
        assert (pixels[:32, 32:64] == 255).all()
        assert (pixels[:32, :32] == random_rgb[:32, :32]).all()


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (2, 4), (4, 8), (64, 8)])
def test_threads_follow_from_usable_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(hot_path, "usable_cores", lambda: cores)
    assert hot_path.default_threads() == threads


@pytest.mark.parametrize("rows", [1, 7, 90])
def test_strips_are_read_like_tiles(tmp_path: Path, random_rgb: Pixels, rows: int) -> None:
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, random_rgb, rowsperstrip=rows, compression="zlib")
    with open_slide(path) as slide:
        assert slide.levels[0].tile == (rows, 70)
        assert (slide.read(0, Box(5, 3, 88, 70)) == random_rgb[5:88, 3:70]).all()


def test_large_strips_are_kept_decoded(
    tmp_path: Path, random_rgb: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one_strip.tif"
    tifffile.imwrite(path, random_rgb, rowsperstrip=45, compression="zlib")
    monkeypatch.setattr(hot_path, "LARGE_TILE", 100)
    monkeypatch.setattr(hot_path, "MAX_KEPT_BYTES", 10_000)  # room for one of the two
    preads = []
    pread = os.pread

    def counted(file: int, length: int, offset: int) -> bytes:
        preads.append(offset)
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    with open_slide(path) as slide:
        preads.clear()
        for _ in range(3):
            assert (slide.read(0, Box(0, 0, 20, 70)) == random_rgb[:20]).all()
        assert len(preads) == 1
        assert (slide.read(0, Box(0, 0, 90, 70)) == random_rgb).all()


def test_composed_slides_fall_back_to_tiffslide(
    tmp_path: Path, random_rgb: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the direct path refuses (here: by decree) is read by tiffslide, pixel for pixel."""
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(random_rgb, tile=(32, 32), subifds=1)
        writer.write(random_rgb[::2, ::2], tile=(16, 16), subfiletype=1)
    monkeypatch.setattr(tifffile.TiffPageSeries, "is_multifile", True, raising=False)
    monkeypatch.setattr(tifffile.TiffPageSeries, "__setattr__", _ignore_multifile, raising=False)
    with open_slide(path) as slide:
        assert isinstance(slide._reader, TiffReader)
        assert not slide._reader.direct
        assert len(slide.levels) == 2
        assert (slide.read(0, Box(3, 5, 90, 70)) == random_rgb[3:90, 5:70]).all()
        assert (slide.read(1, Box(1, 2, 45, 35)) == random_rgb[::2, ::2][1:45, 2:35]).all()


def _ignore_multifile(series: Any, name: str, value: Any) -> None:
    if name != "is_multifile":
        object.__setattr__(series, name, value)


def test_grey_is_repeated_and_transparency_put_on_white(tmp_path: Path, random_rgb: Pixels) -> None:
    grey, transparent = tmp_path / "grey.tif", tmp_path / "rgba.tif"
    tifffile.imwrite(grey, random_rgb[..., 0], tile=(32, 32))
    alpha = np.zeros((90, 70, 1), np.uint8)
    alpha[:, 20:40], alpha[:, 40:] = 128, 255
    rgba = np.concatenate([random_rgb, alpha], axis=2)
    tifffile.imwrite(
        transparent, rgba, tile=(32, 32), photometric="rgb", extrasamples=["unassalpha"]
    )
    with open_slide(grey) as slide:
        pixels = slide.read(0, Box(1, 1, 80, 60))
        assert (pixels == random_rgb[1:80, 1:60, :1]).all()
        assert pixels.flags.writeable
    with open_slide(transparent) as slide:
        pixels = slide.read(0, Box(0, 0, 90, 70))
        assert (pixels[:, :20] == 255).all()
        assert (pixels[:, 40:] == random_rgb[:, 40:]).all()
        mixed = np.rint((random_rgb[:, 20:40] * 128.0 + 255 * 127.0) / 255)
        assert np.abs(pixels[:, 20:40] - mixed).max() == 0
