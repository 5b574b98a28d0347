"""Overlays of parts of a slide, of several label groups, and of what the model looked at."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.labelled import blobs, write_store

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.layout import create_image
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid, reduce_mean
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.view import layers, overlay, write_overlay

SHAPE = (700, 900)


def make_output(path: Path, *, image: bool = True, **details: Any) -> Path:
    """Write blobs of two classes, with a noisy image that is reduced three times or without one."""
    details = {"mpp": None} | details
    write_store(path, blobs(SHAPE), **details)
    if image:
        store, levels = LocalStore(path), Pyramid(SHAPE, 512).levels
        pyramid = Pyramid((234, 300), 512, levels)
        pixels = np.random.default_rng(2).integers(0, 256, (3, 234, 300), np.uint8)
        create_image(store, "slide", pyramid, Frame.from_downsample((3, 3), details["mpp"]))
        write_block(store, "", pyramid, (0, 0), pixels, reduce_mean)
        build_tail(store, "", pyramid, reduce_mean, 3)
    return path


def draw(output: Path, **options: Any) -> NDArray[np.int_]:
    with Image.open(write_overlay(output, output.parent / "drawn.png", **options)) as image:
        return np.asarray(image.convert("RGB"), int)


@pytest.mark.parametrize(
    "options",
    [
        {"max_side": 900},
        {"max_side": 333},
        {"max_side": 500, "region": (101, 33, 700, 571)},
        {"max_side": 900, "region": (650, 0, 500, 50)},
    ],
    ids=str,
)
@pytest.mark.parametrize("image", [True, False])
def test_bands_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], image: bool
) -> None:
    details: dict[str, Any] = {"mpp": (0.5, 0.5), "regions": [[50, 300, 650, 800]]}
    output = make_output(tmp_path / "out", image=image, **details)
    at_once = draw(output, **options)
    monkeypatch.setattr(overlay, "BAND_PIXELS", 7 * 900)
    monkeypatch.setattr(layers, "STRIP_BYTES", 40 * 900)
    difference = np.abs(draw(output, **options) - at_once)
    assert difference.max() <= 1, "but for rounding"
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("image", [True, False])
def test_a_part_is_what_the_whole_shows_there(tmp_path: Path, image: bool) -> None:
    output = make_output(tmp_path / "out", image=image)
    whole = draw(output)
    for x, y, width, height in ((120, 30, 600, 444), (0, 0, 900, 700), (700, 600, 900, 900)):
        part = draw(output, region=(x, y, width, height))
        expected = whole[: SHAPE[0], : SHAPE[1]][y : y + height, x : x + width]
        rows, columns, _ = expected.shape
        left = (part.shape[1] - columns) // 2  # where the legend is wider
        shown = part[:rows, left : left + columns]
        assert np.abs(shown - expected).max() <= 1
        assert (part[rows:] == 255).mean() > 0.5


def test_a_part_of_a_slide_with_other_pixels(tmp_path: Path) -> None:
    """Regions are in the slide's pixels, whatever the labels' are; a picture's are square."""
    labels = np.zeros((300, 400), np.uint8)
    labels[100:150, 40:60] = 1
    output = write_store(
        tmp_path / "out", labels, mpp=(0.25, 0.5), downsample=(4.0, 2.0), slide_shape=(1200, 800)
    )
    picture = draw(output, region=(80, 400, 400, 200))  # 200 µm wide, 50 high; labels are 1 µm
    left = (picture.shape[1] - 200) // 2  # where the legend is wider
    colored = (picture[:15, left : left + 200] != 255).any(-1)  # above the scale bar
    assert colored[:, :20].all()
    assert not colored[:, 21:].any()


