"""The product: whatever the tiling, the labels are those of one forward pass over the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.oracle import (
    Truth,
    balanced_model,
    textured,
    whole_image_forward,
    write_png,
)

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.models import UNetConfig
from wsi_unet.slides import open_slide
from wsi_unet.slides.resample import choose_sampling, open_raster


def assert_same_labels(labels: NDArray[np.uint8], truth: Truth) -> None:
    """Identical wherever the network decides, and it decides nearly everywhere."""
    assert labels.shape == truth.labels.shape
    assert truth.decided.mean() > 0.999
    wrong = (labels != truth.labels) & truth.decided
    assert not wrong.any(), f"{wrong.sum()} labels differ, first at {np.argwhere(wrong)[0]}"


def assert_every_class_is_there(truth: Truth, classes: int) -> None:
    shares = np.bincount(truth.labels.ravel(), minlength=classes) / truth.labels.size
    assert shares.min() >= 0.05, f"a class is too rare for this test to mean anything: {shares}"


def segment_labels(slide: Path, output: Path, model: Path, **options: Any) -> NDArray[np.uint8]:
    settings: dict[str, Any] = {
        "tissue": "none",
        "image": "none",
        "precision": "float32",
        "device": "cpu",
        "block": 512,
        "tile": 256,
    }
    report = wsi_unet.segment(slide, output, model, **(settings | options))
    assert report.state == "finished", report.failures
    return np.asarray(wsi_unet.open_labels(output).values)


def network_of(padding: str, upsampling: str, depth: int, **others: Any) -> UNetConfig:
    return UNetConfig.model_validate(
        {"padding": padding, "upsampling": upsampling, "depth": depth, "base_width": 4} | others
    )


NETWORKS = [
    network_of("valid", "transpose", 1, batch_norm=True),
    network_of("valid", "bilinear", 2, classes=3),
    network_of("same", "transpose", 3, classes=3, batch_norm=True),
    network_of("same", "bilinear", 4),
    network_of("valid", "transpose", 4, classes=3),
    network_of("valid", "bilinear", 3, batch_norm=True),
    network_of("same", "transpose", 2),
    network_of("same", "bilinear", 1, classes=3, batch_norm=True),
]


@pytest.mark.parametrize("config", NETWORKS, ids=lambda c: f"{c.padding}-{c.upsampling}-{c.depth}")
def test_labels_are_those_of_one_forward_over_the_real_slide(
    example_slide_path: Path, tmp_path: Path, config: UNetConfig
) -> None:
    with open_slide(example_slide_path) as slide:
        image = slide.read(0, Box.of_shape(slide.shape))
    _, network = balanced_model(config, image[:512, :512], tmp_path / "model")
    truth = whole_image_forward(network, config, image)
    assert_every_class_is_there(truth, config.classes)
    labels = segment_labels(example_slide_path, tmp_path / "out", tmp_path / "model")
    assert_same_labels(labels, truth)


@pytest.mark.parametrize(("block", "tile"), [(512, 64), (512, 512), (1024, 336), (4096, 1024)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_no_tiling_changes_a_label(tmp_path: Path, padding: str, block: int, tile: int) -> None:
    image = textured(1301, 1187)
    config = network_of(padding, "transpose", 4, classes=3)
    slide = write_png(tmp_path / "slide.png", image)
    _, network = balanced_model(config, image, tmp_path / "model")
    truth = whole_image_forward(network, config, image)
    assert_every_class_is_there(truth, 3)
    labels = segment_labels(slide, tmp_path / "out", tmp_path / "model", block=block, tile=tile)
    assert_same_labels(labels, truth)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.integers(1, 700),
    columns=st.integers(1, 700),
    depth=st.integers(1, 4),
    padding=st.sampled_from(["valid", "same"]),
    upsampling=st.sampled_from(["transpose", "bilinear"]),
    tiles=st.integers(1, 9),
    data=st.data(),
)
def test_any_size_of_slide_and_tile(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    columns: int,
    depth: int,
    padding: str,
    upsampling: str,
    tiles: int,
    data: st.DataObject,
) -> None:
    """Odd sizes, slides smaller than a tile and than the border, single rows and pixels."""
    folder = tmp_path_factory.mktemp("any")
    image = textured(rows, columns, seed=rows * 1000 + columns)
    config = network_of(padding, upsampling, depth)
    model, network = balanced_model(config, textured(256, 256), folder / "model")
    truth = whole_image_forward(network, config, image)
    chunk = 512
    labels = wsi_unet.map_unet(
        image, model, tile=512 // 2 ** data.draw(st.integers(0, 5)), chunk=chunk,
        precision="float32", device="cpu",
    ).compute()  # fmt: skip
    assert labels.shape == truth.labels.shape
    assert not ((labels != truth.labels) & truth.decided).any()


@pytest.mark.parametrize("mpp", [0.31, 0.55, 1.1])
def test_resampled_slides_are_exact_too(
    example_slide_path: Path, tmp_path: Path, mpp: float
) -> None:
    """The truth is one forward over the slide resampled in one piece."""
    config = UNetConfig(depth=3, base_width=4)
    with open_slide(example_slide_path) as slide:
        assert slide.mpp is not None
        sampling = choose_sampling(slide, (mpp / slide.mpp.y, mpp / slide.mpp.x))
        raster = open_raster(slide, sampling)
        image = raster.read(Box.of_shape(raster.shape))
    _, network = balanced_model(config, image[:512, :512], tmp_path / "model", mpp=mpp)
    truth = whole_image_forward(network, config, image)
    assert_every_class_is_there(truth, 2)
    labels = segment_labels(example_slide_path, tmp_path / "out", tmp_path / "model")
    assert_same_labels(labels, truth)


def test_worker_processes_write_the_same_bytes(example_slide_path: Path, tmp_path: Path) -> None:
    config = UNetConfig(depth=3, base_width=4)
    with open_slide(example_slide_path) as slide:
        image = slide.read(0, Box.of_shape(slide.shape))
    _, network = balanced_model(config, image[:512, :512], tmp_path / "model")
    truth = whole_image_forward(network, config, image)
    labels = segment_labels(example_slide_path, tmp_path / "out", tmp_path / "model", workers=2)
    assert_same_labels(labels, truth)


def test_probabilities_are_the_softmax(tmp_path: Path) -> None:
    image = textured(700, 600)
    config = UNetConfig(depth=2, base_width=4, classes=3)
    slide = write_png(tmp_path / "slide.png", image)
    _, network = balanced_model(config, image, tmp_path / "model")
    truth = whole_image_forward(network, config, image)
    labels = segment_labels(
        slide, tmp_path / "out", tmp_path / "model", outputs=("labels", "probabilities")
    )
    assert_same_labels(labels, truth)
    stored = wsi_unet.open_probabilities(tmp_path / "out").values.astype(float) / 255
    assert np.abs(stored - truth.probabilities).max() <= 0.5 / 255 + 1e-4
