"""Objects as SpatialData's shapes: GeoParquet, indexed by identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from wsi_unet._version import __version__
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.results import ExportedGroup, ExportedObjects
from wsi_unet.exports.spatialdata.coordinates import describe_scales, find_scales
from wsi_unet.objects.provenance import CREATOR
from wsi_unet.objects.table import describe_outlines

ELEMENT = {"version": "0.3"}
"""The version of SpatialData's format of shapes."""

AXES = ("x", "y")


def write_shapes(
    parent: zarr.Group,
    folder: Path,
    name: str,
    group: ExportedGroup,
    objects: ExportedObjects,
    meter: ExportMeter,
) -> None:
    """Write the outlines of objects, in px of the slide, in order of identity.

    Args:
        parent: the group of shapes.
        folder: its folder.
        name: name of the element.
        group: the label group.
        objects: its objects.
        meter: is told the objects that are written.
    """
    attributes = {
        "encoding-type": "ngff:shapes",
        "axes": [*AXES],
        "coordinateTransformations": describe_scales(AXES, find_scales(group, (1.0, 1.0))),
        "spatialdata_attrs": ELEMENT,
    }
    parent.create_group(name, attributes=attributes)
    metadata = {b"geo": describe_outlines(), b"pandas": _describe_index()}
    schema = pa.schema(
        [pa.field("geometry", pa.binary()), pa.field("id", pa.int64())],
        {key: json.dumps(value).encode() for key, value in metadata.items()},
    )
    with pq.ParquetWriter(folder / name / "shapes.parquet", schema, compression="zstd") as writer:
        for table in objects.read_rows(["geometry", "id"]):
            writer.write_table(table.replace_schema_metadata(None).cast(schema))
            meter.add(len(table))


def _describe_index() -> dict[str, Any]:
    """Return pandas' metadata, which make identities the index."""
    column = {
        "name": "id",
        "field_name": "id",
        "pandas_type": "int64",
        "numpy_type": "int64",
        "metadata": None,
    }
    return {
        "index_columns": ["id"],
        "column_indexes": [],
        "columns": [column],
        "creator": {"library": CREATOR, "version": __version__},
        "pandas_version": "2.0.0",
    }
