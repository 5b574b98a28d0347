from __future__ import annotations

import doctest
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.labelled import NamedValue

import wsi_unet
from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.layout import create_image, create_labels, ensure_root, mark_finished
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid, reduce_mean, reduce_mode
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.opening import open_store
from wsi_unet.view import legend, write_overlay

SHAPE = (600, 900)


CLASSES = (
    NamedValue(0, "background", "#ffffff"),
    NamedValue(1, "nucleus", "#0000ff"),
    NamedValue(2, "tumour", "#ff0000"),
)


def write_all(objects: LocalStore, group: str, pyramid: Pyramid, data: NDArray[np.uint8]) -> None:
    reduce = reduce_mode if data.ndim == 2 else reduce_mean
    for index in pyramid.grid:
        rows, columns = pyramid.grid.core(index).slices()
        write_block(objects, group, pyramid, index, data[..., rows, columns], reduce)
    build_tail(objects, group, pyramid, reduce, None if data.ndim == 2 else len(data))


def make_output(
    path: Path, *, image: bool = True, mpp: tuple[float, float] | None = (0.5, 0.5)
) -> Path:
    """Return a grey slide with a blue square at the left and a red one at the right."""
    objects = LocalStore(path)
    labels = np.zeros(SHAPE, np.uint8)
    labels[100:300, 100:300] = 1
    labels[100:300, 600:800] = 2
    pyramid = Pyramid(SHAPE, 512)
    ensure_root(objects, {})
    if image:
        reduced = Pyramid((150, 225), 512, pyramid.levels)
        create_image(objects, "slide", reduced, Frame.from_downsample((4, 4), mpp))
        write_all(objects, "", reduced, np.full((3, 150, 225), 200, np.uint8))
    create_labels(objects, "areas", pyramid, Frame.from_downsample((1, 1), mpp), CLASSES, {})
    write_all(objects, "labels/areas", pyramid, labels)
    return path


def pixels_of(path: Path) -> NDArray[np.int_]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"), int)


def test_classes_are_tinted_and_outlined_where_they_are(tmp_path: Path) -> None:
    png = write_overlay(make_output(tmp_path / "out"), tmp_path / "o.png")
    picture = pixels_of(png)
    assert picture.shape[1] == 900
    assert picture.shape[0] > 600, "a legend below"
    assert picture[50, 450].tolist() == [200, 200, 200]
    assert picture[200, 450].tolist() == [200, 200, 200]
    red, green, blue = picture[200, 200]
    assert red == green < 180
    assert blue > 205
    red, green, blue = picture[200, 700]
    assert green == blue < 180
    assert red > 205
    # The outline is inside, nearly opaque.
    assert picture[100, 200, 2] > 240
    assert picture[100, 200, 0] < 30
    assert picture[98, 200].tolist() == [200, 200, 200]


def test_without_an_image_the_labels_lie_on_white(tmp_path: Path) -> None:
    picture = pixels_of(
        write_overlay(make_output(tmp_path / "out", image=False), tmp_path / "o.png")
    )
    assert picture[50, 450].tolist() == [255, 255, 255]
    assert picture[200, 200, 2] == 255
    assert picture[200, 200, 0] < 140


@pytest.mark.parametrize(("side", "width"), [(450, 450), (899, 899), (5000, 900)])
def test_the_picture_has_the_size_asked_for_but_is_not_enlarged(
    tmp_path: Path, side: int, width: int
) -> None:
    output = make_output(tmp_path / "out")
    picture = pixels_of(write_overlay(output, tmp_path / "o.png", "areas", side))
    assert picture.shape[1] == width
    scale = width / 900
    centre = picture[round(200 * scale), round(700 * scale)]
    assert centre[0] > centre[1] + 40


