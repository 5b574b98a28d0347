"""Results as OME-Zarr 0.4, for programs that don't read the 0.5 that results are stored in.

https://ngff.openmicroscopy.org/0.4/ and
https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html: a file per chunk, none for a chunk that is
all 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from wsi_unet.cores import usable_cores
from wsi_unet.exports.destination import write_folder
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.provenance import KEY, is_provenance
from wsi_unet.exports.pyramids.arrays import (
    ExportedPyramid,
    open_image_pyramid,
    open_label_pyramid,
    open_object_pyramid,
    open_probability_pyramids,
)
from wsi_unet.exports.pyramids.tiles import TILE, ZLIB_LEVEL, compress, cut_bands, split_band
from wsi_unet.exports.results import ExportedResult
from wsi_unet.geometry import Box
from wsi_unet.labels.metadata import describe_channels
from wsi_unet.labels.names import object_image_name
from wsi_unet.storage.concurrent import map_in_threads

VERSION = "0.4"

VEIL = 128
"""Opacity, of 255, of the colour of labels where the model didn't look."""


@dataclass(frozen=True, eq=False)
class StoredArray:
    """A pyramid as a group of arrays of the store.

    Attributes:
        pyramid: the pyramid.
        group: the group's path in the store; "" for the root.
        channels: channels of a chunk; 0: the array is (y, x).
        attributes: of the group.
    """

    pyramid: ExportedPyramid
    group: str
    channels: int
    attributes: Mapping[str, Any]

    @property
    def planes(self) -> int:
        """Number of channels, at least 1."""
        return len(self.pyramid.channels) or 1


def export_ome_zarr_04(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write labels, objects' numbers, probabilities and image of a result as OME-Zarr 0.4.

    Chunks are compressed and written by several threads; memory doesn't grow with the slide.

    Raises:
        OutputError: a shard is damaged, or an array isn't complete or current.
    """
    labels = _list_labels(result)
    others = [
        StoredArray(each, f"probability/{each.name}", 1, _describe_channels(each))
        for each in open_probability_pyramids(result)
    ]
    image = open_image_pyramid(result)
    if image is not None:  # RGB in one chunk, which some viewers need to show it
        others.append(StoredArray(image, "", len(image.channels), _describe_channels(image)))
    painted = [each.pyramid.name for each in labels]
    objects = {
        group.name: group.open_objects()
        for group in result.groups
        if object_image_name(group.name) in painted
    }
    arrays = [*labels, *others]
    meter.start(sum(_count_pixels(each) for each in arrays), "px")
    with write_folder(path) as folder:
        _write_groups(folder, arrays, result.describe(objects))
        for array in arrays:
            for level in range(len(array.pyramid.shapes)):
                _write_level(folder, array, level, meter)
    return [path]


def is_ome_zarr_04(path: Path) -> bool:
    """Return whether a folder is a store that `export_ome_zarr_04` wrote."""
    try:
        attributes = json.loads((path / ".zattrs").read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return False
    return isinstance(attributes, dict) and is_provenance(attributes.get(KEY))


def _list_labels(result: ExportedResult) -> list[StoredArray]:
    found = []
    for group in result.groups:
        for pyramid in (open_label_pyramid(group), open_object_pyramid(group)):
            if pyramid is not None:
                attributes = _describe_labels(pyramid)
                found.append(StoredArray(pyramid, f"labels/{pyramid.name}", 0, attributes))
    return found


def _describe_labels(pyramid: ExportedPyramid) -> dict[str, Any]:
    """Return the attributes of labels: those of the result, with the value "not predicted"."""
    label = pyramid.attributes["ome"]["image-label"]
    document = {"version": VERSION, **label}
    if pyramid.not_predicted is not None:
        meaning = pyramid.values[pyramid.not_predicted]
        value = {"label-value": pyramid.not_predicted}
        colours = [*label["colors"], value | {"rgba": [*meaning.colour, VEIL]}]
        properties = [*label["properties"], value | {"class": meaning.name}]
        document |= {"colors": colours, "properties": properties}
    return _describe_multiscales(pyramid) | {"image-label": document}


def _describe_channels(pyramid: ExportedPyramid) -> dict[str, Any]:
    """Return the attributes of an array with channels."""
    channels = [(each.name, bytes(each.colour).hex(), each.shown) for each in pyramid.channels]
    return _describe_multiscales(pyramid) | {"omero": describe_channels(channels)}


def _describe_multiscales(pyramid: ExportedPyramid) -> dict[str, Any]:
    """Return `multiscales` as the result has it, which 0.4 differs from in its version alone."""
    (multiscale,) = pyramid.attributes["ome"]["multiscales"]
    return {"multiscales": [{"version": VERSION, **multiscale}]}


def _write_groups(folder: Path, arrays: list[StoredArray], provenance: Mapping[str, Any]) -> None:
    """Write the documents of all groups and arrays."""
    groups: dict[str, dict[str, Any]] = {"": {}}
    for parent in ("labels", "probability"):
        names = [each.pyramid.name for each in arrays if each.group.startswith(f"{parent}/")]
        if names:
            groups[parent] = {"labels": names} if parent == "labels" else {}
    groups |= {each.group: dict(each.attributes) for each in arrays}
    groups[""] = groups[""] | {KEY: dict(provenance)}
    for group, attributes in groups.items():
        _put_json(folder / group / ".zgroup", {"zarr_format": 2})
        _put_json(folder / group / ".zattrs", attributes)
    for array in arrays:
        for level in range(len(array.pyramid.shapes)):
            _put_json(folder / array.group / str(level) / ".zarray", _describe_array(array, level))


def _describe_array(array: StoredArray, level: int) -> dict[str, Any]:
    """Return the `.zarray` of a level."""
    leading = ((array.planes,), (array.channels,)) if array.channels else ((), ())
    return {
        "zarr_format": 2,
        "shape": [*leading[0], *array.pyramid.shapes[level]],
        "chunks": [*leading[1], TILE, TILE],
        "dtype": array.pyramid.dtype.str,
        "order": "C",
        "fill_value": 0,
        "compressor": {"id": "zlib", "level": ZLIB_LEVEL},
        "filters": None,
        "dimension_separator": "/",
    }


def _put_json(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="ascii")


def _write_level(folder: Path, array: StoredArray, level: int, meter: ExportMeter) -> None:
    """Write the chunks of a level that aren't all 0."""
    top = folder / array.group / str(level)

    def write(band: Box) -> int:
        for key, chunk in _cut_chunks(array, level, band):
            if chunk.any():
                file = top / key
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(compress(chunk))
        return band.area * array.planes

    for pixels in map_in_threads(write, cut_bands(array.pyramid.shapes[level]), usable_cores()):
        meter.add(pixels)


def _cut_chunks(array: StoredArray, level: int, band: Box) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the chunks of a band with their keys below that of their array."""
    row = band.y0 // TILE
    for column, tile in enumerate(split_band(array.pyramid.read(level, band)), band.x0 // TILE):
        if not array.channels:
            yield f"{row}/{column}", tile
            continue
        for first in range(0, array.planes, array.channels):
            chunk = tile[first : first + array.channels]
            yield f"{first // array.channels}/{row}/{column}", chunk


def _count_pixels(array: StoredArray) -> int:
    return array.planes * sum(rows * columns for rows, columns in array.pyramid.shapes)
