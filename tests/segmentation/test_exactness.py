"""Exactness: whatever the tiling, labels are those of one forward pass over the whole slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.exactness import (
    assert_every_class_is_there,
    assert_same_labels,
    network_of,
    segment_labels,
)
from support.oracle import Truth, balanced_model, textured, whole_image_forward, write_png

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.models import UNetConfig
from wsi_unet.slides import open_slide
from wsi_unet.slides.resample import choose_resampling, open_raster

# Between them every padding, upsampling and depth, with and without batch norm, and tilings that
# fit their block well and badly; always at least 3 x 3 blocks: of the whole slide where blocks are
# 1024 px, of a part of it where they are 512 px.
ON_THE_REAL_SLIDE = [
    (network_of("valid", "transpose", 1, norm="batch"), 512, 130),
    (network_of("valid", "bilinear", 2, classes=3), 512, 388),
    (network_of("same", "transpose", 3, classes=3, norm="batch"), 512, 512),
    (network_of("same", "bilinear", 4), 1024, 1024),
    (network_of("valid", "transpose", 4, classes=3), 1024, 400),
    (network_of("valid", "bilinear", 3, norm="batch"), 512, 256),
    (network_of("same", "transpose", 2), 512, 188),
    (network_of("same", "bilinear", 1, classes=3, norm="batch"), 512, 366),
]


@pytest.fixture(scope="module")
def real_slides(
    example_slide_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[Path, NDArray[np.uint8]]]:
    """The slide and the part of it, each with its pixels, by the side of the blocks."""
    with open_slide(example_slide_path) as slide:
        image = slide.read(0, Box.from_shape(slide.shape))
    part = image[700:1961, 500:1719]
    path = write_png(tmp_path_factory.mktemp("part") / "part.png", part)
    return {1024: (example_slide_path, image), 512: (path, part)}


@pytest.mark.parametrize(
    ("config", "block", "tile"),
    ON_THE_REAL_SLIDE,
    ids=lambda value: (
        f"{value.padding}-{value.upsampling}-{value.depth}"
        if isinstance(value, UNetConfig)
        else str(value)
    ),
)
def test_labels_are_those_of_one_forward_over_the_real_slide(
    real_slides: dict[int, tuple[Path, NDArray[np.uint8]]],
    tmp_path: Path,
    config: UNetConfig,
    block: int,
    tile: int,
) -> None:
    slide, image = real_slides[block]
    _, network = balanced_model(config, image[:512, :512], tmp_path / "model")
    truth = whole_image_forward(network, config, image)
    assert_every_class_is_there(truth, config.classes)
    labels = segment_labels(slide, tmp_path / "out", tmp_path / "model", block=block, tile=tile)
    assert_same_labels(labels, truth)


@pytest.fixture(scope="module", params=["valid", "same"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Truth]:
    """Return a folder with a slide and a model, and the labels of one pass over the slide."""
    folder, image = tmp_path_factory.mktemp("whole"), textured(1061, 1037)
    config = network_of(request.param, "transpose", 4, classes=3)
    write_png(folder / "slide.png", image)
    _, network = balanced_model(config, image[:512, :512], folder / "model")
    truth = whole_image_forward(network, config, image)
    assert_every_class_is_there(truth, 3)
    return folder, truth


@pytest.mark.parametrize(("block", "tile"), [(512, 64), (512, 512), (1024, 336), (4096, 1024)])
def test_no_tiling_changes_a_label(
    whole: tuple[Path, Truth], tmp_path: Path, block: int, tile: int
) -> None:
    folder, truth = whole
    labels = segment_labels(
        folder / "slide.png", tmp_path / "out", folder / "model", block=block, tile=tile
    )
    assert_same_labels(labels, truth)


@pytest.mark.parametrize(("mpp", "block"), [(0.41, 512), (0.7, 1024), (1.1, 1024)])
def test_resampled_slides_are_exact_too(
    real_slides: dict[int, tuple[Path, NDArray[np.uint8]]], tmp_path: Path, mpp: float, block: int
) -> None:
    """The truth is one forward pass over the slide, or a part of it, resampled in one piece."""
    config = UNetConfig(depth=3, base_width=4)
    path, _ = real_slides[block]
    with open_slide(path) as slide:
        found = slide.mpp.y if slide.mpp is not None else 0.5  # the part doesn't say
        resampling = choose_resampling(slide, (mpp / found, mpp / found))
        raster = open_raster(slide, resampling)
        image = raster.read(Box.from_shape(raster.shape))
    _, network = balanced_model(config, image[:512, :512], tmp_path / "model", mpp=mpp)
    truth = whole_image_forward(network, config, image)
    assert_every_class_is_there(truth, 2)
    labels = segment_labels(path, tmp_path / "out", tmp_path / "model", mpp=found)
    assert_same_labels(labels, truth)


def test_probabilities_are_the_softmax(tmp_path: Path) -> None:
    image = textured(700, 600)
    config = UNetConfig(depth=2, base_width=4, classes=3)
    slide = write_png(tmp_path / "slide.png", image)
    _, network = balanced_model(config, image, tmp_path / "model")
    truth = whole_image_forward(network, config, image)
    assert_every_class_is_there(truth, 3)
    labels = segment_labels(
        slide, tmp_path / "out", tmp_path / "model", outputs=("labels", "probabilities")
    )
    assert_same_labels(labels, truth)
    stored = wsi_unet.open_probabilities(tmp_path / "out").values.astype(float) / 255
    assert np.abs(stored - truth.probabilities).max() <= 0.5 / 255 + 1e-4
