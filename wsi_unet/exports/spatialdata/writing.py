"""A result as a SpatialData folder, version 0.2 of its format."""

from __future__ import annotations

import json
from pathlib import Path

import zarr

from wsi_unet._version import __version__
from wsi_unet.errors import OutputError
from wsi_unet.exports.destination import write_folder
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.provenance import KEY, is_provenance
from wsi_unet.exports.results import ExportedGroup, ExportedObjects, ExportedResult
from wsi_unet.exports.spatialdata.annotations import write_classes, write_objects
from wsi_unet.exports.spatialdata.rasters import (
    Raster,
    open_image_raster,
    open_labels_raster,
    write_raster,
)
from wsi_unet.exports.spatialdata.shapes import write_shapes
from wsi_unet.objects.provenance import CREATOR

CONTAINER = "0.2"
"""Version of SpatialData's container format."""

SUFFIXES = CLASSES, OBJECTS, MEASUREMENTS = "_classes", "_objects", "_measurements"
"""What the names of a label group's elements end in, beside the labels themselves."""


def export_spatialdata(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write labels, stored image, and objects of a result with their tables.

    Raises:
        OutputError: objects weren't found yet, two elements would have the same name, or a shard is
            damaged.
    """
    found = {group.name: group.open_objects() for group in result.groups}
    rasters = [open_labels_raster(group) for group in result.groups]
    image = open_image_raster(result.location, result.groups[0])
    _check_names(result, image)
    with write_folder(path) as folder:
        root = zarr.open_group(folder, mode="a", zarr_format=3)
        for kind in ("images", "labels", "points", "shapes", "tables"):
            root.create_group(kind)
        _write_rasters(root, rasters, image, meter)
        meter.start(2 * sum(map(len, found.values())), "objects")
        for group in result.groups:
            _write_objects(root, folder, group, found[group.name], meter)
        root.update_attributes(
            {
                "spatialdata_attrs": {
                    "version": CONTAINER,
                    "spatialdata_software_version": f"{CREATOR} {__version__}",
                },
                KEY: result.describe(found),
            }
        )
    return [path]


def is_spatialdata(path: Path) -> bool:
    """Return whether a folder is what `export_spatialdata` wrote."""
    try:
        attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
        said = is_provenance(attributes[KEY])
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError, RecursionError):
        return False
    return said and "spatialdata_attrs" in attributes


def _check_names(result: ExportedResult, image: Raster | None) -> None:
    """Refuse names that are the same to SpatialData, which ignores case.

    Raises:
        OutputError: two elements would have the same name.
    """
    seen: dict[str, str] = {} if image is None else {image.name: image.name}
    for group in result.groups:
        for suffix in ("", *SUFFIXES):
            name = group.name + suffix
            other = seen.setdefault(name.lower(), name)
            if other is not name:
                raise OutputError(
                    f"{result.location}: SpatialData takes {name!r} and {other!r} for one name; "
                    "export each label group by itself with `label`"
                )


def _write_rasters(
    root: zarr.Group, rasters: list[Raster], image: Raster | None, meter: ExportMeter
) -> None:
    everything = [*rasters, *([] if image is None else [image])]
    meter.start(sum(raster.pixels for raster in everything), "px")
    for raster in rasters:
        write_raster(root.require_group("labels"), raster, meter)
    names = [raster.name for raster in rasters]
    root.require_group("labels").update_attributes({"ome": {"labels": names}})
    if image is not None:
        write_raster(root.require_group("images"), image, meter)


def _write_objects(
    root: zarr.Group,
    folder: Path,
    group: ExportedGroup,
    objects: ExportedObjects,
    meter: ExportMeter,
) -> None:
    """Write the tables of a label group, and its shapes if it has objects."""
    tables = root.require_group("tables")
    write_classes(tables, group.name + CLASSES, group)
    if not len(objects):  # SpatialData has no empty shapes
        return
    shapes = group.name + OBJECTS
    write_shapes(root.require_group("shapes"), folder / "shapes", shapes, group, objects, meter)
    write_objects(tables, group.name + MEASUREMENTS, shapes, group, objects, meter)
