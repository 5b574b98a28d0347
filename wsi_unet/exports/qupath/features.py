"""Objects of a label group as GeoJSON features: the texts of thousands at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wsi_unet.exports.qupath.classes import ClassGroup
from wsi_unet.exports.qupath.measurements import PIXELS, list_columns, write_measurements
from wsi_unet.exports.qupath.outlines import GridLines, write_geometries
from wsi_unet.objects.scan_origin import Origin

PIECE_BYTES = 1 << 20
"""Bytes of outlines that are written at once, unless a single one has more."""

SEPARATOR = b",\n"
"""What every feature begins with."""


@dataclass(frozen=True, eq=False)
class FeatureWriter:
    """Writes the objects of a label group.

    Attributes:
        source: the group.
        x_lines: the lines between pixels that x may be on.
        y_lines: the lines that y may be on.
        unit: what lengths are in.
        pixel_area: area of a pixel of the labels in squares of that unit.
        properties: the beginning of the properties of each class's objects, by label value.
    """

    source: ClassGroup
    x_lines: GridLines
    y_lines: GridLines
    unit: Literal["µm", "px"]
    pixel_area: float
    properties: pa.Array

    @classmethod
    def open(cls, source: ClassGroup, origin: Origin) -> FeatureWriter:
        """Return the writer for a label group.

        Args:
            source: the group.
            origin: (y, x) px of the slide at which QuPath begins to count.
        """
        labels = source.group.source
        y_lines, x_lines = map(GridLines.make, labels.grid.shape, labels.downsample, origin)
        begins = {each.value: each.write_properties() for each in source.classes}
        return cls(
            source,
            x_lines,
            y_lines,
            "µm" if labels.micrometres else "px",
            labels.pixel_size[0] * labels.pixel_size[1],
            pa.array([begins.get(value, "") for value in range(256)]),
        )

    def write_all(self) -> Iterator[pa.Array]:
        """Yield the features of all objects as texts (n,) in order of identity, some at a time.

        Raises:
            OutputError: their outlines don't fit the labels.
        """
        objects = self.source.objects
        measured = list_columns(objects.schema.names)
        for table in objects.read_rows(["uuid", "label", PIXELS, *measured, "geometry"]):
            for piece in _cut(self._select(table)):
                yield self._write(piece)

    def _select(self, table: pa.Table) -> pa.Table:
        """Return the rows of the classes that are exported."""
        if self.source.complete:
            return table
        values = pa.array([each.value for each in self.source.classes], pa.uint8())
        return table.filter(pc.is_in(table["label"], values))

    def _write(self, table: pa.Table) -> pa.Array:
        columns = {name: table[name].combine_chunks() for name in ("uuid", "label", "geometry")}
        return pc.binary_join_element_wise(
            SEPARATOR.decode() + '{"type":"Feature","id":"',
            columns["uuid"],
            '","geometry":',
            write_geometries(columns["geometry"], self.x_lines, self.y_lines),
            ',"properties":',
            self.properties.take(columns["label"]),
            ',"measurements":',
            *write_measurements(table, self.unit, self.pixel_area),
            "}}",
            "",
        )


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows of a table in pieces with at most `PIECE_BYTES` of outlines, or one row."""
    ends = np.cumsum(pc.binary_length(table["geometry"]).to_numpy())
    first = 0
    while first < len(table):
        before = ends[first - 1] if first else 0
        after = max(first + 1, int(np.searchsorted(ends, before + PIECE_BYTES, "right")))
        yield table.slice(first, after - first)
        first = after
