"""Label OME-Zarrs and label images, opened to be read box by box."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from dask.base import is_dask_collection
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.errors import EvaluationError
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.grids import Grid, PixelCentres, locate_grid
from wsi_unet.ground_truth.label_images import open_image_pixels
from wsi_unet.labels.contents import open_output
from wsi_unet.labels.reading import open_labels
from wsi_unet.locations import Location

if TYPE_CHECKING:
    from wsi_unet.corrections.reading import EditedObjects

LabelsLike = str | os.PathLike[str] | Location | xr.DataArray
"""A path or URL of labels (OME-Zarr, PNG or TIFF), or labels that `open_labels` returned."""


class LabelValues(Protocol):
    """Label values that several threads can read at once, box by box."""

    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        """Return the values (h, w) of a box inside the image."""


class PixelMask(Protocol):
    """Which pixels have a property; several threads can read it at once, box by box."""

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Return which pixels (h, w) of a box inside the image have it."""


@dataclass(frozen=True, eq=False)
class LabelRaster:
    """An open label image.

    Attributes:
        name: what messages call it.
        grid: where its pixels lie.
        pixels: its values.
        classes: {value: name}; None where values have no names, as in a PNG or TIFF.
        predicted: where the model looked, so that values mean something; None for everywhere.
        chunk: (rows, columns) that are stored together; None where that makes no difference.
    """

    name: str
    grid: Grid
    pixels: LabelValues
    classes: Mapping[int, str] | None = None
    predicted: PixelMask | None = None
    chunk: tuple[int, int] | None = None


def open_label_raster(labels: LabelsLike, name: str | None = None, level: int = 0) -> LabelRaster:
    """Open label values.

    Args:
        labels: a label OME-Zarr of wsi-unet (a folder or a URL), a PNG or TIFF, or an open array.
        name: name of the label group, if the OME-Zarr holds several; or that of its objects as
            people have corrected them, "nuclei.edited", whose finest level there is only.
        level: level of the OME-Zarr's pyramid, 0 the finest; images have no other.

    Raises:
        EvaluationError: it can't be read, or isn't finished.
        OutputError: the folder isn't an output of wsi-unet, or has no such label group.
    """
    if isinstance(labels, xr.DataArray):
        return _wrap_array(labels, str(labels.name or "the array"))
    location = Location.parse(labels)
    if location.is_url or location.path.is_dir():
        edited = _open_edited(location, name) if name is not None else None
        if edited is not None:
            return edited
        return _wrap_array(open_labels(location, name, level), str(location))
    if name is not None:
        raise EvaluationError(
            f"{location}: isn't a label OME-Zarr, so it has no label group {name!r}"
        )
    pixels, shape = open_image_pixels(location.path)
    return LabelRaster(str(location), Grid(shape), pixels)


def _open_edited(location: Location, name: str) -> LabelRaster | None:
    """Open the corrected objects of a label group; None if the name isn't that of such.

    Raises:
        OutputError: there are none, or they are outdated.
    """
    # It imports pyarrow and shapely, which nothing else here needs.
    from wsi_unet.corrections.reading import EditedObjects, find_edited_label

    store = open_output(location)
    label = find_edited_label(store, name)
    if label is None:
        return None
    objects = EditedObjects.open(store, label)
    raster = _wrap_array(open_labels(location, label), f"{location} ({name})")
    return replace(
        raster,
        pixels=_EditedPixels(objects),
        predicted=None if raster.predicted is None else _EditedMask(raster.predicted, objects),
        classes={0: (raster.classes or {}).get(0, "background"), **objects.classes},
        chunk=None,
    )


@dataclass(frozen=True, eq=False)
class _EditedPixels(LabelValues):
    objects: EditedObjects

    @override
    def read(self, box: Box) -> NDArray[np.uint8]:
        return self.objects.paint_classes(box)


@dataclass(frozen=True, eq=False)
class _EditedMask(PixelMask):
    """Where the model looked, or people have drawn objects."""

    predicted: PixelMask
    objects: EditedObjects

    @override
    def read(self, box: Box) -> NDArray[np.bool_]:
        known = self.predicted.read(box)
        return known if known.all() else known | (self.objects.paint_classes(box) > 0)


@dataclass(frozen=True, eq=False)
class _ArrayPixels(LabelValues):
    array: xr.DataArray

    @override
    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        return _read_box(self.array, box)


@dataclass(frozen=True, eq=False)
class _ArrayMask(PixelMask):
    array: xr.DataArray

    @override
    def read(self, box: Box) -> NDArray[np.bool_]:
        return _read_box(self.array, box).astype(np.bool_, copy=False)


def _read_box(array: xr.DataArray, box: Box) -> NDArray[Any]:
    rows, columns = box.slices()
    values = array.data[rows, columns]
    if is_dask_collection(values):
        values = values.compute(scheduler="synchronous")
    return np.asarray(values)


def _wrap_array(array: xr.DataArray, name: str) -> LabelRaster:
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise EvaluationError(
            f"{name}: labels are whole numbers (y, x), not {array.dtype} {array.dims}"
        )
    if array.attrs.get("finished", "") is None:
        raise EvaluationError(
            f"{name}: the labels {array.name!r} aren't finished, and only blocks that are there "
            "would be compared; run the same segmentation again first"
        )
    chunk = array.data.chunksize if hasattr(array.data, "chunksize") else None
    return LabelRaster(
        name=name,
        grid=_find_grid(array),
        pixels=_ArrayPixels(array),
        classes=array.attrs.get("classes"),
        predicted=_ArrayMask(array.predicted) if "predicted" in array.coords else None,
        chunk=chunk,
    )


def _find_grid(array: xr.DataArray) -> Grid:
    shape = int(array.shape[0]), int(array.shape[1])
    if "pixel_size" not in array.attrs or not array.size:
        return Grid(shape)
    y, x = array.dims
    return locate_grid(
        shape,
        PixelCentres((float(array[y][0]), float(array[x][0])), array.attrs["pixel_size"]),
        micrometres=array.attrs.get("unit") == "micrometer",
        slide=array.attrs.get("provenance", {}).get("slide", {}),
    )
