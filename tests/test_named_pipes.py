"""Whatever a user may name as an input: a pipe in its place is refused, and never waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wsi_unet
from wsi_unet import logs
from wsi_unet.annotations.reading import read_annotations
from wsi_unet.cohorts.cohort import read_cohort
from wsi_unet.errors import WsiUnetError
from wsi_unet.ground_truth.label_images import open_image_pixels
from wsi_unet.models.importing.imported_models import load_or_import_model
from wsi_unet.slides.tissue.mask_files import read_mask
from wsi_unet.training.recipe_file import read_recipe


def evaluate_truth(path: Path) -> object:
    prediction = path.with_name("p.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(prediction)
    return wsi_unet.evaluate(prediction, path)


def evaluate_within(path: Path) -> object:
    prediction = path.with_name("p.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(prediction)
    return wsi_unet.evaluate(prediction, prediction, within=path)


def load_folder_without_spec(path: Path) -> object:
    path.unlink()
    path.mkdir()
    os.mkfifo(path / "model.json")
    return load_or_import_model(path)


def load_folder_without_weights(path: Path) -> object:
    path.unlink()
    path.mkdir()
    bundled = Path(wsi_unet.__file__).parent / "models" / "bundled" / "nuclei-he" / "model.json"
    (path / "model.json").write_bytes(bundled.read_bytes())
    os.mkfifo(path / "weights.safetensors")
    return load_or_import_model(path)


def test_a_log_is_never_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    with (
        pytest.raises(WsiUnetError, match="it is a named pipe that nobody reads"),
        logs.writing_events(str(path)),
    ):
        pass
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with logs.writing_events(str(path)):
            logs.warn("somebody reads")
        assert b"somebody reads" in os.read(reader, 10_000)
    finally:
        os.close(reader)


def test_a_log_that_cannot_be_written_any_more_ends_no_run() -> None:
    warnings: list[str] = []
    with (
        logs.logging_to_terminal(lambda record: warnings.append(record.getMessage())),
        logs.writing_events("/dev/full"),
    ):
        logs.event("one")
        logs.event("two")
    (warning,) = warnings
    assert "the log /dev/full can't be written any more (No space left on device)" in warning


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.png", lambda path: read_mask(path, (4, 4))),
        ("a.geojson", lambda path: read_mask(path, (4, 4))),
        ("a.geojson", read_annotations),
        ("a.tif", open_image_pixels),
        ("a.png", evaluate_truth),
        ("a.xml", evaluate_within),
        ("a.csv", lambda path: read_cohort([str(path)], None)),
        ("a.toml", read_recipe),
        ("a.pth", load_or_import_model),
        ("a.onnx", lambda path: load_or_import_model(path, trust=True)),
        ("a.safetensors", load_or_import_model),
        ("folder", load_folder_without_spec),
        ("folder", load_folder_without_weights),
        ("a.svs", wsi_unet.open_slide),
    ],
)
def test_a_pipe_is_refused(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(WsiUnetError, match="a named pipe, not a file") as caught:
        read(path)
    assert "\n" not in str(caught.value)
