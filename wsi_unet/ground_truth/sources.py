"""Opening what is compared: label OME-Zarr and label images, read box by box."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import NDArray

from wsi_unet import locations
from wsi_unet.errors import EvaluationError
from wsi_unet.geometry import Box, round_up
from wsi_unet.ground_truth.grids import Grid, Steps
from wsi_unet.ground_truth.label_images import open_image_pixels
from wsi_unet.labels.progress import Progress
from wsi_unet.labels.reading import open_labels
from wsi_unet.storage.store import open_store

Labels = str | os.PathLike[str] | xr.DataArray
"""A label OME-Zarr or an image on a disk, or labels that are open (see `open_labels`)."""


class Pixels(Protocol):
    """Label values that can be read box by box, from several threads at once."""

    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        """Return the values (h, w) of a box inside the image."""


@dataclass(frozen=True, eq=False)
class LabelSource:
    """A label image that is open.

    Attributes:
        name: for messages.
        grid: where its pixels lie.
        pixels: its values.
        classes: {value: name}; None where values have no names, as in an image.
        computed: boxes outside of which nothing was computed; None if all of it was.
        chunk: (rows, columns) that are stored together; None where that makes no difference.
    """

    name: str
    grid: Grid
    pixels: Pixels
    classes: Mapping[int, str] | None = None
    computed: tuple[Box, ...] | None = None
    chunk: tuple[int, int] | None = None


def open_label_source(labels: Labels, name: str | None = None, level: int = 0) -> LabelSource:
    """Open label values.

    Args:
        labels: a label OME-Zarr of ours (a folder or a URL), a PNG or TIFF, or an open array.
        name: of the label group, if the OME-Zarr holds several.
        level: of an OME-Zarr's pyramid, 0 the finest; others have just one.

    Raises:
        EvaluationError: it can't be read, or isn't finished.
        OutputError: the folder is no output of ours, or has no such label group.
    """
    if isinstance(labels, xr.DataArray):
        return _of_array(labels, str(labels.name or "the array"), None)
    location = locations.resolve(os.fspath(labels))
    if locations.is_url(location) or Path(location).is_dir():
        array = open_labels(location, name, level)
        return _of_array(array, location, _computed(location, str(array.name), level))
    if name is not None:
        raise EvaluationError(f"{location}: is no label OME-Zarr, so it has no labels {name!r}")
    pixels, shape = open_image_pixels(Path(location))
    return LabelSource(location, Grid(shape), pixels)


class _ArrayPixels:
    def __init__(self, array: xr.DataArray) -> None:
        self._data = array.data

    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        rows, columns = box.slices()
        part = self._data[rows, columns]
        lazy = is_dask_collection(part)
        return np.asarray(part.compute(scheduler="synchronous") if lazy else part)


def _of_array(array: xr.DataArray, name: str, computed: tuple[Box, ...] | None) -> LabelSource:
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise EvaluationError(
            f"{name}: labels are whole numbers (y, x), not {array.dtype} {array.dims}"
        )
    if array.attrs.get("finished", "") is None:
        raise EvaluationError(
            f"{name}: the labels {array.name!r} aren't finished, and blocks that are missing would "
            "count as background; give the segment command again first"
        )
    chunk = array.data.chunksize if hasattr(array.data, "chunksize") else None
    return LabelSource(
        name=name,
        grid=_grid_of(array),
        pixels=_ArrayPixels(array),
        classes=array.attrs.get("classes"),
        computed=computed,
        chunk=chunk,
    )


def _grid_of(array: xr.DataArray) -> Grid:
    shape = int(array.shape[0]), int(array.shape[1])
    if "pixel_size" not in array.attrs or not array.size:
        return Grid(shape)
    y, x = array.dims
    steps = Steps((float(array[y][0]), float(array[x][0])), array.attrs["pixel_size"])
    slide = array.attrs.get("provenance", {}).get("slide", {})
    facts = {
        "slide": slide.get("fingerprint"),
        "slide_shape": tuple(slide["shape"]) if "shape" in slide else None,
    }
    if array.attrs.get("unit") != "micrometer":
        return Grid(shape, pixels=steps, **facts)
    mpp = slide.get("mpp")
    return Grid(shape, None if mpp is None else _in_pixels(steps, mpp), steps, **facts)


def _in_pixels(steps: Steps, mpp: tuple[float, float]) -> Steps:
    first, step = ((pair[0] / mpp[0], pair[1] / mpp[1]) for pair in (steps.first, steps.step))
    return Steps(first, step)


def _computed(location: str, name: str, level: int) -> tuple[Box, ...] | None:
    """Return the whole blocks that a run of regions computed, px of a level of the labels."""
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
