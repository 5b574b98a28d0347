"""Label OME-Zarrs and label images, opened to be read box by box."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.errors import EvaluationError
from wsi_unet.geometry import Box, round_up
from wsi_unet.ground_truth.grids import Grid, PixelCentres
from wsi_unet.ground_truth.label_images import open_image_pixels
from wsi_unet.labels.progress import Progress
from wsi_unet.labels.reading import open_labels
from wsi_unet.locations import Location
from wsi_unet.storage.opening import open_store

LabelsLike = str | os.PathLike[str] | Location | xr.DataArray
"""A path or URL of labels (OME-Zarr, PNG or TIFF), or labels that `open_labels` returned."""


class Pixels(Protocol):
    """Label values that several threads can read at once, box by box."""

    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        """Return the values (h, w) of a box inside the image."""


@dataclass(frozen=True, eq=False)
class LabelRaster:
    """An open label image.

    Attributes:
        name: what messages call it.
        grid: where its pixels lie.
        pixels: its values.
        classes: {value: name}; None where values have no names, as in a PNG or TIFF.
        computed: boxes outside of which nothing was computed; None if all of it was.
        chunk: (rows, columns) that are stored together; None where that makes no difference.
    """

    name: str
    grid: Grid
    pixels: Pixels
    classes: Mapping[int, str] | None = None
    computed: tuple[Box, ...] | None = None
    chunk: tuple[int, int] | None = None


def open_label_raster(labels: LabelsLike, name: str | None = None, level: int = 0) -> LabelRaster:
    """Open label values.

    Args:
        labels: a label OME-Zarr of wsi-unet (a folder or a URL), a PNG or TIFF, or an open array.
        name: name of the label group, if the OME-Zarr holds several.
        level: level of the OME-Zarr's pyramid, 0 the finest; images have no other.

    Raises:
        EvaluationError: it can't be read, or isn't finished.
        OutputError: the folder isn't an output of wsi-unet, or has no such label group.
    """
    if isinstance(labels, xr.DataArray):
        return _wrap_array(labels, str(labels.name or "the array"), None)
    location = Location.parse(labels)
    if location.is_url or location.path.is_dir():
        array = open_labels(location, name, level)
        return _wrap_array(array, str(location), _computed_boxes(location, str(array.name), level))
    if name is not None:
        raise EvaluationError(
            f"{location}: isn't a label OME-Zarr, so it has no label group {name!r}"
        )
    pixels, shape = open_image_pixels(location.path)
    return LabelRaster(str(location), Grid(shape), pixels)


class _ArrayPixels(Pixels):
    def __init__(self, array: xr.DataArray) -> None:
        self._data = array.data

    @override
    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        rows, columns = box.slices()
        values = self._data[rows, columns]
        if is_dask_collection(values):
            values = values.compute(scheduler="synchronous")
        return np.asarray(values)


def _wrap_array(array: xr.DataArray, name: str, computed: tuple[Box, ...] | None) -> LabelRaster:
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise EvaluationError(
            f"{name}: labels are whole numbers (y, x), not {array.dtype} {array.dims}"
        )
    if array.attrs.get("finished", "") is None:
        raise EvaluationError(
            f"{name}: the labels {array.name!r} aren't finished, and missing blocks would count as "
            "background; run the same segmentation again first"
        )
    chunk = array.data.chunksize if hasattr(array.data, "chunksize") else None
    return LabelRaster(
        name=name,
        grid=_find_grid(array),
        pixels=_ArrayPixels(array),
        classes=array.attrs.get("classes"),
        computed=computed,
        chunk=chunk,
    )


def _find_grid(array: xr.DataArray) -> Grid:
    shape = int(array.shape[0]), int(array.shape[1])
    if "pixel_size" not in array.attrs or not array.size:
        return Grid(shape)
    y, x = array.dims
    centres = PixelCentres((float(array[y][0]), float(array[x][0])), array.attrs["pixel_size"])
    slide = array.attrs.get("provenance", {}).get("slide", {})
    facts = {
        "slide": slide.get("fingerprint"),
        "slide_shape": tuple(slide["shape"]) if "shape" in slide else None,
    }
    if array.attrs.get("unit") != "micrometer":
        return Grid(shape, pixels=centres, **facts)
    mpp = slide.get("mpp")
    return Grid(shape, None if mpp is None else _to_pixels(centres, mpp), centres, **facts)


def _to_pixels(micrometres: PixelCentres, mpp: tuple[float, float]) -> PixelCentres:
    first, step = (
        (pair[0] / mpp[0], pair[1] / mpp[1]) for pair in (micrometres.first, micrometres.step)
    )
    return PixelCentres(first, step)


def _computed_boxes(location: Location, name: str, level: int) -> tuple[Box, ...] | None:
    """Return the blocks that were computed, px of a level of the labels; None if all were."""
    record = Progress(open_store(location), name).read_run()
    parameters: Any = {} if record is None else record.parameters
    regions = parameters.get("regions")
    if not regions:
        return None
    block = parameters["block"]
    fy, fx = parameters["sampling"]["downsample"]
    blocks = (
        Box(
            int(y0 / fy) // block * block,
            int(x0 / fx) // block * block,
            round_up(-int(-y1 // fy), block),
            round_up(-int(-x1 // fx), block),
        )
        for y0, x0, y1, x1 in regions
    )
    scale = 1 << level
    return tuple(
        Box(box.y0 // scale, box.x0 // scale, -(-box.y1 // scale), -(-box.x1 // scale))
        for box in blocks
    )