def test_pixels_are_square_where_the_slide_s_are_not(tmp_path: Path) -> None:
    output = make_output(tmp_path / "out", image=False, mpp=(0.25, 0.5))
    picture = pixels_of(write_overlay(output, tmp_path / "o.png"))
    assert picture.shape[1] == 900
    row = picture[:200, 200, 0]  # above the scale bar
    assert 50 <= np.flatnonzero(row < 200)[0] <= 51
    assert 148 <= np.flatnonzero(row < 200)[-1] <= 150


def test_the_scale_bar_needs_an_mpp(tmp_path: Path) -> None:
    known = pixels_of(write_overlay(make_output(tmp_path / "a"), tmp_path / "a.png"))
    output = make_output(tmp_path / "b", mpp=None)
    unknown = pixels_of(write_overlay(output, tmp_path / "b.png"))
    corner = slice(540, 600), slice(0, 300)
    assert (unknown[corner] == 200).all()
    dark = (known[corner] < 64).all(-1)
    # 450 µm wide: the bar is 100 µm, that is 200 px.
    assert dark.sum(1).max() == 200


def test_the_legend_names_classes_and_areas_once_finished(tmp_path: Path) -> None:
    output = make_output(tmp_path / "out")
    unfinished = pixels_of(write_overlay(output, tmp_path / "a.png"))
    mark_finished(open_store(output), "areas", (460_000, 40_000, 40_000), "now")
    finished = pixels_of(write_overlay(output, tmp_path / "b.png"))
    assert finished.shape == unfinished.shape
    assert np.array_equal(finished[:600], unfinished[:600])
    assert not np.array_equal(finished[600:], unfinished[600:])
    legend = finished[600:].reshape(-1, 3).tolist()
    assert [0, 0, 255] in legend
    assert [255, 0, 0] in legend


def test_many_classes_flow_over_the_lines(tmp_path: Path) -> None:
    entries = [
        legend.LegendEntry((number, 0, 0), f"class number {number}", "1 mm²")
        for number in range(40)
    ]
    sheet = legend.draw_legend((300, 200), "título", entries)
    assert sheet.width < 400
    colors = set(np.asarray(sheet)[:, :, 0].ravel().tolist())
    assert set(range(40)) <= colors
    wide = legend.draw_legend((300, 200), "a title " * 20, [])
    assert wide.width > 600


def test_memory_follows_the_picture_not_the_slide(tmp_path: Path) -> None:
    objects = LocalStore(tmp_path / "out")
    pyramid = Pyramid((16384, 16384), 4096)
    ensure_root(objects, {})
    create_labels(objects, "areas", pyramid, Frame.from_downsample((1, 1), None), CLASSES, {})
    block = np.ones((4096, 4096), np.uint8)
    write_block(objects, "labels/areas", pyramid, (1, 2), block, reduce_mode)
    build_tail(objects, "labels/areas", pyramid, reduce_mode)
    tracemalloc.start()
    try:
        write_overlay(objects.root, tmp_path / "o.png", max_side=256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20, "level 0 is 256 MiB"
    picture = pixels_of(tmp_path / "o.png")
    assert picture[96, 160, 2] > picture[96, 160, 0]
    assert picture[96, 60].tolist() == [255, 255, 255]


def test_what_cannot_be_done_is_one_clear_line(tmp_path: Path) -> None:
    output = make_output(tmp_path / "out")
    with pytest.raises(OptionError, match="64 to 32768"):
        write_overlay(output, tmp_path / "o.png", max_side=3)
    with pytest.raises(OutputError, match="no labels 'x', only areas"):
        write_overlay(output, tmp_path / "o.png", "x")
    with pytest.raises(OutputError, match=r"nowhere/o\.png: can't write the picture"):
        write_overlay(output, tmp_path / "nowhere" / "o.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_public_name_is_this_one() -> None:
    assert wsi_unet.write_overlay is write_overlay


def test_the_examples_in_the_docs() -> None:
    result = doctest.testmod(legend)
    assert result.attempted
    assert result.failed == 0
