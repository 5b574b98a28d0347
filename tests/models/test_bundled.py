"""The bundled model: its card, and that it finds nuclei and nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiffslide import TiffSlide

from wsi_unet.geometry import Box, reflect
from wsi_unet.models import Model, UNetConfig, bundled_models, load_model

FIELDS = Path(__file__).parents[1] / "data" / "nuclei_he"
SHA256 = "5bfe150c238282e705d637f48ae0d869f5082cf0efb4e03a7d1ef59be5fe24a2"
NAMES = ("0c2550a23b8a", "3934a094e853", "87ea72894f65")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("nuclei-he")


def segment(model: Model, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the nuclei in an image (h, w, 3) at 0.5 µm per pixel, by one pass over all of it."""
    border = model.spec.border()
    rows, columns = image.shape[:2]
    core = border.core(Box(0, 0, rows, columns))
    window = border.window(core, (rows, columns))
    across = reflect(window.x0, window.x1, columns)
    pixels = image[reflect(window.y0, window.y1, rows)][:, across].astype(np.float32) / 255
    scaled = (pixels - model.spec.normalisation.mean) / model.spec.normalisation.std
    with torch.inference_mode():
        logits = model.build()(torch.from_numpy(scaled.astype(np.float32)).permute(2, 0, 1)[None])
    inside = border.core_in_output(core, window)
    found: NDArray[np.bool_] = logits[0].argmax(0).numpy() == 1
    return found[inside.slices()][:rows, :columns]


def read_field(name: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a field and its nuclei at 0.5 µm per pixel, where a typical nucleus has 13 px."""
    image = Image.open(FIELDS / "images" / f"{name}.png")
    instances = np.asarray(Image.open(FIELDS / "instances" / f"{name}.png"))
    areas = np.bincount(instances.ravel())[1:]
    scale = 13 / (2 * math.sqrt(np.median(areas[areas > 0]) / math.pi))
    size = tuple(round(side * scale) for side in reversed(instances.shape))
    nuclei = Image.fromarray((instances > 0).astype(np.uint8) * 255)
    small = [np.asarray(i.resize(size, Image.Resampling.BOX)) for i in (image, nuclei)]
    return small[0], small[1] > 127


def test_is_small_and_the_one_that_was_measured(model: Model) -> None:
    """The checksum changes with the weights: then the figures in the card must, too."""
    assert (bundled_models()["nuclei-he"] / "weights.safetensors").stat().st_size <= 2_000_000
    assert model.sha256 == SHA256


def test_card_says_what_a_user_must_know(model: Model) -> None:
    spec = model.spec
    assert [(label.value, label.name) for label in spec.labels] == [
        (0, "background"),
        (1, "nuclei"),
    ]
    assert (spec.mpp, spec.channel_order, spec.license) == (0.5, "rgb", "CC0-1.0")
    assert isinstance(spec.architecture, UNetConfig)
    assert spec.architecture.padding == "valid"
    assert "BBBC038" in spec.training_data
    assert "diagnostic" in spec.description
    metrics: Any = spec.metrics
    assert "wasn't trained on" in metrics["how"]
    assert metrics["held_out"]["dice"] >= 0.85
    assert metrics["sources"]["nucls_he/images"]["dice"] >= 0.75


@pytest.mark.parametrize("name", NAMES)
def test_finds_the_nuclei_of_fields(model: Model, name: str) -> None:
    image, nuclei = read_field(name)
    found = segment(model, image)
    dice = 2 * (found & nuclei).sum() / (found.sum() + nuclei.sum())
    assert dice >= 0.78


@pytest.mark.parametrize("grey", [255, 243, 200])
def test_finds_nothing_on_glass(model: Model, grey: int) -> None:
    noise = np.random.default_rng(grey).normal(grey, 2, (120, 136, 3))
    assert not segment(model, np.clip(noise, 0, 255).astype(np.uint8)).any()


def test_paints_nuclei_on_the_example_slide_and_neither_glass_nor_fibres(
    model: Model, example_slide_path: Path
) -> None:
    with TiffSlide(example_slide_path) as slide:

        def found(x: int, y: int, columns: int, rows: int) -> float:
            image = slide.read_region((x, y), 0, (columns, rows), as_array=True)
            return float(segment(model, np.asarray(image, dtype=np.uint8)).mean())

        assert found(x=100, y=1500, columns=300, rows=300) < 0.001, "glass"
        assert found(x=330, y=2450, columns=100, rows=250) < 0.03, "collagen"
        assert found(x=660, y=2650, columns=100, rows=200) > 0.15, "epidermis"
