"""Assertions of exactness: a run has the labels of the oracle wherever the oracle is decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.oracle import Truth

import wsi_unet
from wsi_unet.models import UNetConfig


def assert_same_labels(labels: NDArray[np.uint8], truth: Truth) -> None:
    """Assert that labels are identical where the network decides, which is nearly everywhere.

    Of a handful of pixels two may tie by chance.
    """
    assert labels.shape == truth.labels.shape
    assert np.count_nonzero(~truth.decided) <= max(2, 0.001 * truth.decided.size)
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
