from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from wsi_unet.errors import MaskError
from wsi_unet.geometry import Box
from wsi_unet.slides import mask_in_box
from wsi_unet.slides.tissue import mask_images
from wsi_unet.slides.tissue.mask_files import read_mask
from wsi_unet.slides.tissue.mask_shapes import check_shape

Mask = NDArray[np.bool_]


@pytest.fixture
def few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce masks from 17 px on, and read them in small pieces."""
    monkeypatch.setattr(mask_images, "MAX_CELLS", 16)
    monkeypatch.setattr(mask_images, "PIECE_PIXELS", 400)


def reduced(mask: Mask, most: int = 16) -> Mask:
    """Return `mask` reduced by definition: a cell is tissue if any pixel that it touches is."""
    side = -(-max(mask.shape) // most)
    rows, columns = (-(-length // side) for length in mask.shape)
    result = np.zeros((rows, columns), np.bool_)
    for y, x in np.argwhere(mask):
        for r in range(rows):
            if r * mask.shape[0] < (y + 1) * rows and y * rows < (r + 1) * mask.shape[0]:
                for c in range(columns):
                    left, right = c * mask.shape[1], (c + 1) * mask.shape[1]
                    result[r, c] |= left < (x + 1) * columns and x * columns < right
    return result


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    most=st.integers(1, 40),
    seed=st.integers(0, 99),
    piece=st.integers(1, 25),
)
def test_cells_are_tissue_if_any_of_their_pixels_is(
    shape: tuple[int, int], most: int, seed: int, piece: int
) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.02
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_images, "MAX_CELLS", most)
        cells = mask_images.ReducedMask(shape)
    for box in Box.from_shape(shape).tiles(piece):
        cells.add(mask[box.slices()], box.y0, box.x0)
    assert max(cells.mask.shape) <= most
    assert (cells.mask == reduced(mask, most)).all()
    for sides in (shape, (2 * shape[0] + 1, 3 * shape[1]), (shape[0] // 2 + 1, 97)):
        whole = Box.from_shape(sides)
        kept = mask_in_box(cells.mask, whole, sides)
        assert (kept | ~mask_in_box(mask, whole, sides)).all()  # no tissue is lost


def written(path: Path, mask: Mask, **options: Any) -> Path:
    tifffile.imwrite(path, mask.astype(np.uint8) * 255, **options)
    return path


@pytest.mark.usefixtures("few_cells")
@pytest.mark.parametrize("shape", [(70, 90), (64, 16), (17, 5)])
def test_images_of_every_kind_are_reduced(tmp_path: Path, shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(1).random(shape) < 0.03
    grey = mask.astype(np.uint8) * 255
    paths = [
        written(tmp_path / "plain.tif", mask),
        written(tmp_path / "rows.tif", mask, rowsperstrip=3),
        written(tmp_path / "strips.tif", mask, rowsperstrip=7, compression="zlib"),
        written(tmp_path / "tiles.tif", mask, tile=(16, 32), compression="lzw", predictor=True),
        tmp_path / "bits.tif",
        tmp_path / "deep.tif",
        tmp_path / "colour.tif",
        tmp_path / "a.png",
        tmp_path / "bits.png",
        tmp_path / "colour.png",
        tmp_path / "a.bmp",
    ]
    tifffile.imwrite(paths[4], mask, photometric="minisblack")
    tifffile.imwrite(paths[5], grey.astype(">u2"), byteorder=">")
    tifffile.imwrite(paths[6], np.dstack([grey * 0, grey, grey * 0]), tile=(16, 16))
    Image.fromarray(grey).save(paths[7])
    Image.fromarray(mask).save(paths[8])
    Image.fromarray(np.dstack([grey, grey, grey * 0, grey | 255])).save(paths[9])
    Image.fromarray(grey).save(paths[10])
    for path in paths:
        assert (read_mask(path, shape) == reduced(mask)).all(), path.name


@pytest.mark.usefixtures("few_cells")
def test_a_coarse_level_of_a_large_pyramid_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pyramid.tif"
    levels = [np.full((64 >> k, 48 >> k), 0, np.uint8) for k in range(4)]
    for number, pixels in enumerate(levels):
        pixels[number, number] = 1  # tells which level was read
    with tifffile.TiffWriter(path) as writer:
        writer.write(levels[0], tile=(16, 16), subifds=3)
        for pixels in levels[1:]:
            writer.write(pixels, tile=(16, 16), subfiletype=1)
    assert (read_mask(path, (64, 48)) == reduced(levels[0] > 0)).all()
    monkeypatch.setattr(mask_images, "QUICK_PIXELS", 32 * 24)
    assert (read_mask(path, (64, 48)) == reduced(levels[1] > 0)).all()
    monkeypatch.setattr(mask_images, "QUICK_PIXELS", 1)  # but none with fewer cells than wanted
    assert (read_mask(path, (64, 48)) == reduced(levels[2] > 0)).all()


def test_a_mask_as_large_as_its_slide_takes_little_memory(tmp_path: Path) -> None:
    """One of 3.6 gigapixels, as tools write them: mostly of one value, in compressed tiles."""
    path = tmp_path / "mask.tif"
    side, tile = 60_000, 2000
    marked = np.zeros((tile, tile), np.uint8)
    marked[7, 9] = 1

    def tiles() -> Iterator[NDArray[np.uint8] | None]:
        for number in range((side // tile) ** 2):
            yield marked if number in (0, 31, 899) else None

    tifffile.imwrite(
        path, tiles(), shape=(side, side), dtype=np.uint8, tile=(tile, tile), compression="zlib"
    )
    tracemalloc.start()
    mask = read_mask(path, (side, side))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mask.shape == (7500, 7500)  # cells of 8 px
    assert np.argwhere(mask).tolist() == [[0, 1], [250, 251], [7250, 7251]]
    assert peak < 150e6


def test_large_pngs_and_jpegs_are_read_though_pillow_refuses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.random.default_rng(0).random((90, 70)) < 0.5
    Image.fromarray(mask).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "a.bmp")
    Image.new("L", (70, 90), 255).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert (read_mask(tmp_path / "a.png", (90, 70)) == mask).all()
    assert read_mask(tmp_path / "a.jpg", (90, 70)).all()
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(MaskError, match=r"too large.*tiled TIFF"):
        read_mask(tmp_path / "a.bmp", (90, 70))


def refused(path: Path, match: str) -> None:
    with pytest.raises(MaskError, match=match) as caught:
        read_mask(path, (90, 70))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_absurd_sizes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.ones((90, 70), np.bool_)
    Image.fromarray(mask).save(tmp_path / "a.png")
    strip = written(tmp_path / "strip.tif", mask, rowsperstrip=90, compression="zlib")
    tiles = written(tmp_path / "tiles.tif", mask, tile=(16, 16))
    monkeypatch.setattr(mask_images, "MAX_DECODED", 2000)
    monkeypatch.setenv("WSI_UNET_MAX_PIXELS", "2000")
    refused(tmp_path / "a.png", r"too large: 70 x 90 px are decoded at once.*8192 px")
    monkeypatch.delenv("WSI_UNET_MAX_PIXELS")
    refused(strip, r"in pieces of .* too large.*8192 px")
    assert read_mask(tiles, (90, 70)).all()
    monkeypatch.setattr(mask_images, "MAX_PIXELS", 2000)
    refused(tiles, "larger than any slide")


def test_a_damaged_tile_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((90, 70)) < 0.5
    path = written(tmp_path / "tiles.tif", noise, tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        offset, length = page.dataoffsets[7], page.databytecounts[7]
    content = bytearray(path.read_bytes())
    content[offset : offset + length] = bytes(length)
    path.write_bytes(content)
    refused(path, "can't be decoded")
    path = written(tmp_path / "plain.tif", noise)
    path.write_bytes(path.read_bytes()[:4000])
    refused(path, "can't be decoded")


@pytest.mark.parametrize(
    ("mask", "slide"),
    [
        ((96, 128), (768, 1024)),
        ((97, 129), (769, 1025)),  # rounded up
        ((96, 128), (770, 1031)),  # rounded down
        ((1, 1), (3, 4)),
        ((8, 8192), (100, 100_000)),
        ((24, 33), (12_000, 16_400)),
    ],
)
def test_a_reduced_slide_is_a_masks_shape(mask: tuple[int, int], slide: tuple[int, int]) -> None:
    check_shape(Path("a.png"), mask, slide)


@pytest.mark.parametrize(
    ("mask", "slide", "match"),
    [
        ((128, 96), (768, 1024), r"96 x 128 px, .* 1024 x 768 px: .*96 x 72 px, or turn it by 90°"),
        ((100, 128), (768, 1024), r"such as 128 x 96 px$"),
        ((600, 1024), (768, 1024), r"such as 1024 x 768 px$"),
        ((1, 200), (768, 1024), r"such as 200 x 150 px$"),
        ((3, 2), (400, 600), r"or turn it by 90°$"),
    ],
)
def test_a_mask_of_another_shape_is_refused(
    mask: tuple[int, int], slide: tuple[int, int], match: str
) -> None:
    with pytest.raises(MaskError, match=match):
        check_shape(Path("a.png"), mask, slide)


@pytest.mark.parametrize("number", [np.nan, -1.0, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_numbers_that_arent_clearly_tissue_are_refused(
    tmp_path: Path, number: float, dtype: type[np.number[Any]]
) -> None:
    if dtype == np.int16 and number != -1:
        return
    pixels = np.zeros((90, 70), dtype)
    pixels[3:5, 3:5] = 1
    pixels[50, 60] = number
    stored: list[dict[str, Any]] = [{}, {"compression": "zlib", "tile": (16, 16)}]
    for options in stored:
        tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
        refused(tmp_path / "a.tif", "holds .*and it is unclear whether that is tissue")


def test_white_as_zero_and_other_colour_spaces_are_refused(tmp_path: Path) -> None:
    """Viewers and Pillow show white where tifffile reads 0, whose bool arrays are like that."""
    mask = np.zeros((90, 70), np.bool_)
    mask[3:9, 5:20] = True
    path = tmp_path / "a.tif"
    for pixels in (mask, mask.astype(np.uint8) * 255):
        tifffile.imwrite(path, pixels, photometric="miniswhite")
        refused(path, "stores white as zero")
    Image.fromarray(mask).save(path, tiffinfo={262: 0})
    refused(path, "stores white as zero")
    tifffile.imwrite(path, np.dstack([mask.astype(np.uint8)] * 3), photometric="cielab")
    refused(path, "stores colours as CIELAB")


def test_palettes_mark_what_they_show_if_nothing_contradicts(tmp_path: Path) -> None:
    indices = np.zeros((90, 70), np.uint8)
    indices[3:9, 5:20], indices[50:60, 5:20] = 1, 2
    clear = [(0, 0, 0), (255, 0, 0), (0, 0, 9)]
    for colours in (clear, [(255, 255, 255), *clear[1:]], [*clear[:2], (0, 0, 0)]):
        image = Image.fromarray(indices, "P")
        image.putpalette(np.array(colours, np.uint8).tobytes())
        image.save(tmp_path / "a.png")
        table = np.zeros((3, 256), np.uint16)
        table[:, :3] = np.array(colours).T * 257
        tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=table)
        for name in ("a.png", "a.tif"):
            if colours == clear:
                assert (read_mask(tmp_path / name, (90, 70)) == (indices > 0)).all()
            else:
                refused(tmp_path / name, "has a palette that shows 0 as a colour")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_that_are_stored_turned_are_read_as_they_are_shown(
    tmp_path: Path, orientation: int
) -> None:
    pixels = np.zeros((48, 64), np.uint8)
    pixels[:8, :16] = pixels[40:, 56:] = pixels[16:24, 8:16] = 255
    exif = Image.Exif()
    exif[274] = orientation
    paths = [tmp_path / f"a.{suffix}" for suffix in ("png", "jpg", "tif")]
    for path in paths[:2]:
        Image.fromarray(pixels).save(path, exif=exif)
    tifffile.imwrite(
        paths[2],
        pixels,
        tile=(16, 16),
        compression="zlib",
        extratags=[(274, 3, 1, orientation, True)],
    )
    with Image.open(paths[0]) as image:
        shown = np.asarray(ImageOps.exif_transpose(image)) > 0
    assert (read_mask(paths[0], shown.shape) == shown).all()
    assert (read_mask(paths[2], shown.shape) == shown).all()
    assert (read_mask(paths[1], shown.shape) >= shown).all()  # JPEG blurs


@pytest.mark.parametrize("shape", [(1, 40, 60), (40, 60, 1), (1, 1, 40, 60), (1, 40, 60, 3)])
@pytest.mark.parametrize("stored", [{}, {"compression": "zlib", "tile": (16, 16)}])
def test_axes_of_length_one_dont_count(
    tmp_path: Path, shape: tuple[int, ...], stored: dict[str, Any]
) -> None:
    mask = np.random.default_rng(0).random((40, 60)) < 0.3
    pixels = np.repeat(mask[..., None], 3, axis=2) if shape[-1] == 3 else mask
    kind = "rgb" if shape[-1] == 3 else "minisblack"
    tifffile.imwrite(
        tmp_path / "a.tif", pixels.astype(np.uint8).reshape(shape), photometric=kind, **stored
    )
    assert (read_mask(tmp_path / "a.tif", (40, 60)) == mask).all()


def test_damaged_exif_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.random.default_rng(0).random((40, 60)) < 0.3
    Image.fromarray(mask).save(tmp_path / "a.png", exif=b"Exif\0\0junk")
    with caplog.at_level("WARNING"):
        assert (read_mask(tmp_path / "a.png", (40, 60)) == mask).all()
    assert "its EXIF is damaged" in caplog.text


def test_masks_too_large_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.ones((40, 60), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setenv("WSI_UNET_MAX_PIXELS", "2000")
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("decoded"))
    refused(tmp_path / "a.png", "too large")


def test_pieces_that_arent_stored_mark_what_their_value_says(tmp_path: Path) -> None:
    """As many as a file of a few kB can claim, without making their pixels."""

    def tiles() -> Iterator[NDArray[np.int16] | None]:
        yield np.zeros((16, 16), np.int16)
        yield from [None] * 3

    for fill in ("1", "0", "-1"):
        tifffile.imwrite(
            tmp_path / "a.tif", tiles(), shape=(32, 32), dtype=np.int16, tile=(16, 16),
            compression="zlib", extratags=[(42113, 2, None, fill, True)],
        )  # fmt: skip
        if fill == "-1":
            with pytest.raises(MaskError, match="holds -1"):
                read_mask(tmp_path / "a.tif", (32, 32))
            continue
        expected = np.full((32, 32), fill == "1")
        expected[:16, :16] = False
        assert (read_mask(tmp_path / "a.tif", (32, 32)) == expected).all()


@pytest.mark.parametrize("error", [ZeroDivisionError(), AttributeError("x"), MemoryError()])
def test_whatever_a_decoder_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    path = written(tmp_path / "a.tif", np.ones((90, 70), np.bool_), tile=(16, 16))
    monkeypatch.setattr(tifffile.TiffFile, "__init__", fail)
    refused(path, "can't be decoded")


def test_a_list_of_images_that_runs_in_a_circle_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", np.ones((90, 70), np.bool_))
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    entries = int.from_bytes(content[first : first + 2], "little")
    following = first + 2 + 12 * entries
    content[following : following + 4] = content[4:8]
    path.write_bytes(content)
    refused(path, "runs in a circle")


def test_the_largest_of_several_images_is_the_mask(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((90, 70)) < 0.3
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.ones((9, 7), np.uint8))
        writer.write(mask.astype(np.uint8) * 255)
    assert (read_mask(tmp_path / "a.tif", (90, 70)) == mask).all()
    frames = [Image.fromarray((part * 255).astype(np.uint8)) for part in (mask, ~mask)]
    for name in ("a.gif", "a.png", "a.mpo"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        refused(tmp_path / name, "holds several images")


def test_black_is_no_tissue_in_any_colour_space(tmp_path: Path) -> None:
    mask = np.zeros((96, 64), np.bool_)
    mask[16:48, 8:40] = True
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    grey.convert("RGB").convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    found = read_mask(tmp_path / "a.jpg", (96, 64))
    assert (found[::8, ::8] == mask[::8, ::8]).all()
