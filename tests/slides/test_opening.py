from __future__ import annotations

import builtins
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.errors import OptionError, SlideError
from wsi_unet.geometry import Box
from wsi_unet.slides import PixelSize, check_mpp, open_slide, opening
from wsi_unet.slides.sources import folder

Pixels = NDArray[np.uint8]


def refused(path: Path, match: str, reader: str = "auto") -> None:
    with pytest.raises(SlideError, match=match) as caught:
        open_slide(path, reader)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_path_that_cannot_be_looked_at_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in ("auto", "openslide"):
        refused(tmp_path / ("long" * 99), "File name too long", reader)
    (tmp_path / "locked").mkdir()

    def locked(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folder, "open_regular", locked)
    for reader in ("auto", "zarr"):
        refused(tmp_path / "locked", "Permission denied", reader)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    refused(tmp_path / "missing.svs", "no such file")
    refused(tmp_path, "is a folder, but neither a Zarr")
    (tmp_path / "empty.svs").write_bytes(b"")
    refused(tmp_path / "empty.svs", "is empty")
    garbage = np.random.default_rng(1).bytes(1001)
    (tmp_path / "garbage.svs").write_bytes(garbage)
    refused(tmp_path / "garbage.svs", "isn't a slide in a known format")
    (tmp_path / "text.svs").write_text("not a slide\n" * 99)
    refused(tmp_path / "text.svs", "isn't a slide in a known format")
    for name, magic in (
        ("tiff", b"II*\0"),
        ("big", b"II+\0\x08\0\0\0"),
        ("png", b"\x89PNG\r\n\x1a\n"),
    ):
        (tmp_path / name).write_bytes(magic + garbage)
        refused(tmp_path / name, "damaged|TIFF|image")
    (tmp_path / "jpeg").write_bytes(b"\xff\xd8\xff" + garbage)
    refused(tmp_path / "jpeg", "an image")


