"""Opening results as labelled, lazy arrays.

`xarray.open_zarr` can't open a multiscale group (its levels have conflicting sizes), and would cut
shards into their inner chunks; here one dask chunk is one shard.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid
from wsi_unet.labels.contents import (
    Output,
    choose_name,
    open_output,
    parse_frame,
    parse_run_name,
    read_label_names,
    read_run_groups,
    read_run_names,
)
from wsi_unet.labels.documents import GroupKind, read_array_shape, read_group_attributes
from wsi_unet.labels.names import IMAGE_NAME
from wsi_unet.labels.predicted import StoredArea, to_lazy_array
from wsi_unet.labels.stored_level import ShardRecords, open_level
from wsi_unet.storage.store import ByteStore


def open_labels(path: Output, label: str | None = None, level: int = 0) -> xr.DataArray:
    """Open the labels of an output lazily.

    >>> labels = open_labels("slide.ome.zarr")                     # doctest: +SKIP
    >>> labels.sel(y=slice(100, 200), x=slice(0, 50)).compute()    # doctest: +SKIP

    Args:
        path: the output: a folder or an s3:// URL.
        label: name of the label group; may be left out if there is only one. Each class of a
            multi-label model has a group, called `model.class`.
        level: pyramid level, 0 is the finest.

    Returns:
        uint8 label values with dims (y, x), one dask chunk per shard. The coordinates are the
        centres of the pixels, in µm from the centre of the slide's first pixel (slide pixels where
        the slide's mpp isn't known). Attributes: `classes` {value: name}, `colors`
        {value: "#rrggbb"}, `pixel_size` (y, x) and `unit` ("micrometer" or "pixel"), `finished`
        (UTC time; None while blocks are missing, which read as background), `areas_mm2`
        and `pixels` {value: area, count} once finished, `level`, `levels` and `provenance`.

        The coordinate `predicted` (y, x) says, lazily too, where the model looked: at pixels of
        finished blocks that lie in tissue and in the run's regions; on coarser levels, a pixel is
        predicted if any of its level-0 pixels is. Everywhere else 0 doesn't mean background. It is
        left out where the run's progress isn't kept beside the labels.

    Raises:
        OutputError: there is no such output, label group or level, or what is known of the run is
            damaged.
    """
    store = open_output(path)
    names = read_label_names(store)
    name = choose_name(path, "labels", names, label)
    attributes = _read_attributes(store, f"labels/{name}", "labels")
    records = ShardRecords.open(store, parse_run_name(attributes["wsi_unet"], name))
    group = f"labels/{name}"
    array = _open_level(store, group, attributes, name, ("y", "x"), level, records)
    properties = attributes["ome"]["image-label"]["properties"]
    array.attrs |= {
        "classes": {item["label-value"]: item["class"] for item in properties},
        "colors": {
            item["label-value"]: "#" + bytes(item["rgba"][:3]).hex()
            for item in attributes["ome"]["image-label"]["colors"]
        },
        "areas_mm2": {
            item["label-value"]: item["area_mm2"] for item in properties if "area_mm2" in item
        },
        "pixels": {item["label-value"]: item["pixels"] for item in properties if "pixels" in item},
        "finished": attributes["wsi_unet"]["finished"],
    }
    return array if records is None else _add_predicted(store, array, records)


def open_probabilities(path: Output, label: str | None = None, level: int = 0) -> xr.DataArray:
    """Open the probabilities of an output lazily.

    Args:
        path: the output: a folder or an s3:// URL.
        label: name of the label group that they belong to, or of the run if each class has a group;
            may be left out if there is only one.
        level: pyramid level, 0 is the finest.

    Returns:
        uint8 with dims (c, y, x): 0 to 255 for probabilities 0 to 1. The coordinates of c are the
        class names; y, x and the attributes are those of `open_labels`, without classes and areas.

    Raises:
        OutputError: there is no such output, no probabilities or no such level.
    """
    store = open_output(path)
    names = [
        run
        for run in read_run_names(store)
        if read_group_attributes(store, f"probability/{run}") is not None
    ]
    name = choose_name(path, "probabilities", names, label)
    attributes = _read_attributes(store, f"probability/{name}", "channels")
    group, records = f"probability/{name}", ShardRecords.open(store, name)
    array = _open_level(store, group, attributes, name, ("c", "y", "x"), level, records)
    channels = [channel["label"] for channel in attributes["ome"]["omero"]["channels"]]
    labels = _read_attributes(store, f"labels/{read_run_groups(store, name)[0]}", "labels")
    array.attrs["finished"] = labels["wsi_unet"]["finished"]
    return array.assign_coords(c=channels)


def open_image(path: Output, level: int = 0) -> xr.DataArray | None:
    """Open the stored image of the slide lazily: uint8 (c, y, x), c = R, G, B; None without one.

    Coordinates and attributes are those of `open_probabilities`.

    Raises:
        OutputError: there is no such output or level.
    """
    store = open_output(path)
    attributes = _read_attributes(store, "", "any")
    if "multiscales" not in attributes.get("ome", {}):
        return None
    records = ShardRecords.open(store, IMAGE_NAME)
    array = _open_level(store, "", attributes, "image", ("c", "y", "x"), level, records)
    return array.assign_coords(c=["R", "G", "B"])


def _read_attributes(store: ByteStore, group: str, kind: GroupKind) -> dict[str, Any]:
    attributes = read_group_attributes(store, group, kind)
    if attributes is None:
        raise OutputError(f"{store}: {group!r} is listed but missing; compute it again")
    return attributes


def _add_predicted(store: ByteStore, labels: xr.DataArray, records: ShardRecords) -> xr.DataArray:
    """Return a level of labels with the coordinate `predicted`."""
    shape, block = read_array_shape(store, f"labels/{labels.name}/0")
    grid, finished = BlockGrid((shape[0], shape[1]), block), labels.attrs["finished"] is not None
    area = StoredArea.open(records.progress, records.run, grid, finished=finished)
    sides, level = (labels.shape[0], labels.shape[1]), labels.attrs["level"]
    predicted = to_lazy_array(area, level, sides, labels.data.chunksize)
    return labels.assign_coords(predicted=(labels.dims, predicted))


def _open_level(
    store: ByteStore,
    group: str,
    attributes: dict[str, Any],
    name: str,
    dims: tuple[str, ...],
    level: int,
    records: ShardRecords | None,
) -> xr.DataArray:
    levels = len(attributes["ome"]["multiscales"][0]["datasets"])
    if not 0 <= level < levels:
        raise OutputError(f"{store}: no level {level} of {name!r}; there are 0 to {levels - 1}")
    stored = open_level(store, group, level, levels, channels="c" in dims, records=records)
    frame = parse_frame(attributes, level)
    coordinates = {
        dim: start + step * np.arange(size)
        for dim, start, step, size in zip(
            ("y", "x"), frame.translation, frame.scale, stored.plane, strict=True
        )
    }
    return xr.DataArray(
        stored.to_dask(),
        dims=dims,
        coords=coordinates,
        name=name,
        attrs={
            "unit": frame.unit or "pixel",
            "pixel_size": frame.scale,
            "level": level,
            "levels": levels,
            "provenance": attributes["wsi_unet"],
        },
    )
