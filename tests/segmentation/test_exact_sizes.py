"""Exactness for slides of any size: smaller than a tile or the border, one row, one pixel."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.exactness import (
    assert_every_class_is_there,
    assert_same_labels,
    network_of,
    segment_labels,
)
from support.oracle import (
    Truth,
    balanced_model,
    textured,
    whole_image_forward,
    write_png,
)

import wsi_unet
from wsi_unet.models import Model, UNetConfig

NETWORKS = [
    network_of(padding, upsampling, depth, norm="batch")
    for padding, upsampling, depth in product(
        ("valid", "same"), ("transpose", "bilinear"), (1, 2, 3, 4)
    )
]
ENOUGH = 96
"""Shorter side, px, from which on an image has room for every class."""


def name_of(config: UNetConfig) -> str:
    return f"{config.padding}-{config.upsampling}-{config.depth}"


def model_and_truth(
    config: UNetConfig, image: NDArray[np.uint8], folder: Path
) -> tuple[Model, Truth]:
    """Balance a network over the image itself, or over a larger one if it has no room."""
    roomy = min(image.shape[:2]) >= ENOUGH
    base = image if roomy else textured(256, 256)
    model, network = balanced_model(config, base, folder / "model")
    truth = whole_image_forward(network, config, image)
    if roomy:
        assert_every_class_is_there(truth, config.classes)
    return model, truth


sides = st.one_of(st.integers(1, 24), st.integers(1, 330))


@pytest.mark.parametrize("config", NETWORKS, ids=name_of)
@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=sides, columns=sides, periods=st.integers(6, 32), tiles=st.integers(1, 4))
@example(rows=1, columns=1, periods=6, tiles=1)
@example(rows=301, columns=207, periods=7, tiles=2)
def test_any_size_of_slide_tile_and_chunk(
    tmp_path_factory: pytest.TempPathFactory,
    config: UNetConfig,
    rows: int,
    columns: int,
    periods: int,
    tiles: int,
) -> None:
    """Tiles are any multiple of the network's period, chunks any number of tiles."""
    image = textured(rows, columns, seed=rows * 1000 + columns)
    model, truth = model_and_truth(config, image, tmp_path_factory.mktemp("any"))
    tile = periods * max(16, 2**config.depth)
    labels = wsi_unet.map_unet(
        image, model, tile=tile, chunk=tiles * tile, precision="float32", device="cpu"
    )
    assert_same_labels(labels.compute(scheduler="synchronous"), truth)


@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((1, 1), 128),
        ((1, 700), 128),
        ((700, 1), 512),
        ((37, 61), 128),  # smaller than the border of depth 4, 88 px
        ((100, 350), 512),  # smaller than a tile
        ((511, 513), 208),
        ((1025, 513), 256),  # a block of a single pixel in the corner
    ],
    ids=str,
)
@pytest.mark.parametrize("config", [NETWORKS[3], NETWORKS[15]], ids=name_of)
def test_small_and_odd_slides_through_the_whole_pipeline(
    tmp_path: Path, config: UNetConfig, shape: tuple[int, int], tile: int
) -> None:
    image = textured(*shape, seed=3)
    slide = write_png(tmp_path / "slide.png", image)
    _, truth = model_and_truth(config, image, tmp_path)
    labels = segment_labels(slide, tmp_path / "out", tmp_path / "model", tile=tile)
    assert_same_labels(labels, truth)
