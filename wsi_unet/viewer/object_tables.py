"""The objects of a label group: those in view, the one under a point, and what all measure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsi_unet.errors import OutputError, foreign_errors_as
from wsi_unet.geometry import BlockIndex, Box
from wsi_unet.measuring.object_statistics import list_measurements
from wsi_unet.objects.painting.stored import StoredObjects
from wsi_unet.process_cache import ProcessCache
from wsi_unet.storage.concurrent import map_in_threads
from wsi_unet.storage.store import ByteStore, get_bounded

MOST_OBJECTS = 2000
"""Objects whose outlines the page gets at once."""

MOST_PARTS = 64
"""Parts that are read for one view."""

MOST_POINTS = 200_000
"""Points of outlines that the page gets at once."""

CACHE_BYTES = 128 << 20
"""Bytes of tables that are kept, about."""

UNPACKED = 4
"""Bytes that a table takes in memory, per byte of its file, about."""

BINS = 40
"""Bars of a histogram."""

NOT_SHOWN = ("geometry", "bbox")
"""Columns that the row of an object is shown without."""

View = tuple[float, float, float, float]
"""(x0, y0, x1, y1), px of the slide."""


@dataclass(frozen=True, eq=False)
class ObjectTables:
    """The table of the objects of a label group, read part by part.

    Attributes:
        stored: the objects.
        downsample: (y, x) px of the slide per px of the labels.
    """

    stored: StoredObjects
    downsample: tuple[float, float]
    _tables: ProcessCache[pa.Table] = field(default_factory=lambda: ProcessCache(CACHE_BYTES))
    _histograms: ProcessCache[dict[str, Any]] = field(default_factory=lambda: ProcessCache(64))

    def describe(self) -> dict[str, Any]:
        """Return the classes of the objects, and what was measured, as JSON-able values."""
        record = self.stored.record
        return {
            "unit": record.unit,
            "classes": [
                {
                    "value": each.value,
                    "name": each.name,
                    "objects": each.objects,
                    "mean_area": each.mean_area,
                    "density_per_mm2": each.density_per_mm2,
                }
                for each in record.classes
            ],
            "measurements": self.list_measurements(),
        }

    def list_measurements(self) -> list[str]:
        """Return the names of the columns that a histogram can show."""
        first = min(self.stored.markers, default=None)
        return [] if first is None else list_measurements(self.read_part(first).schema)

    def find_in(self, view: View) -> dict[str, Any]:
        """Return the outlines of the objects in a part of the slide.

        Returns:
            `objects`, each with `id`, `value` and `rings` [[x, y, x, y, …], …] in px of the slide;
            none and `many` where there are too many.

        Raises:
            OutputError: a part isn't what was written.
        """
        parts = self.stored.find_parts(self._to_labels(view))
        if len(parts) > MOST_PARTS:
            return {"many": True, "objects": []}
        tables = [self._select(self.read_part(part), view) for part in parts]
        if sum(map(len, tables)) > MOST_OBJECTS:
            return {"many": True, "objects": []}
        found: list[dict[str, Any]] = []
        points = 0
        for table in tables:
            shapes = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
            ids, values = table["id"].to_pylist(), table["label"].to_pylist()
            for identity, value, shape in zip(ids, values, shapes, strict=True):
                rings = _list_rings(shape)
                points += sum(map(len, rings)) // 2
                if points > MOST_POINTS:
                    return {"many": True, "objects": []}
                found.append({"id": str(identity), "value": value, "rings": rings})
        return {"many": False, "objects": found}

    def find_at(self, x: float, y: float) -> dict[str, Any] | None:
        """Return the row of the object at a point, px of the slide, and its outline; None for none.

        Raises:
            OutputError: a part isn't what was written.
        """
        view, point = (x, y, x, y), shapely.Point(x, y)
        for part in self.stored.find_parts(self._to_labels(view)):
            table = self._select(self.read_part(part), view)
            shapes = shapely.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
            for number in np.flatnonzero(shapely.intersects(shapes, point)).tolist():
                return _describe_row(table.slice(number, 1), shapes[number])
        return None

    def make_histogram(self, measurement: str, value: int) -> dict[str, Any]:
        """Return how often a measurement has which values, as JSON-able values.

        Args:
            measurement: one of `list_measurements`.
            value: label value of the class.

        Raises:
            OutputError: a part isn't what was written.
        """
        key = measurement, value
        return self._histograms.get(key, lambda: self._make_histogram(measurement, value))

    def _make_histogram(self, measurement: str, value: int) -> dict[str, Any]:
        def read(part: BlockIndex) -> NDArray[np.float64]:
            table = self._read_table(part, ["label", measurement])
            own = table.filter(pc.equal(table["label"], pa.scalar(value, pa.uint8())))
            numbers: NDArray[np.float64] = own[measurement].to_numpy().astype(np.float64)
            return numbers[np.isfinite(numbers)]

        parts = sorted(self.stored.markers)
        found = list(map_in_threads(read, parts, 2))
        values = np.concatenate(found) if found else np.zeros(0)
        if not len(values):
            return {"count": 0, "edges": [], "counts": []}
        low, high = np.percentile(values, (0.5, 99.5))
        counts, edges = np.histogram(np.clip(values, low, high), BINS, (low, max(high, low + 1e-9)))
        return {
            "count": len(values),
            "mean": float(values.mean()),
            "median": float(np.median(values)),
            "edges": edges.tolist(),
            "counts": counts.tolist(),
        }

    def read_part(self, part: BlockIndex) -> pa.Table:
        """Return the table of a part, which is kept; threads may read at once.

        Raises:
            OutputError: it isn't what was written.
        """
        cost = UNPACKED * self.stored.markers[part].file.length
        return self._tables.get(part, lambda: self._read_table(part, None), cost)

    def _read_table(self, part: BlockIndex, columns: list[str] | None) -> pa.Table:
        key, file = self.stored.files.part_key(part), self.stored.markers[part].file
        with foreign_errors_as(OutputError, f"{self.stored.store}: {key!r} is damaged"):
            data = get_bounded(self.stored.store, key, file.length)
            if data is None or hashlib.sha256(data).hexdigest() != file.sha256:
                raise ValueError("it isn't what was written; find objects again")
            return pq.read_table(pa.BufferReader(data), columns=columns, use_threads=False)

    def _to_labels(self, view: View) -> Box:
        """Return the px of the labels that a part of the slide meets."""
        y, x = self.downsample
        top, left = math.floor(view[1] / y), math.floor(view[0] / x)
        return Box(top, left, math.floor(view[3] / y) + 1, math.floor(view[2] / x) + 1)

    def _select(self, table: pa.Table, view: View) -> pa.Table:
        """Return the rows whose bounding box meets a part of the slide."""
        names = ("xmin", "ymin", "xmax", "ymax")
        x0, y0, x1, y1 = (pc.struct_field(table["bbox"], name).to_numpy() for name in names)
        near = (x0 <= view[2]) & (x1 >= view[0]) & (y0 <= view[3]) & (y1 >= view[1])
        return table.take(np.flatnonzero(near))


def open_objects_of(
    store: ByteStore, label: str, finished: str | None, downsample: tuple[float, float]
) -> ObjectTables | None:
    """Open the objects of a label group; None if they weren't found, or belong to earlier labels.

    Args:
        store: the result.
        label: the label group.
        finished: when its labels were finished; None if they aren't.
        downsample: (y, x) px of the slide per px of the labels.
    """
    if finished is None:
        return None
    try:
        return ObjectTables(StoredObjects.open(store, label), downsample)
    except OutputError:
        return None


def _list_rings(shape: Any) -> list[list[float]]:
    """Return the rings of a polygon or of several as [x, y, x, y, …]."""
    rings = []
    for polygon in shapely.get_parts(shape):
        for ring in (polygon.exterior, *polygon.interiors):
            points = shapely.get_coordinates(ring)
            rings.append(np.round(points, 2).ravel().tolist())
    return rings


def _describe_row(row: pa.Table, shape: Any) -> dict[str, Any]:
    names = [name for name in row.schema.names if name not in NOT_SHOWN]
    values: Mapping[str, Any] = {name: _to_json(row[name][0].as_py()) for name in names}
    return {"row": values, "rings": _list_rings(shape)}


def _to_json(value: Any) -> Any:
    """Return a value that JSON can express exactly: large numbers as text, NaN as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, int) and abs(value) >= 1 << 53 else value
