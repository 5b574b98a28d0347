"""The table of objects: columns, identity, and one GeoParquet 1.1 file per block.

https://geoparquet.org/releases/v1.1.0/
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsi_unet.objects.intensities.quantities import Quantity, finish_values
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.search import Objects
from wsi_unet.objects.sums import finish_sums

UUID_NAMESPACE = uuid.UUID("5f0f3c7e-3f0b-5c53-9d4f-6d8f0f5a7b11")
"""Of the UUIDs of objects; never changes."""

LENGTHS = ("perimeter", "equivalent_diameter", "major_axis", "minor_axis")
RATIOS = ("eccentricity", "orientation", "solidity", "circularity")


@dataclass(frozen=True)
class TableFrame:
    """Where labels lie on the slide, and what identifies their objects.

    Attributes:
        columns: width of the labels, px.
        downsample: (y, x) slide px per pixel of the labels.
        pixel_size: (y, x) size of a pixel of the labels, µm; slide px if `micrometres` is false.
        micrometres: whether the slide's pixel size is known.
        classes: names of the classes by label value.
        rules: their rules.
        fingerprint: the slide's fingerprint.
        model: the model's hash.
        quantities: what the pixels of objects have.
    """

    columns: int
    downsample: tuple[float, float]
    pixel_size: tuple[float, float]
    micrometres: bool
    classes: Mapping[int, str]
    rules: Mapping[int, ClassRule]
    fingerprint: str
    model: str
    quantities: tuple[Quantity, ...] = ()

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The columns of the quantities."""
        return tuple(name for each in self.quantities for name in each.columns)


def make_schema(*, micrometres: bool, values: Sequence[str] = ()) -> pa.Schema:
    """Return the columns of the table, without metadata.

    Args:
        micrometres: whether the slide's pixel size is known.
        values: the columns of quantities that pixels have.
    """
    unit = _length_unit(micrometres=micrometres)
    positions = ("y", "x", "y_um", "x_um") if micrometres else ("y", "x")
    areas = [("area_px", pa.int64())]
    if micrometres:
        areas.append(("area_um2", pa.float64()))
    return pa.schema(
        [
            ("id", pa.uint64()),
            ("uuid", pa.string()),
            ("label", pa.uint8()),
            ("class", pa.string()),
            *((name, pa.float64()) for name in positions),
            *areas,
            *((f"{name}_{unit}", pa.float64()) for name in LENGTHS),
            *((name, pa.float64()) for name in RATIOS),
            ("cut", pa.bool_()),
            ("large", pa.bool_()),
            *((name, pa.float64()) for name in values),
            (
                "bbox",
                pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")]),
            ),
            pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}),
        ]
    )


def _length_unit(*, micrometres: bool) -> str:
    """Return what the names of columns with lengths end in."""
    return "um" if micrometres else "px"


def make_table(objects: Objects, frame: TableFrame) -> pa.Table:
    """Return the rows of objects, in order of identity.

    Geometry, bounding boxes and centroids are in slide px from the top left corner of the slide.
    """
    measured = finish_sums(objects.sums, frame.pixel_size)
    factors = np.array(frame.downsample)
    moments = objects.sums.moments
    offsets = (moments[:, 1:3] + objects.boxes[:, :2] * moments[:, :1]).astype(np.float64)
    pixels = moments[:, 0].astype(np.float64)
    centroids = (offsets / pixels[:, None] + 0.5) * factors
    measured["solidity"] = pixels / objects.outlines.hull_areas
    ids = objects.first[:, 0] * frame.columns + objects.first[:, 1]
    y0, x0, y1, x1 = objects.boxes.T
    columns: dict[str, Any] = {
        "id": ids.astype(np.uint64),
        "uuid": _make_uuids(ids, objects.values, frame),
        "label": objects.values,
        "class": [frame.classes[value] for value in objects.values.tolist()],
        "y": centroids[:, 0],
        "x": centroids[:, 1],
        "area_px": moments[:, 0].astype(np.int64),
        "cut": objects.sums.cut,
        "large": objects.large,
        "bbox": pa.StructArray.from_arrays(
            [
                pa.array(edge * factor)
                for edge, factor in zip((x0, y0, x1, y1), 2 * (*factors[::-1],), strict=True)
            ],
            names=["xmin", "ymin", "xmax", "ymax"],
        ),
        "geometry": _to_wkb(objects, factors),
    }
    if frame.micrometres:
        slide_pixel = np.array(frame.pixel_size) / factors
        columns["y_um"], columns["x_um"] = (centroids * slide_pixel).T
        columns["area_um2"] = measured["area"]
    unit = _length_unit(micrometres=frame.micrometres)
    for name in LENGTHS:
        columns[f"{name}_{unit}"] = measured[name]
    columns |= {name: measured[name] for name in RATIOS}
    columns |= finish_values(moments[:, 0], objects.sums.values, frame.quantities)
    schema = make_schema(micrometres=frame.micrometres, values=frame.value_columns)
    return pa.Table.from_pydict({name: columns[name] for name in schema.names}, schema)


