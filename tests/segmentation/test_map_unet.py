"""`map_unet`: arrays stay lazy, and only the needed pixels are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from support.oracle import Truth, balanced_model, textured, whole_image_forward

import wsi_unet
from wsi_unet.errors import OptionError
from wsi_unet.models import Model, UNetConfig

CONFIG = UNetConfig(depth=3, base_width=4)
SHAPE = (1500, 1400)


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(*SHAPE)


@pytest.fixture(scope="module")
def model_and_truth(
    image: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Truth]:
    path: Path = tmp_path_factory.mktemp("lazy") / "model"
    model, network = balanced_model(CONFIG, image[:700, :700], path)
    return model, whole_image_forward(network, CONFIG, image)


class Counting:
    """An array that records which pixels were read."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.shape, self.dtype, self.ndim = pixels.shape, pixels.dtype, pixels.ndim
        self.touched = np.zeros(pixels.shape[:2], bool)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[np.uint8]:
        part = self.pixels[index]
        if part.size:
            self.touched[index[:2]] = True
        return part


def test_whole_and_parts_are_exact_and_nothing_else_is_read(
    model_and_truth: tuple[Model, Truth], image: NDArray[np.uint8]
) -> None:
    model, truth = model_and_truth
    source = Counting(image)
    pixels = da.from_array(source, chunks=(100, 100, 3), meta=np.empty((0, 0, 0), np.uint8))
    labels = wsi_unet.map_unet(
        pixels, model, tile=128, chunk=256, precision="float32", device="cpu"
    )
    assert labels.shape == SHAPE
    assert labels.dtype == np.uint8
    assert not source.touched.any()

    part = labels[600:700, 300:420].compute()
    decided = truth.decided[600:700, 300:420]
    assert not ((part != truth.labels[600:700, 300:420]) & decided).any()
    rows = np.flatnonzero(source.touched.any(axis=1))
    columns = np.flatnonzero(source.touched.any(axis=0))
    # The window of chunk 512:768 x 256:512: 44 px more before it, 48 px after.
    assert (rows.min(), rows.max() + 1) == (512 - 44, 768 + 48)
    assert (columns.min(), columns.max() + 1) == (256 - 44, 512 + 48)

    whole = labels.compute()
    assert not ((whole != truth.labels) & truth.decided).any()


def test_an_xarray_keeps_its_coordinates(
    model_and_truth: tuple[Model, Truth], image: NDArray[np.uint8]
) -> None:
    model, truth = model_and_truth
    y = 0.5 * np.arange(SHAPE[0])
    array = xr.DataArray(np.moveaxis(image, -1, 0), dims=("c", "y", "x"), coords={"y": y}).chunk(
        {"y": 512, "x": 512}
    )
    labels = wsi_unet.map_unet(array, model, precision="float32", device="cpu")
    assert labels.dims == ("y", "x")
    np.testing.assert_array_equal(labels.y, y)
    assert labels.attrs["classes"] == {0: "class-0", 1: "class-1"}
    assert not ((labels.values != truth.labels) & truth.decided).any()


@pytest.mark.parametrize(
    ("shape", "dtype", "sides", "message"),
    [
        ((10, 10), "u1", {}, "give uint8 RGB"),
        ((10, 10, 4), "u1", {}, "give uint8 RGB"),
        ((10, 10, 3), "u2", {}, "give uint8 RGB"),
        ((10, 10, 3), "u1", {"tile": 100}, "the network's period, 8 px; try `tile=104`"),
        ((10, 10, 3), "u1", {"tile": 128, "chunk": 200}, "of the tile, 128 px; try `chunk=256`"),
    ],
)
def test_unusable_images_are_refused(
    model_and_truth: tuple[Model, Truth],
    shape: tuple[int, ...],
    dtype: str,
    sides: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(OptionError, match=message):
        wsi_unet.map_unet(da.zeros(shape, dtype=dtype), model_and_truth[0], **sides)
