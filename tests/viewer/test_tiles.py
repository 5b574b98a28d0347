"""Tiles, pixel by pixel, against what they are made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.labelled import blobs, write_store
from viewer.serving import serving, write_result, write_slide

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.labels.pyramid import reduce_mode
from wsi_unet.viewer.painting import BORDER, FILL, HATCHINGS, paint_classes
from wsi_unet.viewer.pictures import PictureLevel, render_picture
from wsi_unet.viewer.run_states import Look
from wsi_unet.viewer.tile_cache import ENTRY_BYTES, TileCache
from wsi_unet.viewer.tile_grid import TILE, TileGrid

COLOUR = (42, 111, 219)  # of the stores that tests write


def levels_of(labels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    levels = [labels]
    while max(levels[-1].shape) > 1:
        levels.append(reduce_mode(levels[-1]))
    return levels


def expect(
    labels: NDArray[np.uint8], downsample: tuple[float, float], shape: tuple[int, int], zoom: int
) -> NDArray[np.uint8]:
    """Return the labels under the centres of the pixels of a zoom."""
    step = 2**zoom
    level = max(n for n in range(20) if n == 0 or min(downsample) * 2**n <= step)
    level = min(level, max(0, (max(labels.shape) - 1) // 512).bit_length())
    values = levels_of(labels)[level]
    rows, columns = (
        [int((i + 0.5) * step // (factor * 2**level)) for i in range(-(-side // step))]
        for side, factor in zip(shape, downsample, strict=True)
    )
    beyond = np.pad(values, ((0, 9), (0, 9)))
    return beyond[np.ix_(rows, columns)]


@pytest.mark.parametrize(
    ("downsample", "side"),
    [((1.0, 1.0), (600, 1101)), ((1.5, 3.25), (521, 333)), ((0.5, 0.5), (1201, 700))],
)
def test_labels_lie_where_their_pixels_are(
    tmp_path: Path, downsample: tuple[float, float], side: tuple[int, int]
) -> None:
    labels = blobs(side, seed=3)
    shape = tuple(round(s * f) for s, f in zip(side, downsample, strict=True))
    slide = write_slide(tmp_path / "slide.png", (shape[0], shape[1]))
    result = write_result(
        tmp_path / "a.ome.zarr", labels, slide, downsample=downsample, mpp=(0.25, 0.5)
    )
    grid = TileGrid((shape[0], shape[1]))
    with serving(result, slide) as client:
        for zoom in range(grid.zooms):
            expected = expect(labels, downsample, grid.shape, zoom)
            whole = np.zeros((4096, 4096, 4), np.uint8)
            for row in range(-(-expected.shape[0] // TILE)):
                for column in range(-(-expected.shape[1] // TILE)):
                    address = f"/slides/0/classes/0/{zoom}/{row}/{column}?show=2&style=fill"
                    tile = client.read_tile(address)
                    assert tile.shape == (TILE, TILE, 4)
                    whole[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = tile
            shown = np.zeros((4096, 4096), np.bool_)
            shown[: expected.shape[0], : expected.shape[1]] = expected == 2
            assert shown.any()
            np.testing.assert_array_equal(whole[..., 3], shown * FILL)
            assert (whole[shown][:, :3] == COLOUR).all()


def test_classes_are_shown_or_not(tmp_path: Path) -> None:
    labels = np.zeros((512, 512), np.uint8)
    labels[100:200, 100:200] = 1
    labels[100:200, 200:300] = 2
    result = write_store(tmp_path / "a.ome.zarr", labels)
    with serving(result) as client:
        both = client.read_tile("/slides/0/classes/0/0/0/0?show=1,2&style=both")
        one = client.read_tile("/slides/0/classes/0/0/0/0?show=1&style=fill")
        outline = client.read_tile("/slides/0/classes/0/0/0/0?show=1,2&style=outline")
        none = client.read_tile("/slides/0/classes/0/0/0/0?show=&style=fill")
    assert (one[..., 3] > 0).sum() == 100 * 100
    assert not none[..., 3].any()
    assert (both[..., 3] > 0).sum() == 100 * 200
    inside = np.zeros((512, 512), np.bool_)
    inside[102:198, 102:198] = inside[102:198, 202:298] = True
    edge = (labels > 0) & ~inside
    np.testing.assert_array_equal(outline[..., 3] > 0, edge)
    np.testing.assert_array_equal(both[..., 3] == 255, edge)


def test_outlines_have_no_seams() -> None:
    values = np.zeros((TILE + 4, TILE + 4), np.uint8)
    values[:, :] = 1  # a class that goes on beyond the tile has no outline there
    assert not (paint_classes(values, {1: COLOUR}, {1}, "outline")[..., 3]).any()


@pytest.mark.parametrize("zoom", [0, 1, 2])
def test_pictures_are_means(zoom: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1301, 1700, 3), np.uint8)
    whole = PictureLevel((1.0, 1.0), pixels.shape[:2], lambda box: pixels[box.slices()].copy())
    place = TileGrid(pixels.shape[:2]).place(zoom, 0, 0)
    assert place is not None
    tile = render_picture([whole], place)
    assert tile is not None
    step = 2**zoom
    rows, columns = 1301 // step, 1700 // step
    blocks = pixels[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)
    means = blocks.mean((1, 3))[:TILE, :TILE]
    shown = tile[: means.shape[0], : means.shape[1]].astype(float)
    assert np.abs(shown - means).max() <= 1.0


def test_pictures_of_uneven_levels_are_in_place() -> None:
    shape = (3001, 4003)

    def make(factor: tuple[float, float]) -> PictureLevel:
        rows, columns = (int(s // f) for s, f in zip(shape, factor, strict=True))
        y, x = (np.indices((rows, columns)) + 0.5) * np.reshape(factor, (2, 1, 1))
        values = np.repeat(((y + x) / 28)[..., None], 3, -1).round().astype(np.uint8)
        return PictureLevel(factor, (rows, columns), lambda box: values[box.slices()])

    levels = [make((1.0, 1.0)), make((3.9983, 4.0014))]
    for zoom, row, column in ((0, 4, 6), (1, 2, 3), (2, 1, 1), (3, 0, 0)):
        place = TileGrid(shape).place(zoom, row, column)
        assert place is not None
        tile = render_picture(levels, place)
        assert tile is not None
        rows, columns = place.inside
        y, x = (np.indices((rows, columns)) + 0.5) * 2**zoom
        expected = (y + place.box.y0 + x + place.box.x0) / 28
        error = np.abs(tile[:rows, :columns, 0] - expected)[4:-4, 4:-4]
        assert error.max() <= 1.2, zoom


def test_coarse_zooms_of_a_slide_without_levels_are_not_read() -> None:
    def read(box: Box) -> NDArray[np.uint8]:
        raise AssertionError(box)

    place = TileGrid((100_000, 100_000)).place(7, 0, 0)
    assert place is not None
    assert render_picture([PictureLevel((1.0, 1.0), (100_000, 100_000), read)], place) is None


def test_slides_are_shown_as_they_are(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.png", (700, 1100))
    pixels = np.asarray(Image.open(slide)).astype(int)
    with serving(slide) as client:
        about = client.ask("/slides/0/description").json
        tile = client.read_tile("/slides/0/picture/0/1/2").astype(int)
    assert (about["shape"], about["zooms"], about["padded"]) == ([700, 1100], 3, [700, 1100])
    assert np.abs(tile[:188, :76] - pixels[512:, 1024:]).mean() < 4
    assert (tile[200:] > 250).all()


def test_the_stored_image_stands_in_for_a_slide_that_is_missing(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.png", (600, 900))
    wsi_unet.segment(
        slide, tmp_path / "a.ome.zarr", "nuclei-he", mpp=0.5, image="full", tissue="none",
        outputs=("labels", "probabilities"),
        region=(0, 0, 64, 64), device="cpu",
    )  # fmt: skip
    with serving(tmp_path / "a.ome.zarr") as client:
        assert client.serving.notes == ()
        there = client.read_tile("/slides/0/picture/0/0/0").astype(int)
        looks = client.read_tile("/slides/0/looks/0/0/0/0")
        (groups,) = client.ask("/slides/0/description").json["probabilities"]
        probabilities = wsi_unet.open_probabilities(tmp_path / "a.ome.zarr").sel(c="background")
        values = probabilities.values[:64, :64]
        least = int(np.median(values))
        channel = groups["classes"].index("background")
        address = f"/slides/0/heat/0/{channel}/0/0/0?threshold={least}"
        heat = client.read_tile(address)
        assert client.ask(address.replace("heat/0/", "heat/1/")).status == 404
    assert 0 < (values >= least).sum() < values.size
    np.testing.assert_array_equal(heat[:64, :64, 3] > 0, values >= least)
    assert not heat[64:].any()
    assert not looks[10:50, 10:50].any()
    assert (looks[80:, 80:, 3] > 0).all()
    slide.rename(tmp_path / "moved.png")
    with serving(tmp_path / "a.ome.zarr") as client:
        assert "the image that the result stores is shown" in client.serving.notes[0]
        stored = client.read_tile("/slides/0/picture/0/0/0").astype(int)
    assert np.abs(stored - there).max() <= 3


def test_where_the_model_did_not_look_is_no_background(tmp_path: Path) -> None:
    tissue = np.zeros((4, 4), np.bool_)
    tissue[:2, :2] = True
    labels = np.zeros((800, 1000), np.uint8)
    result = write_store(tmp_path / "a.ome.zarr", labels, tissue=tissue)
    with serving(result) as client:
        for zoom in range(2):
            tile = client.read_tile(f"/slides/0/looks/0/{zoom}/0/0")
            step = 2**zoom
            y, x = (np.indices((TILE, TILE)) + 0.5) * step
            on_slide = (y < 800) & (x < 1000)
            looked = (y < 400) & (x < 500)
            border = (tile == BORDER).all(-1)
            assert (tile[on_slide & ~looked][:, 3] >= HATCHINGS[Look.NOT_LOOKED].veil).all()
            assert not tile[looked & ~border].any()
            assert not tile[~on_slide].any()
            assert border.sum() == pytest.approx(900 / step, abs=4)


def test_regions_of_finished_results(tmp_path: Path) -> None:
    labels = np.ones((900, 900), np.uint8)
    labels[600:] = 0
    result = write_store(
        tmp_path / "a.ome.zarr", labels, regions=[[0, 0, 600, 700]], downsample=(1.5, 3.25)
    )
    with serving(result) as client:
        about = client.ask("/slides/0/description").json
        assert about["shape"] == [1350, 2925]
        assert about["runs"][0]["everywhere"] is False
        tile = client.read_tile("/slides/0/looks/0/2/0/0")
    y, x = (np.indices((TILE, TILE)) + 0.5) * 4
    looked = (y < 600 * 1.5) & (x < 700 * 3.25)
    on_slide = (y - 2 < 1350) & (x - 2 < 2925)  # also pixels that reach beyond its edge
    clear = ~tile.any(-1)
    border = (tile == BORDER).all(-1)
    np.testing.assert_array_equal(clear | border, looked | ~on_slide)


def test_the_cache_is_bounded() -> None:
    cache = TileCache(10 * (1000 + ENTRY_BYTES))
    for number in range(100):
        cache.put(number, bytes(1000))
        cache.get(0)
    assert cache.size <= 10 * (1000 + ENTRY_BYTES)
    assert cache.get(0) is not None
    assert cache.get(50) is None
    assert cache.get(99) == bytes(1000)
    cache.put(99, b"")
    assert cache.size == 9 * (1000 + ENTRY_BYTES) + ENTRY_BYTES


def test_tiles_of_the_grid() -> None:
    grid = TileGrid((2967, 2220))
    assert grid.zooms == 4
    for zoom in range(grid.zooms):
        covered = np.zeros(grid.shape, int)
        row = 0
        while (first := grid.place(zoom, row, 0)) is not None:
            column = 0
            while (place := grid.place(zoom, row, column)) is not None:
                covered[place.box.slices()] += 1
                assert place.inside[0] <= TILE
                column += 1
            row += 1
            assert first.step == 2**zoom
        assert (covered == 1).all()
    assert grid.place(4, 0, 0) is None
    assert grid.place(0, -1, 0) is None