@pytest.mark.parametrize("left", [4, 16, 300, 100_000, 1_276_000, 1_400_000, 1_900_000, 1_938_950])
def test_a_truncated_svs_is_refused_wherever_it_was_cut(
    example_slide_path: Path, tmp_path: Path, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cut.svs"
    path.write_bytes(example_slide_path.read_bytes()[:left])
    with caplog.at_level(logging.DEBUG):
        refused(path, "truncated|can't read this TIFF")
    assert not caplog.records  # tifffile's log lines are in the error, not on the screen


@pytest.mark.parametrize("left", [1000, 1_000_000, 37_000_000, 37_739_594])
def test_a_truncated_tiff_with_its_directory_in_front_is_refused(
    real_slides: dict[str, Path], tmp_path: Path, left: int
) -> None:
    path = tmp_path / "cut.tiff"
    with real_slides["glycogen_HE_15071x13500.tiff"].open("rb") as file:
        path.write_bytes(file.read(left))
    refused(path, "truncated")


def test_pixels_of_other_kinds_are_refused_clearly(tmp_path: Path, random_rgb: Pixels) -> None:
    path = tmp_path / "a.tif"
    grey = random_rgb[..., 0]
    cases: list[tuple[NDArray[Any], dict[str, Any], str]] = [
        (random_rgb.astype(np.uint16), {}, "16 bits per sample"),
        (grey.astype(np.float32), {}, "32 bits per sample"),
        (grey > 99, {}, "1 bit per sample"),
        (grey, {"photometric": "miniswhite"}, "MINISWHITE"),
        (np.stack([grey] * 5), {"photometric": "minisblack"}, "stack"),
        (np.stack([grey] * 2), {"photometric": "minisblack"}, "multi-channel fluorescence"),
    ]
    for pixels, options, match in cases:
        tifffile.imwrite(path, pixels, **options)
        refused(path, match)
    fluorescence = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        fluorescence, np.stack([grey] * 3), photometric="minisblack", metadata={"axes": "CYX"}
    )
    refused(fluorescence, "multi-channel fluorescence")
    png = tmp_path / "deep.png"
    png.write_bytes(imagecodecs.png_encode(random_rgb.astype(np.uint16)))
    refused(png, "16 bits per sample")
    Image.fromarray(random_rgb).convert("CMYK").save(tmp_path / "cmyk.jpg")
    refused(tmp_path / "cmyk.jpg", "colour mode is 'CMYK'")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_small_images_are_slides(tmp_path: Path, random_rgb: Pixels, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(random_rgb).convert(mode).save(path, dpi=(72, 72))
    with open_slide(path) as slide:
        assert (slide.reader, slide.shape, slide.compression) == ("image", (90, 70), "PNG")
        assert slide.mpp is None  # 72 dots per inch are no pixel size
        expected = np.asarray(Image.open(path).convert("RGB"))
        assert (slide.read(0, Box(2, 3, 80, 70)) == expected[2:80, 3:70]).all()


def test_a_damaged_image_is_an_error_when_read(tmp_path: Path, random_rgb: Pixels) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(random_rgb).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with open_slide(path) as slide, pytest.raises(SlideError, match="can't be decoded"):
        slide.read(0, Box(0, 0, 9, 9))


def test_images_too_large_for_memory_are_refused(
    tmp_path: Path, random_rgb: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own limit doesn't count
    for suffix in ("png", "jpg"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(random_rgb).save(path)
        monkeypatch.setenv("WSI_UNET_MAX_PIXELS", "6299")
        refused(path, "pyramidal TIFF, or, if the file is right, set .* WSI_UNET_MAX_PIXELS")
        monkeypatch.setenv("WSI_UNET_MAX_PIXELS", "6300")
        with open_slide(path) as slide:
            assert slide.shape == (90, 70)
            assert slide.read(0, Box(0, 0, 90, 70)).shape == (90, 70, 3)


def test_a_reader_can_be_chosen_and_is_recorded(example_slide_path: Path) -> None:
    with open_slide(example_slide_path, "openslide") as slide:
        assert slide.reader == "openslide"
        assert slide.mpp == PixelSize(0.499, 0.499)
        theirs = slide.read(0, Box(100, 200, 400, 300))
    with open_slide(example_slide_path) as slide:
        assert (slide.read(0, Box(100, 200, 400, 300)) == theirs).all()
    with pytest.raises(OptionError, match="no reader 'magic'"):
        open_slide(example_slide_path, "magic")
    refused(example_slide_path, "isn't a Zarr", reader="zarr")
    refused(example_slide_path, "wsidicom finds no", reader="dicom")


def test_openslide_reads_lower_levels(real_slides: dict[str, Path]) -> None:
    path = real_slides["glycogen_HE_15071x13500.tiff"]
    with open_slide(path, "openslide") as theirs, open_slide(path) as ours:
        assert [a.shape for a in theirs.levels] == [a.shape for a in ours.levels]
        box = Box(200, 300, 500, 700)
        difference = ours.read(2, box).astype(int) - theirs.read(2, box)
        assert np.abs(difference).mean() < 2  # readers round positions differently


def test_dicom_is_a_slide(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "slides" / "camelyon_jpeg.dcm"
    with open_slide(path) as slide, open_slide(path, "openslide") as theirs:
        assert (slide.reader, slide.shape) == ("dicom", (700, 1152))
        assert slide.mpp is not None
        assert slide.mpp.y == pytest.approx(28.97, abs=0.01)
        check_mpp(slide.mpp)
        box = Box(100, 200, 500, 900)
        difference = slide.read(0, box).astype(int) - theirs.read(0, box)
        assert np.abs(difference).max() <= 1
        fingerprint = slide.fingerprint()
    series = tmp_path / "series"
    series.mkdir()
    (series / "notes.txt").write_text("no DICOM")
    os.mkfifo(series / "a pipe.dcm")
    for name in ("renamed.dcm", "IM000001", "A.DCM", "inner"):
        stored = series / name / "1.2.3" if name == "inner" else series / name
        stored.parent.mkdir(exist_ok=True)
        stored.write_bytes(path.read_bytes())
        with open_slide(series) as slide:
            assert slide.reader == "dicom"
            assert slide.fingerprint() == fingerprint
        stored.unlink()


@pytest.mark.parametrize(("reader", "package"), [("openslide", "openslide"), ("dicom", "wsidicom")])
def test_missing_extras_are_named(
    example_slide_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, package: str
) -> None:
    without(package, monkeypatch)
    refused(example_slide_path, rf"pip install 'wsi-unet\[{reader}\]'", reader=reader)


def test_formats_of_an_extra_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without("openslide", monkeypatch)
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff" + bytes(500))
    refused(tmp_path / "a.mrxs", r"wsi-unet\[openslide\]")
    (tmp_path / "a.svs").write_bytes(b"what is this" * 99)
    refused(tmp_path / "a.svs", r"wsi-unet\[openslide\]")


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let imports of a package fail, as if it weren't installed."""
    for name in [*sys.modules]:
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    for reader in ("openslide", "dicom"):
        monkeypatch.delitem(sys.modules, f"wsi_unet.slides.readers.{reader}", raising=False)
    original: Callable[..., Any] = builtins.__import__

    def without_it(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}")
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_it)
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == package else object())


def test_a_tiff_that_tiffslide_does_not_understand_goes_to_openslide(
    example_slide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(tiff: object, images: object) -> None:
        raise NotImplementedError("a layout from the future")

    monkeypatch.setattr("wsi_unet.slides.readers.tiff.describe_series", fails)
    with open_slide(example_slide_path) as slide:
        assert slide.reader == "openslide"
    refused(example_slide_path, "a layout from the future", reader="tiffslide")


def test_absurd_pixel_sizes_are_kept_as_they_are(tmp_path: Path, random_rgb: Pixels) -> None:
    path = tmp_path / "dots.tif"
    tifffile.imwrite(path, random_rgb, resolution=(72, 72), resolutionunit="INCH")
    with open_slide(path) as slide:
        assert slide.mpp is not None
        assert slide.mpp.x == pytest.approx(352.8, abs=0.1)
        with pytest.raises(SlideError, match="give the true `mpp`"):
            check_mpp(slide.mpp)
