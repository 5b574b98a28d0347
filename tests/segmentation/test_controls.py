"""Negative controls: deliberate errors must be detected, or the proof of exactness is void."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.oracle import ArrayRaster, Truth, balanced_model, textured, whole_image_forward

from wsi_unet.geometry import Border, Box
from wsi_unet.models import Model, UNetConfig
from wsi_unet.models.inference.predictor import Prediction, Predictor
from wsi_unet.segmentation.worker.label_block import predict_box
from wsi_unet.segmentation.worker.run_once import Stopwatch

SHAPE = (640, 576)
TILE = 128
CONFIG = UNetConfig(depth=4, base_width=4)


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(*SHAPE)


@pytest.fixture(scope="module")
def model_and_truth(
    image: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Truth]:
    path: Path = tmp_path_factory.mktemp("models") / "model"
    model, network = balanced_model(CONFIG, image, path)
    return model, whole_image_forward(network, CONFIG, image)


def errors(predictor: Predictor, image: NDArray[np.uint8], truth: Truth) -> int:
    raster = ArrayRaster(image)
    box = Box.from_shape(raster.shape)
    block = predict_box(
        raster, box, predictor, tile=TILE, area=None, probabilities=False, clock=Stopwatch()
    )
    return int(((block.labels[0] != truth.labels) & truth.decided).sum())


def test_the_pipeline_itself_makes_no_error(
    model_and_truth: tuple[Model, Truth], image: NDArray[np.uint8]
) -> None:
    model, truth = model_and_truth
    assert errors(Predictor(model, device="cpu", precision="float32"), image, truth) == 0


class OffGrid(Border):
    """A predictor whose windows start half a period too early; its output is cropped to match."""

    def window(self, core: Box, shape: tuple[int, int]) -> Box:
        return super().window(core, shape).shift(-self.period // 2, -self.period // 2).grow(0, 16)


def with_border(predictor: Predictor, border: Border) -> Predictor:
    predictor.border = border
    return predictor


def test_core_origins_off_by_half_a_period_fail(
    model_and_truth: tuple[Model, Truth], image: NDArray[np.uint8]
) -> None:
    model, truth = model_and_truth
    predictor = Predictor(model, device="cpu", precision="float32")
    b = predictor.border
    shifted = with_border(predictor, OffGrid(b.before, b.after, b.shrink, b.period, b.edge))
    assert errors(shifted, image, truth) > 100


def test_a_border_one_period_too_short_fails(
    model_and_truth: tuple[Model, Truth], image: NDArray[np.uint8]
) -> None:
    """Context replaced by repeating the edge of what is there: the honest way to lack it."""
    model, truth = model_and_truth

    class Short(Predictor):
        def predict(self, pixels: NDArray[np.uint8], *where: Any, **others: Any) -> Prediction:
            m = self.border.period
            cut = np.pad(pixels[m:-m, m:-m], ((m, m), (m, m), (0, 0)), mode="edge")
            return super().predict(cut, *where, **others)

    assert errors(Short(model, device="cpu", precision="float32"), image, truth) > 100


def test_normalising_each_tile_fails(
    model_and_truth: tuple[Model, Truth], image: NDArray[np.uint8]
) -> None:
    model, truth = model_and_truth

    class PerTile(Predictor):
        def predict(self, pixels: NDArray[np.uint8], *where: Any, **others: Any) -> Prediction:
            stretched = pixels.astype(float) - pixels.min()
            stretched *= 255 / stretched.max()
            return super().predict(stretched.astype(np.uint8), *where, **others)

    assert errors(PerTile(model, device="cpu", precision="float32"), image, truth) > 100


def test_cores_off_the_period_are_refused() -> None:
    border = Border(before=88, after=96, shrink=92, period=16, edge="mirror")
    with pytest.raises(ValueError, match="not a multiple of the period 16"):
        border.core(Box(388, 0, 776, 388))
    assert replace(border, period=4).core(Box(388, 0, 776, 388)).shape == (388, 388)
