"""A U-Net over lazy arrays: for notebooks, where there is no slide file and no output store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import overload

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from wsi_unet.errors import OptionError
from wsi_unet.geometry import BlockGrid, Box, Shape, reflect
from wsi_unet.models.model import Model, load_model
from wsi_unet.models.inference.devices import resolve_device, resolve_precision
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.segmentation.worker.label_block import predict_box
from wsi_unet.segmentation.worker.run_once import Stopwatch
from wsi_unet.segmentation.worker.task import get_predictor

DEFAULT_CHUNK = 2048
DEFAULT_TILE = 512
"""Where the model leaves a choice."""


@dataclass(frozen=True)
class _Held:
    """The part of a raster that was computed for one chunk; the rest can't be read."""

    shape: Shape
    pixels: NDArray[np.uint8]
    place: Box

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box inside the held part."""
        return self.pixels[box.relative_to(self.place).slices()]


@overload
def map_unet(
    image: xr.DataArray,
    model: str | Path | Model = ...,
    *,
    tile: int | None = ...,
    chunk: int = ...,
    precision: str = ...,
    device: str = ...,
) -> xr.DataArray: ...


@overload
def map_unet(
    image: da.Array | NDArray[np.uint8],
    model: str | Path | Model = ...,
    *,
    tile: int | None = ...,
    chunk: int = ...,
    precision: str = ...,
    device: str = ...,
) -> da.Array: ...


def map_unet(
    image: xr.DataArray | da.Array | NDArray[np.uint8],
    model: str | Path | Model = "nuclei-he",
    *,
    tile: int | None = None,
    chunk: int = DEFAULT_CHUNK,
    precision: str = "auto",
    device: str = "auto",
) -> xr.DataArray | da.Array:
    """Return the labels of an image lazily: those of one forward pass over the whole of it.

    Computing a part of the result reads the part's window of the image and nothing else. Pixels
    are taken as they are: resample the image to the model's pixel size first.

    >>> labels = map_unet(image, "nuclei-he")                        # doctest: +SKIP
    >>> labels[10_000:11_000, 20_000:21_000].compute()               # doctest: +SKIP

    Args:
        image: uint8 RGB: an array (rows, columns, 3), or an xarray with dimensions y, x and c in
            any order. Dask arrays stay lazy.
        model: a model, its path, or the name of a bundled one.
        tile: side of a tile's core, px; a multiple of the network's period. None is 512, or the
            only one that the model is run on.
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
            f"image is {pixels.dtype} {pixels.shape}; give uint8 RGB of shape (rows, columns, 3)"
        )
    _check_model(loaded)
    tile = tile or loaded.spec.tile or DEFAULT_TILE
    _check_sides(loaded, tile, chunk)
    labels = _map(pixels, loaded, tile, chunk, precision, device)
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
    """Refuse models of which one lazy label image can't say everything."""
    if model.spec.multi_label:
        raise OptionError(
            f"{model.spec.name} may give a pixel several classes, so it has several label images; "
            "use segment"
        )
    if model.spec.normalisation.statistics == "slide":
        raise OptionError(
            f"{model.spec.name} scales with the statistics of a whole slide, which a lazy image "
            "would have to be computed for; use segment"
        )


def _check_sides(model: Model, tile: int, chunk: int) -> None:
    period, only = model.spec.border().period, model.spec.tile
    if only is not None and tile != only:
        raise OptionError(
            f"tile {tile}: {model.spec.name} is run on windows of one size, which makes tiles of "
            f"{only} px; leave tile out"
        )
    if tile < 1 or tile % period:
        raise OptionError(f"tile {tile} is not a multiple of the network's period {period}")
    if chunk < 1 or chunk % tile:
        raise OptionError(f"chunk {chunk} is not a multiple of the tile {tile}")


def _map(
    pixels: da.Array, model: Model, tile: int, chunk: int, precision: str, device: str
) -> da.Array:
    shape: Shape = (pixels.shape[0], pixels.shape[1])
    grid = BlockGrid(shape, chunk)
    border = model.spec.border()
    predict = delayed(_predict_chunk, pure=True)
    rows, columns = grid.size

    def lazy_chunk(i: int, j: int) -> da.Array:
        core = grid.core((i, j))
        place = _mirrored_extent(border.window(border.core(core), shape), shape)
        part = pixels[place.slices()]
        value = predict(part, place, core, shape, model, tile, precision, device)
        lazy: da.Array = da.from_delayed(value, shape=core.shape, dtype=np.uint8)
        return lazy

    labels: da.Array = da.block([[lazy_chunk(i, j) for j in range(columns)] for i in range(rows)])
    return labels


def _mirrored_extent(window: Box, shape: Shape) -> Box:
    """Return the part of a raster that its mirrored continuation in `window` comes from."""
    rows = reflect(window.y0, window.y1, shape[0])
    columns = reflect(window.x0, window.x1, shape[1])
    return Box(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)


def _predict_chunk(
    part: NDArray[np.uint8],
    place: Box,
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
        _Held(shape, part, place),
        core,
        predictor,
        tile=tile,
        mask=None,
        probabilities=False,
        clock=Stopwatch(),
    )
    labels: NDArray[np.uint8] = block.labels[0]
    return labels
