"""Labels and image as SpatialData's pyramids, copied a shard at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.results import ExportedGroup, ExportedLevel
from wsi_unet.exports.spatialdata.coordinates import Scales, describe_scales, find_scales
from wsi_unet.geometry import BlockGrid, Box, Shape
from wsi_unet.labels.reading import open_image
from wsi_unet.locations import Location

CHUNK, SHARD = 512, 4096
"""Sides of the arrays' chunks and shards, px."""

VERSION = "0.5-dev-spatialdata"
"""OME-Zarr 0.5 with transformations to named coordinate systems, as SpatialData writes it."""

ELEMENT = {"version": "0.3"}
"""The version of SpatialData's raster format."""


@dataclass(frozen=True)
class RasterLevel:
    """A level of a pyramid that is copied.

    Attributes:
        shape: (rows, columns), px.
        read: reads a box: (h, w) or (c, h, w).
    """

    shape: Shape
    read: Callable[[Box], NDArray[np.uint8]]


@dataclass(frozen=True)
class Raster:
    """A pyramid that is copied.

    Attributes:
        name: its name.
        axes: its axes: y and x, or c, y and x.
        levels: its levels, the finest first, each half as large as the one before.
        scales: from px of the finest level to the coordinate systems.
        channels: names of its channels; empty for labels.
    """

    name: str
    axes: tuple[str, ...]
    levels: tuple[RasterLevel, ...]
    scales: Scales
    channels: tuple[str, ...] = ()

    @property
    def pixels(self) -> int:
        """Pixels of all levels."""
        return sum(level.shape[0] * level.shape[1] for level in self.levels)


def open_labels_raster(group: ExportedGroup) -> Raster:
    """Return the labels of a group as a pyramid, with a value for what the model didn't look at."""
    levels = [group.open_level(number) for number in range(group.levels)]
    not_predicted = group.find_not_predicted_value()
    return Raster(
        name=group.name,
        axes=("y", "x"),
        levels=tuple(_make_labels_level(level, not_predicted) for level in levels),
        scales=find_scales(group, levels[0].downsample),
    )


def _make_labels_level(level: ExportedLevel, not_predicted: int | None) -> RasterLevel:
    return RasterLevel(level.shape, lambda box: level.read_marked(box, not_predicted))


def open_image_raster(location: Location, group: ExportedGroup) -> Raster | None:
    """Return the stored image of a result as a pyramid; None without one."""
    finest = open_image(location)
    if finest is None:
        return None
    source = group.source
    height, width = (
        own / size * factor
        for own, size, factor in zip(
            finest.attrs["pixel_size"], source.pixel_size, source.downsample, strict=True
        )
    )
    levels = (_make_image_level(location, number) for number in range(finest.attrs["levels"]))
    return Raster(
        name="image",
        axes=("c", "y", "x"),
        levels=tuple(levels),
        scales=find_scales(group, (height, width)),
        channels=("R", "G", "B"),
    )


def _make_image_level(location: Location, number: int) -> RasterLevel:
    image = open_image(location, number)
    assert image is not None  # its finest level was opened
    pixels = image.data

    def read(box: Box) -> NDArray[np.uint8]:
        part = pixels[:, box.y0 : box.y1, box.x0 : box.x1]
        return np.asarray(part.compute(scheduler="synchronous"))

    return RasterLevel((image.shape[-2], image.shape[-1]), read)


def write_raster(parent: zarr.Group, raster: Raster, meter: ExportMeter) -> None:
    """Write a pyramid into a group, whole shards at a time.

    Raises:
        OutputError: a shard of the result is damaged or lost.
    """
    group = parent.create_group(raster.name)
    leading = (len(raster.channels),) if raster.channels else ()
    for number, level in enumerate(raster.levels):
        array = group.create_array(
            f"s{number}",
            shape=(*leading, *level.shape),
            dtype=np.uint8,
            chunks=(*leading, CHUNK, CHUNK),
            shards=(*leading, SHARD, SHARD),
            dimension_names=raster.axes,
            fill_value=0,
        )
        grid = BlockGrid(level.shape, SHARD)
        for box in map(grid.core, grid):
            array[(..., *box.slices())] = level.read(box)
            meter.add(box.area)
    group.update_attributes(_describe(raster))


def _describe(raster: Raster) -> dict[str, Any]:
    """Return the metadata of a pyramid."""
    datasets = [
        {
            "path": f"s{number}",
            "coordinateTransformations": [
                {"type": "scale", "scale": _scale_level(raster.axes, number)}
            ],
        }
        for number in range(len(raster.levels))
    ]
    multiscales = {
        "name": raster.name,
        "axes": [
            {"name": axis, "type": "channel" if axis == "c" else "space"} for axis in raster.axes
        ],
        "datasets": datasets,
        "coordinateTransformations": describe_scales(raster.axes, raster.scales),
    }
    ome: dict[str, Any] = {"version": VERSION, "multiscales": [multiscales]}
    if raster.channels:
        ome["omero"] = {"channels": [{"label": name} for name in raster.channels]}
    return {"ome": ome, "spatialdata_attrs": ELEMENT}


def _scale_level(axes: Sequence[str], number: int) -> list[float]:
    return [1.0 if axis == "c" else float(1 << number) for axis in axes]
