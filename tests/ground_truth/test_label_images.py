from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wsi_unet.errors import EvaluationError, OptionError
from wsi_unet.evaluation.class_mapping import parse_classes
from wsi_unet.geometry import Box
from wsi_unet.ground_truth import label_images
from wsi_unet.ground_truth.label_images import TiledPixels, open_image_pixels

LABELS = np.random.default_rng(0).integers(0, 5, (150, 203), np.uint8)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.uint32])
@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib", "tile": (64, 48)},
        {"compression": "lzw", "rowsperstrip": 17},
        {"compression": "zlib", "tile": (64, 48), "predictor": True},
    ],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_every_tiff_is_read_box_by_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, stored: dict[str, Any], tiled: bool
) -> None:
    values = LABELS.astype(kind) * (1 if kind == np.uint8 else 1001)
    if tiled:
        monkeypatch.setattr(label_images, "MAX_WHOLE_BYTES", 1000)
    tifffile.imwrite(tmp_path / "a.tif", values, **stored)
    pixels, shape = open_image_pixels(tmp_path / "a.tif")
    assert isinstance(pixels, TiledPixels) == (tiled and "compression" in stored)
    assert shape == values.shape
    for box in (
        Box(0, 0, 150, 203),
        Box(10, 40, 64, 96),
        Box(63, 47, 66, 50),
        Box(140, 200, 150, 203),
    ):
        assert (pixels.read(box) == values[box.slices()]).all()


@pytest.mark.parametrize("shape", [(1, 150, 203), (150, 203, 1), (1, 1, 150, 203)])
@pytest.mark.parametrize("most", [1000, 1 << 29])
@pytest.mark.parametrize("stored", [{}, {"compression": "zlib", "tile": (64, 48)}])
def test_axes_of_length_one_dont_count(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    most: int,
    stored: dict[str, Any],
) -> None:
    monkeypatch.setattr(label_images, "MAX_WHOLE_BYTES", most)
    tifffile.imwrite(tmp_path / "a.tif", LABELS.reshape(shape), photometric="minisblack", **stored)
    pixels, found = open_image_pixels(tmp_path / "a.tif")
    assert found == LABELS.shape
    assert (pixels.read(Box(10, 40, 150, 203)) == LABELS[10:150, 40:203]).all()


def test_labels_that_jpeg_changed_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS * 50, compression="jpeg", tile=(64, 64))
    with pytest.raises(EvaluationError, match="compressed by JPEG, which changes the numbers"):
        open_image_pixels(tmp_path / "a.tif")


def test_a_large_image_in_one_piece_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_images, "MAX_WHOLE_BYTES", 1000)
    monkeypatch.setattr(label_images, "MAX_TILE_BYTES", 2000)
    tifffile.imwrite(tmp_path / "a.tif", LABELS, compression="zlib", rowsperstrip=150)
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    monkeypatch.setenv("WSI_UNET_MAX_PIXELS", "1000")
    for name in ("a.tif", "a.png"):
        with pytest.raises(EvaluationError, match=r"save it as a tiled"):
            open_image_pixels(tmp_path / name)


def test_a_damaged_tile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_images, "MAX_WHOLE_BYTES", 1000)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, LABELS, compression="zlib", tile=(64, 64))
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[2]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"garbage" * 4)
    pixels, _ = open_image_pixels(path)
    pixels.read(Box(64, 0, 128, 64))
    with pytest.raises(EvaluationError, match="tile 2 can't be decoded"):
        pixels.read(Box(0, 0, 150, 203))


def test_pngs_of_one_bit_palettes_and_sixteen_bits_hold_their_values(tmp_path: Path) -> None:
    palette = Image.fromarray(LABELS, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 9, 9, 9, 1, 2, 3, 4, 5, 6])
    palette.save(tmp_path / "p.png")
    Image.fromarray(LABELS > 2).save(tmp_path / "b.png")
    Image.fromarray(LABELS.astype(np.uint16) * 300).save(tmp_path / "w.png")
    for name, expected in (
        ("p.png", LABELS),
        ("b.png", LABELS > 2),
        ("w.png", LABELS.astype(np.uint16) * 300),
    ):
        pixels, _ = open_image_pixels(tmp_path / name)
        assert (pixels.read(Box(3, 5, 90, 80)) == expected[3:90, 5:80]).all(), name


def test_palettes_of_tiffs_are_indices_too(tmp_path: Path) -> None:
    table = np.random.default_rng(0).integers(0, 1 << 16, (3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", LABELS, photometric="palette", colormap=table)
    pixels, _ = open_image_pixels(tmp_path / "p.tif")
    assert (pixels.read(Box(0, 0, 150, 203)) == LABELS).all()


def test_the_largest_of_several_images_is_the_labels(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(LABELS[:9, :7])
        writer.write(LABELS)
        writer.write(LABELS[::2, ::2])
    pixels, shape = open_image_pixels(tmp_path / "a.tif")
    assert (pixels.read(Box.from_shape(shape)) == LABELS).all()


@pytest.mark.parametrize("values", [LABELS, LABELS > 2])
def test_white_as_zero_is_refused(tmp_path: Path, values: NDArray[Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    with pytest.raises(EvaluationError, match=r"stores white as zero.*minisblack"):
        open_image_pixels(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    pixels, _ = open_image_pixels(tmp_path / "a.tif")
    assert (pixels.read(Box(0, 0, 150, 203)) == values).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_labels_that_are_stored_turned_are_read_as_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(LABELS).save(tmp_path / "a.png", exif=exif)
    tags: Any = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "plain.tif", LABELS, extratags=tags)
    tifffile.imwrite(tmp_path / "a.tif", LABELS, extratags=tags, compression="zlib", tile=(64, 64))
    with Image.open(tmp_path / "a.png") as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    for name in ("a.png", "a.tif", "plain.tif"):
        pixels, shape = open_image_pixels(tmp_path / name)
        assert shape == shown.shape
        assert (pixels.read(Box.from_shape(shape)) == shown).all()
    if orientation != 1:
        monkeypatch.setattr(label_images, "MAX_WHOLE_BYTES", 1000)
        with pytest.raises(EvaluationError, match="is stored turned"):
            open_image_pixels(tmp_path / "a.tif")


def test_colours_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.dstack([LABELS] * 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(EvaluationError, match="has 3 channels"):
        open_image_pixels(tmp_path / "a.png")


@given(st.text(max_size=20))
def test_classes_are_parsed_or_refused_in_one_line(text: str) -> None:
    with suppress(OptionError):
        parse_classes(text)
    assert parse_classes("a b = 1 : T: x,c=d") == {"a b": (1, "T: x"), "c": "d"}
