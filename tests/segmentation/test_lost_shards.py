"""Shards that were lost after a run are damage to whoever reads them, not background."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.oracle import balanced_model, textured, write_png
from support.runs import array_objects

import wsi_unet
from wsi_unet.errors import OutputError
from wsi_unet.labels.reading import open_image
from wsi_unet.models import UNetConfig


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a result with labels, probabilities and an image, of which a third is empty."""
    folder = tmp_path_factory.mktemp("whole")
    image = textured(1100, 1600)
    image[:, :540] = 245
    write_png(folder / "slide.png", image)
    balanced_model(UNetConfig(depth=1, base_width=4), image[:, 600:], folder / "model")
    wsi_unet.segment(
        folder / "slide.png", folder / "out.ome.zarr", folder / "model", block=512, tile=128,
        precision="float32", device="cpu", mpp=0.5, image="full", region=(560, 0, 1040, 1100),
        outputs=("labels", "probabilities"),
    )  # fmt: skip
    return folder


def read_everything(output: Path) -> None:
    """Read every level of all arrays."""
    for open_level in (wsi_unet.open_labels, wsi_unet.open_probabilities, open_image):
        opened: Callable[..., object] = open_level
        levels = open_level(output).attrs["levels"]  # type: ignore[union-attr]
        for level in range(levels):
            np.asarray(opened(output, level=level))


def test_what_was_never_stored_is_background(whole: Path) -> None:
    output = whole / "out.ome.zarr"
    (level,) = output.glob("labels/*/0")
    assert not (level / "c/0/0").exists()
    assert not wsi_unet.open_labels(output).values[:512, :512].any()
    read_everything(output)


def test_every_lost_shard_is_missed(whole: Path) -> None:
    output = whole / "out.ome.zarr"
    shards = [key for key in array_objects(output) if "/c/" in f"/{key}"]
    assert len(shards) > 20
    for key in shards:
        content = (output / key).read_bytes()
        (output / key).unlink()
        with pytest.raises(OutputError, match=f"'{key}' is missing; get the output's status"):
            read_everything(output)
        (output / key).write_bytes(content)


def test_a_result_with_a_lost_shard_is_neither_scored_nor_drawn(
    whole: Path, tmp_path: Path
) -> None:
    output = whole / "out.ome.zarr"
    shard = next(output.glob("labels/*/0/c/1/2"))
    content = shard.read_bytes()
    shard.unlink()
    truth = np.zeros((1100, 1600), np.uint8)
    truth[300:900, 700:1400] = 1
    write_png(tmp_path / "truth.png", truth)
    with pytest.raises(OutputError, match="is missing"):
        wsi_unet.evaluate(output, tmp_path / "truth.png", classes={"class-1": 1})
    with pytest.raises(OutputError, match="is missing"):
        wsi_unet.write_overlay(output, tmp_path / "picture.png", max_side=1600)
    shard.write_bytes(content)