def _to_wkb(objects: Objects, factors: NDArray[np.float64]) -> pa.Array:
    """Return the outlines in px of the slide; `factors` (y, x) are those per px of the labels."""
    outlines = objects.outlines.move(objects.boxes[:, [1, 0]])
    data, starts = outlines.to_wkb(factors[::-1])
    buffers = [None, pa.py_buffer(starts.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(objects), buffers)


def _make_uuids(ids: NDArray[np.int64], values: NDArray[np.uint8], frame: TableFrame) -> list[str]:
    """Return UUIDs of version 5 of slide, model, class, what of its rule decides pixels, and id."""
    hashes = {}
    for value, name in frame.classes.items():
        text = json.dumps([frame.fingerprint, frame.model, name, frame.rules[value].pixels_text()])
        hashes[value] = hashlib.sha1(UUID_NAMESPACE.bytes + text.encode(), usedforsecurity=False)
    found = []
    for identity, value in zip(ids.tolist(), values.tolist(), strict=True):
        digest = hashes[value].copy()
        digest.update(b"/%d" % identity)
        found.append(_write_uuid(bytearray(digest.digest()[:16])))
    return found


def _write_uuid(content: bytearray) -> str:
    """Return the text of a UUID of version 5; `uuid.UUID` takes five times as long."""
    content[6] = content[6] & 0x0F | 0x50
    content[8] = content[8] & 0x3F | 0x80
    text = content.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


COVERING = {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}}
"""GeoParquet's description of the column `bbox`."""


def describe_outlines(
    kinds: Sequence[str] = ("Polygon", "MultiPolygon"), **facts: Any
) -> dict[str, Any]:
    """Return GeoParquet 1.1's metadata of a column `geometry` with outlines in px of the slide.

    Args:
        kinds: the types of geometry that it may have.
        facts: what else is known of the column, by GeoParquet's names.
    """
    geometry = {
        "encoding": "WKB",
        "geometry_types": [*kinds],
        "crs": None,  # pixels of the slide
        "orientation": "counterclockwise",
        "edges": "planar",
        **facts,
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}


def encode_part(table: pa.Table, provenance: Mapping[str, Any]) -> bytes:
    """Return a part as a GeoParquet file; the same rows give the same bytes.

    Args:
        table: its rows; at least one.
        provenance: stored as JSON under "wsi_unet" of the file's metadata.
    """
    bbox = table["bbox"].combine_chunks().flatten()
    bounds = [np.min(bbox[0]), np.min(bbox[1]), np.max(bbox[2]), np.max(bbox[3])]
    kinds = sorted({outline[1] for outline in table["geometry"].to_pylist()})  # of their WKB
    geo = describe_outlines(
        [{3: "Polygon", 6: "MultiPolygon"}[kind] for kind in kinds],
        bbox=[float(bound) for bound in bounds],
        covering=COVERING,
    )
    metadata = {"geo": json.dumps(geo), "wsi_unet": json.dumps(provenance, sort_keys=True)}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")
    return file.getvalue()