def test_what_the_model_looked_at_is_outlined(tmp_path: Path) -> None:
    box = np.s_[200:500, 100:600]
    inside = np.zeros(SHAPE, bool)
    inside[box] = True
    output = write_store(
        tmp_path / "out", np.zeros(SHAPE, np.uint8), regions=[[200, 100, 500, 600]], mpp=None
    )
    picture = draw(output)[: SHAPE[0], : SHAPE[1]]
    border = inside.copy()
    border[201:499, 101:599] = False
    assert set(np.unique(picture[border])) <= {12, 13, 255}, "black and white dashes"
    assert 0.3 < (picture[border] < 128).mean() < 0.7
    assert (picture[~border] == 255).all()
    # Nothing is said where the model looked at everything: the legend has no more than classes.
    everything = draw(write_store(tmp_path / "all", np.zeros(SHAPE, np.uint8), mpp=None))
    assert (everything[: SHAPE[0]] == 255).all()
    assert (everything[SHAPE[0] :] < 64).sum() < (draw(output)[SHAPE[0] :] < 64).sum()


def test_a_part_inside_of_what_the_model_looked_at_has_no_outline(tmp_path: Path) -> None:
    nothing = np.zeros(SHAPE, np.uint8)
    output = write_store(tmp_path / "out", nothing, regions=[[200, 100, 500, 600]], mpp=None)
    assert (draw(output, region=(110, 210, 300, 200))[:200] == 255).all()


def test_several_groups_lie_over_each_other(tmp_path: Path) -> None:
    """Each on its own pixels, and all there are unless some are named."""
    coarse, fine = np.zeros((350, 450), np.uint8), np.zeros((389, 500), np.uint8)
    coarse[45:90, 45:90] = 1
    fine[200:250, 300:350] = 1
    slide: dict[str, Any] = {"mpp": (0.5, 0.5), "slide_shape": SHAPE, "color": "#ff0000"}
    output = write_store(tmp_path / "out", coarse, name="a", downsample=(2.0, 2.0), **slide)
    write_store(output, fine, name="b", downsample=(1.8, 1.8), **slide)

    def find_colored(**options: Any) -> NDArray[np.bool_]:
        picture = draw(output, **options)[:300]  # above the scale bar
        left = (picture.shape[1] - 500) // 2 if picture.shape[1] > 500 else 0
        colored: NDArray[np.bool_] = (picture[:, left:] != 255).any(-1)
        return colored

    for name, labels in (("a", coarse), ("b", fine)):
        alone = find_colored(label=name)
        assert np.array_equal(alone[:, : labels.shape[1]], labels[:300] > 0)
    both = find_colored()
    assert np.array_equal(both, find_colored(label=["a", "b"]))
    expected = fine[:300] > 0
    expected[50:100, 50:100] = True
    assert np.array_equal(both[:, :500], expected)
    with pytest.raises(OutputError, match="no labels 'c', only a, b"):
        draw(output, label=["a", "c"])
    with pytest.raises(OptionError, match="at least one label group"):
        draw(output, label=[])


def test_memory_does_not_follow_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "BAND_PIXELS", 1 << 15)
    monkeypatch.setattr(layers, "STRIP_BYTES", 1 << 17)
    output = write_store(tmp_path / "out", blobs((1500, 1500)), mpp=None)
    peaks = []
    for side in (300, 1500):
        draw(output, max_side=side)  # what stays in memory is there now
        tracemalloc.start()
        try:
            write_overlay(output, tmp_path / "o.png", max_side=side)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1500 * 1500, "one byte per pixel; it has three"
    assert peaks[1] < 4 * peaks[0], "for 25 times as many pixels"


def test_what_cannot_be_drawn_leaves_no_file(tmp_path: Path) -> None:
    output = make_output(tmp_path / "out")
    with pytest.raises(OptionError, match=r"`region=\(900, 0, 5, 5\)` .* which is 900 x 700 px"):
        write_overlay(output, tmp_path / "o.png", region=(900, 0, 5, 5))
    (output / "labels/nuclei/0/c/1/1").write_bytes(b"torn")
    with pytest.raises(OutputError, match="verify"):
        write_overlay(output, tmp_path / "o.png")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
