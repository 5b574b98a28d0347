"""A run's output as the OME-Zarr validator and napari's reader understand it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from support.exactness import assert_every_class_is_there, assert_same_labels
from support.oracle import Truth, balanced_model, textured, whole_image_forward, write_png
from support.runs import OPTIONS

import wsi_unet
from wsi_unet.models import UNetConfig

SHAPE = (1301, 1187)
CLASSES = {"first": 3, "second": 2}

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def image() -> Pixels:
    return textured(*SHAPE)


@pytest.fixture(scope="module")
def output_and_truths(
    tmp_path_factory: pytest.TempPathFactory, image: Pixels
) -> tuple[Path, dict[str, Truth]]:
    """Return image, labels and probabilities of one model, and the labels of another."""
    folder = tmp_path_factory.mktemp("standard")
    slide = write_png(folder / "slide.png", image)
    truths = {}
    for name, classes in CLASSES.items():
        config = UNetConfig(depth=2, base_width=4, classes=classes)
        _, network = balanced_model(config, image, folder / name, name=name)
        truths[name] = whole_image_forward(network, config, image)
        assert_every_class_is_there(truths[name], classes)
        outputs = ("labels", "probabilities") if name == "first" else ("labels",)
        report = wsi_unet.segment(
            slide, folder / "out", folder / name, mpp=0.5, outputs=outputs, **OPTIONS
        )
        assert report.state == "finished"
    return folder / "out", truths


def brute_force_mode(labels: Pixels) -> Pixels:
    """Return the most frequent value of each 2 x 2 pixels; background loses ties, the lowest wins.

    One pixel after the other, in the words of the rule.
    """
    rows, columns = labels.shape
    reduced = np.zeros((-(-rows // 2), -(-columns // 2)), np.uint8)
    for y, x in np.ndindex(reduced.shape):
        there = labels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
        reduced[y, x] = max(set(there), key=lambda v: (there.count(v), v != 0, -v))
    return reduced


def brute_force_mean(channels: Pixels) -> Pixels:
    """Return the mean of the existing pixels of each 2 x 2 square, one half rounded up."""
    padded = np.pad(
        channels.astype(float), [(0, 0), *((0, side % 2) for side in channels.shape[1:])],
        constant_values=np.nan,
    )  # fmt: skip
    count, rows, columns = padded.shape
    cells = padded.reshape(count, rows // 2, 2, columns // 2, 2)
    mean: Pixels = np.floor(np.nanmean(cells, axis=(2, 4)) + 0.5).astype(np.uint8)
    return mean


def test_every_group_is_valid(output_and_truths: tuple[Path, dict[str, Truth]]) -> None:
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.v05 import Image, ImageLabel, Labels

    root = zarr.open_group(output_and_truths[0], mode="r")
    expected = {"": Image, "labels": Labels, "labels/first": ImageLabel,
                "labels/second": ImageLabel, "probability/first": Image}  # fmt: skip
    for path, kind in expected.items():
        group = root[path] if path else root
        assert isinstance(group, zarr.Group)
        assert isinstance(open_ome_zarr(group), kind), path


def test_zarr_walks_over_it_without_a_warning(
    output_and_truths: tuple[Path, dict[str, Truth]],
) -> None:
    root = zarr.open_group(output_and_truths[0], mode="r")
    members = dict(root.members(max_depth=None))
    arrays = [name for name, node in members.items() if isinstance(node, zarr.Array)]
    assert len([name for name in arrays if not name.startswith(".")]) == 4 * 3


@pytest.mark.parametrize("name", CLASSES)
def test_every_level_of_the_labels(
    output_and_truths: tuple[Path, dict[str, Truth]], name: str
) -> None:
    output, truths = output_and_truths
    assert_same_labels(wsi_unet.open_labels(output, name).values, truths[name])
    expected = wsi_unet.open_labels(output, name).values
    for level, shown in enumerate(napari_levels(output / "labels" / name, "labels", name)):
        if level:
            expected = brute_force_mode(expected)
        np.testing.assert_array_equal(shown, expected)
        np.testing.assert_array_equal(wsi_unet.open_labels(output, name, level).values, expected)
    assert level == 2


def test_every_level_of_the_probabilities(
    output_and_truths: tuple[Path, dict[str, Truth]],
) -> None:
    output, truths = output_and_truths
    expected = wsi_unet.open_probabilities(output, "first").values
    error = np.abs(expected / 255 - truths["first"].probabilities)
    assert error.max() <= 0.5 / 255 + 1e-4
    check_means(napari_levels(output / "probability/first", "image"), expected)


def test_every_level_of_the_image(
    output_and_truths: tuple[Path, dict[str, Truth]], image: Pixels
) -> None:
    """It is small enough to be stored as it is."""
    check_means(
        [np.asarray(level) for level in napari_layers(output_and_truths[0])[0][0]],
        np.moveaxis(image, -1, 0),
    )


def check_means(levels: list[Pixels], expected: Pixels) -> None:
    assert len(levels) == 3
    for level, shown in enumerate(levels):
        if level:
            expected = brute_force_mean(expected)
        np.testing.assert_array_equal(shown, expected)


def test_napari_shows_image_and_both_label_groups(
    output_and_truths: tuple[Path, dict[str, Truth]],
) -> None:
    output, truths = output_and_truths
    layers = napari_layers(output)
    assert [kind for _, _, kind in layers] == ["image", "labels", "labels"]
    for (levels, metadata, _), (name, truth) in zip(layers[1:], truths.items(), strict=True):
        assert_same_labels(np.asarray(levels[0]), truth)
        classes = [f"class-{index}" for index in range(CLASSES[name])]
        assert metadata["properties"]["class"] == classes
        assert np.allclose(metadata["scale"], 0.5)


def napari_layers(path: Path) -> list[tuple[list[Any], dict[str, Any], str]]:
    """Return (levels, metadata, kind) of each layer that napari would show."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of napari's own imports
        from napari_ome_zarr._reader import napari_get_reader
    reader = napari_get_reader(str(path))
    assert reader is not None
    layers: list[tuple[list[Any], dict[str, Any], str]] = reader(str(path))
    return layers


def napari_levels(path: Path, kind: str, name: str = "") -> list[Pixels]:
    """Return the pixels of every level of a layer; napari shows a label group with its fellows."""
    (shown,) = (
        levels
        for levels, metadata, found in napari_layers(path)
        if found == kind and (not name or metadata["name"].endswith(f"/{name}"))
    )
    return [np.asarray(level) for level in shown]
