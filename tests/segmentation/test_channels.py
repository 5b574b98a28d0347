"""Grey slides for colour networks and colour slides for grey ones: both see the same picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from support.exactness import assert_same_labels, network_of, segment_labels
from support.oracle import MEAN, STD, balanced_model, textured, whole_image_forward, write_png

SHAPE = (600, 530)
RGB = network_of("valid", "transpose", 2)
GRAY = network_of("valid", "transpose", 2, in_channels=1)


def luma(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the luma by Rec. 601, not rounded, (rows, columns, 1)."""
    weighted = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    result: NDArray[np.float32] = weighted[..., None].astype(np.float32)
    return result


def write_slide(path: Path, image: NDArray[np.uint8]) -> Path:
    if path.suffix == ".png":
        return write_png(path, image)
    tifffile.imwrite(path, image, tile=(256, 256), photometric="minisblack")
    return path


@pytest.mark.parametrize("name", ["slide.png", "slide.tif"])
def test_a_grey_slide_is_all_three_colours(tmp_path: Path, name: str) -> None:
    gray = textured(*SHAPE)[..., 0].copy()
    slide = write_slide(tmp_path / name, gray)
    image = np.repeat(gray[..., None], 3, axis=2)
    _, network = balanced_model(RGB, image, tmp_path / "model")
    labels = segment_labels(slide, tmp_path / "out", tmp_path / "model")
    assert_same_labels(labels, whole_image_forward(network, RGB, image))


@pytest.mark.parametrize("gray_slide", [False, True])
def test_a_grey_network_sees_the_luma(tmp_path: Path, gray_slide: bool) -> None:
    """The grey values of a grey slide are the slide itself."""
    image = textured(*SHAPE)
    pixels = luma(image)
    if gray_slide:
        slide = write_png(tmp_path / "slide.png", image[..., 0].copy())
        pixels = image[..., :1].astype(np.float32)
    else:
        slide = write_png(tmp_path / "slide.png", image)
    _, network = balanced_model(GRAY, pixels, tmp_path / "model", channel_order="gray")
    truth = whole_image_forward(network, GRAY, pixels)
    labels = segment_labels(slide, tmp_path / "out", tmp_path / "model")
    assert_same_labels(labels, truth)


def test_bgr_networks_scale_their_own_channels(tmp_path: Path) -> None:
    image = textured(*SHAPE)
    bgr = np.ascontiguousarray(image[..., ::-1])
    mean, std = (MEAN, 0.5, 0.7), (STD, 0.3, 0.2)
    _, network = balanced_model(
        RGB, bgr, tmp_path / "model", channel_order="bgr", normalisation={"mean": mean, "std": std}
    )
    slide = write_png(tmp_path / "slide.png", image)
    labels = segment_labels(slide, tmp_path / "out", tmp_path / "model")
    assert_same_labels(labels, whole_image_forward(network, RGB, bgr, mean=mean, std=std))
