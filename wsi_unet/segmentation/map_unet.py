"""Segmenting lazy arrays, for notebooks without a slide file and an output store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from wsi_unet.errors import OptionError
from wsi_unet.geometry import BlockGrid, Box, Shape, reflect, round_up
from wsi_unet.models.inference.devices import resolve_device, resolve_precision
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.models.model import Model, load_model
from wsi_unet.models.paths import AnyPath
from wsi_unet.segmentation.worker.label_block import predict_box
from wsi_unet.segmentation.worker.run_once import Stopwatch
from wsi_unet.segmentation.worker.task import get_predictor

DEFAULT_CHUNK = 2048
DEFAULT_TILE = 512
"""Side of a tile's core, px, for models that run on windows of any size."""


@dataclass(frozen=True)
class _PartialRaster:
    """A raster of which only the part is in memory that one chunk of the result needs.

    Attributes:
        shape: (rows, columns) of the whole raster, px.
        pixels: RGB of the part in memory, uint8 (rows, columns, 3).
        extent: the box that this part covers, px of the raster.
    """

    shape: Shape
    pixels: NDArray[np.uint8]
    extent: Box

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) uint8 of a box inside the part in memory."""
        return self.pixels[box.relative_to(self.extent).slices()]


@overload
def map_unet(
    image: xr.DataArray,
    model: AnyPath | Model = ...,
    *,
    tile: int | None = ...,
    chunk: int = ...,
    precision: str = ...,
    device: str = ...,
) -> xr.DataArray: ...


@overload
def map_unet(
    image: da.Array | NDArray[np.uint8],
    model: AnyPath | Model = ...,
    *,
    tile: int | None = ...,
    chunk: int = ...,
    precision: str = ...,
    device: str = ...,
) -> da.Array: ...


def map_unet(
    image: xr.DataArray | da.Array | NDArray[np.uint8],
    model: AnyPath | Model = "nuclei-he",
    *,
    tile: int | None = None,
    chunk: int = DEFAULT_CHUNK,
    precision: str = "auto",
    device: str = "auto",
) -> xr.DataArray | da.Array:
    """Return the labels of an image as a lazy array.

    They are the labels of one forward pass over the whole image. Computing a part of them reads
    only that part's window of the image. The image isn't resampled: give it with the model's pixel
    size.

    >>> labels = map_unet(image, "nuclei-he")                        # doctest: +SKIP
    >>> labels[10_000:11_000, 20_000:21_000].compute()               # doctest: +SKIP

    Args:
        image: uint8 RGB: an array (rows, columns, 3), or an xarray with dimensions y, x and c in
            any order. Dask arrays stay lazy.
        model: a model, its path, or the name of a bundled one.
        tile: side of a tile's core, px; a multiple of the network's period. None means 512, or
            the only side that the model runs on.
        chunk: side of a chunk of the result, px; a multiple of the tile.
        precision: "auto", "float32", "bfloat16" or "float16".
        device: "auto", "cpu", "cuda" or "cuda:<index>", on the workers.

    Returns:
        uint8 label values (rows, columns); for an xarray, with its y and x coordinates and the
        classes' names in `attrs["classes"]`.

    Raises:
        OptionError: the image isn't uint8 RGB, tile and chunk don't fit the model, or the model
            needs `segment`.
        ModelError: the model can't be loaded.
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    if isinstance(image, xr.DataArray):
        if set(image.dims) != {"y", "x", "c"}:
            raise OptionError(f"image has dimensions {image.dims}; give it y, x and c")
        image = image.transpose("y", "x", "c")
    pixels = da.asarray(image.data if isinstance(image, xr.DataArray) else image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise OptionError(
            f"image is {pixels.dtype} of shape {pixels.shape}; give uint8 RGB of shape "
            "(rows, columns, 3)"
        )
    _check_model(loaded)
    tile = tile or loaded.spec.tile or DEFAULT_TILE
    _check_sides(loaded, tile, chunk)
    labels = _map_chunks(pixels, loaded, tile, chunk, precision, device)
    if not isinstance(image, xr.DataArray):
        return labels
    return xr.DataArray(
        labels,
        dims=("y", "x"),
        coords={name: image.coords[name] for name in ("y", "x") if name in image.coords},
        name=loaded.spec.name,
        attrs={"classes": {label.value: label.name for label in loaded.spec.labels}},
    )


def _check_model(model: Model) -> None:
    """Refuse models whose result isn't one label image that can be computed lazily."""
    if model.spec.multi_label:
        raise OptionError(
            f"{model.spec.name} may give a pixel several classes, so it makes several label "
            "images; use `segment` instead"
        )
    if model.spec.normalisation.statistics == "slide":
        raise OptionError(
            f"{model.spec.name} normalises with the statistics of the whole slide, which can't be "
            "known of a lazy image; use `segment` instead"
        )


def _check_sides(model: Model, tile: int, chunk: int) -> None:
    period, only = model.spec.border().period, model.spec.tile
    if only is not None and tile != only:
        raise OptionError(
            f"tile {tile}: {model.spec.name} runs on windows of one size, which makes tiles of "
            f"{only} px; leave `tile` out",
            option="tile",
        )
    if tile < 1 or tile % period:
        raise OptionError(
            f"tile {tile} is not a multiple of the network's period, {period} px; "
            f"try `tile={round_up(max(tile, 1), period)}`",
            option="tile",
        )
    if chunk < 1 or chunk % tile:
        raise OptionError(
            f"chunk {chunk} is not a multiple of the tile, {tile} px; "
            f"try `chunk={round_up(max(chunk, 1), tile)}`",
            option="chunk",
        )


def _map_chunks(
    pixels: da.Array, model: Model, tile: int, chunk: int, precision: str, device: str
) -> da.Array:
    shape: Shape = (pixels.shape[0], pixels.shape[1])
    grid = BlockGrid(shape, chunk)
    border = model.spec.border()
    predict = delayed(_predict_chunk, pure=True)
    rows, columns = grid.size

    def lazy_chunk(i: int, j: int) -> da.Array:
        core = grid.core((i, j))
        extent = _find_extent(border.window(border.core(core), shape), shape)
        part = pixels[extent.slices()]
        value = predict(part, extent, core, shape, model, tile, precision, device)
        lazy: da.Array = da.from_delayed(value, shape=core.shape, dtype=np.uint8)
        return lazy

    labels: da.Array = da.block([[lazy_chunk(i, j) for j in range(columns)] for i in range(rows)])
    return labels


def _find_extent(window: Box, shape: Shape) -> Box:
    """Return the part of a raster that has all pixels of a window, which may be mirrored ones."""
    rows = reflect(window.y0, window.y1, shape[0])
    columns = reflect(window.x0, window.x1, shape[1])
    return Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)


def _predict_chunk(
    part: NDArray[np.uint8],
    extent: Box,
    core: Box,
    shape: Shape,
    model: Model,
    tile: int,
    precision: str,
    device: str,
) -> NDArray[np.uint8]:
    device = resolve_device(device)
    predictor = get_predictor(
        model.sha256,
        lambda: Ensemble((model,)),
        tta="none",
        device=device,
        precision=resolve_precision(precision, device, model.spec.precisions),
        processes_per_core=1,
    )
    block = predict_box(
        _PartialRaster(shape, part, extent),
        core,
        predictor,
        tile=tile,
        area=None,
        probabilities=False,
        clock=Stopwatch(),
    )
    labels: NDArray[np.uint8] = block.labels[0]
    return labels
