"""Opening corrected objects: as a dataset of pyarrow, or to be painted into any box of pixels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from wsi_unet.annotations.drawing import PolygonEdges, draw_numbers
from wsi_unet.annotations.polygons import Polygon
from wsi_unet.corrections.rasters import parse_outlines
from wsi_unet.corrections.records import (
    EditFiles,
    EditRecord,
    check_current_edits,
)
from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.labels.contents import (
    choose_name,
    open_output,
    parse_frame,
    parse_run_name,
    read_label_names,
)
from wsi_unet.labels.names import EDITED_SUFFIX
from wsi_unet.locations import Location
from wsi_unet.objects.painting.stored import name_damage, read_intact
from wsi_unet.objects.reading import open_parts
from wsi_unet.objects.source import read_finished_attributes
from wsi_unet.objects.table import make_schema
from wsi_unet.process_cache import ProcessCache
from wsi_unet.storage.store import ByteStore

CACHE_BYTES = 1 << 28
"""Bytes of parts that are kept, about."""

UNPACKED = 16
"""Bytes that a part takes in memory, per byte of its file, about."""

COLUMNS = ["id", "label", "area_px", "geometry"]

IMPORT_AGAIN = "import the annotations again"


def open_edited_objects(
    output: str | os.PathLike[str] | Location, label: str | None = None
) -> ds.Dataset:
    """Open the corrected objects of a result lazily, with the columns of `open_objects`.

    >>> wsi_unet.open_edited_objects("slide.ome.zarr").to_table()             # doctest: +SKIP

    What objects that people have drawn weren't measured for is null: intensities, stains and
    probabilities.

    Args:
        output: the result: a folder or an s3:// URL.
        label: name of the label group; may be left out if there is only one.

    Raises:
        OutputError: there is no such result or label group, no corrections were imported, or they
            are of objects or labels that have changed since.
    """
    store = open_output(output)
    name = choose_name(output, "labels", read_label_names(store), label)
    files, attributes = _find_files(store, name)
    record = check_current_edits(files, attributes["wsi_unet"]["finished"])
    if not files.are_stored(record, contents=False):
        raise OutputError(
            f"{store}: parts of the corrected objects of {name!r} are missing; {IMPORT_AGAIN}"
        )
    schema = make_schema(micrometres=parse_frame(attributes).unit is not None, values=record.values)
    parts = {
        files.find_key(record.signature, block): each.file
        for block, each in sorted(record.parts.items())
    }
    return open_parts(store, [*parts], schema, parts.get, IMPORT_AGAIN)


def _find_files(store: ByteStore, label: str) -> tuple[EditFiles, dict[str, Any]]:
    """Return where corrections are stored, and what the label group says."""
    attributes = read_finished_attributes(store, label)
    return EditFiles(store, parse_run_name(attributes["wsi_unet"], label), label), attributes


def find_edited_label(store: ByteStore, name: str | None) -> str | None:
    """Return the label group whose corrected objects have a name; None if it isn't such a name.

    A label group of a run that is called so itself comes first.
    """
    if name is None or not name.endswith(EDITED_SUFFIX):
        return None
    names = read_label_names(store)
    label = name.removesuffix(EDITED_SUFFIX)
    return label if name not in names and label in names else None


@dataclass(frozen=True, eq=False)
class EditedOutlines:
    """The objects of one part.

    Attributes:
        ids: (n,) their identities.
        values: (n,) their label values.
        areas: (n,) numbers of their pixels.
        polygons: (n,) their polygons, px of the labels.
        boxes: (n, 4) their bounding boxes (y0, x0, y1, x1), px of the labels.
    """

    ids: NDArray[np.uint64]
    values: NDArray[np.uint8]
    areas: NDArray[np.int64]
    polygons: list[tuple[Polygon, ...]]
    boxes: NDArray[np.float64]

    @classmethod
    def parse(cls, table: pa.Table) -> EditedOutlines:
        """Return the objects of a part's rows."""
        said: dict[str, Any] = json.loads(table.schema.metadata[b"wsi_unet"])
        y, x = said["downsample"]
        ids, values, areas = (table[name].to_numpy() for name in COLUMNS[:3])
        polygons = parse_outlines(table["geometry"].to_pylist(), (y, x))
        ends = [
            (ring.min(axis=0), ring.max(axis=0))
            for ring in (np.concatenate([p[0] for p in each]) for each in polygons)
        ]
        return cls(ids, values, areas, polygons, np.array(ends).reshape(-1, 4))


def _find_near(part: EditedOutlines, box: Box) -> NDArray[np.intp]:
    """Return which objects of a part may have pixels in a box."""
    y0, x0, y1, x1 = part.boxes.T
    return np.flatnonzero((y0 < box.y1) & (y1 > box.y0) & (x0 < box.x1) & (x1 > box.x0))


Numbers = Callable[[EditedOutlines], NDArray[np.int64]]
"""Returns the number (n,) of each object of a part, by which it is painted."""


@dataclass(frozen=True, eq=False)
class EditedObjects:
    """The corrected objects of a label group, which can be painted; the smallest lie on top.

    Attributes:
        files: what is stored.
        record: its record.
    """

    files: EditFiles
    record: EditRecord
    _parts: ProcessCache[EditedOutlines] = field(default_factory=lambda: ProcessCache(CACHE_BYTES))

    @classmethod
    def open(cls, store: ByteStore, label: str) -> EditedObjects:
        """Open the corrected objects of a label group; no part is read yet.

        Raises:
            OutputError: there are none, or they are of objects or labels that have changed since.
        """
        files, attributes = _find_files(store, label)
        return cls(files, check_current_edits(files, attributes["wsi_unet"]["finished"]))

    @property
    def signature(self) -> str:
        """What identifies the table."""
        return self.record.signature

    @property
    def classes(self) -> dict[int, str]:
        """Names of the classes by label value, background left out."""
        return self.record.class_names

    def paint_classes(self, box: Box) -> NDArray[np.uint8]:
        """Return the label values (h, w) of a box; 0 where there is no object.

        Args:
            box: px of the labels, inside of them.

        Raises:
            OutputError: a part isn't what was written.
        """
        return self._paint(box, lambda part: part.values.astype(np.int64)).astype(np.uint8)

    def paint_numbers(self, box: Box) -> NDArray[np.int64]:
        """Return the identities (h, w) of the objects of a box, plus 1; 0 where there is none."""
        return self._paint(box, lambda part: part.ids.astype(np.int64) + 1)

    def _paint(self, box: Box, number: Numbers) -> NDArray[np.int64]:
        """Return the numbers (h, w) of the objects of a box; the same whatever the parts."""
        parts = [self._read(block) for block in self._find_parts(box)]
        near = [(part, _find_near(part, box)) for part in parts]
        if not any(len(rows) for _, rows in near):
            return np.zeros(box.shape, np.int64)
        ids = np.concatenate([part.ids[rows] for part, rows in near])
        areas = np.concatenate([part.areas[rows] for part, rows in near])
        numbers = np.concatenate([number(part)[rows] for part, rows in near])
        polygons = [part.polygons[row] for part, rows in near for row in rows.tolist()]
        order = np.lexsort((ids, -areas)).tolist()  # the last lie on top
        owner = np.repeat(order, [len(polygons[row]) for row in order])
        lookup = np.concatenate([[0], numbers[owner]])
        edges = PolygonEdges.from_polygons([each for row in order for each in polygons[row]])
        painted: NDArray[np.int64] = lookup[draw_numbers(edges, box)]
        return painted

    @cached_property
    def _reaches(self) -> tuple[list[str], list[Box]]:
        return [*self.record.parts], [Box(*part.box) for part in self.record.parts.values()]

    def _find_parts(self, box: Box) -> list[str]:
        """Return the parts that may have objects in a box."""
        names, reaches = self._reaches
        return [
            name for name, own in zip(names, reaches, strict=True) if own.intersection(box).area
        ]

    def _read(self, block: str) -> EditedOutlines:
        part, key = self.record.parts[block], self.files.find_key(self.record.signature, block)

        def read() -> EditedOutlines:
            with name_damage(self.files.store, key, IMPORT_AGAIN):
                return EditedOutlines.parse(read_intact(self.files.store, key, part.file, COLUMNS))

        return self._parts.get(block, read, UNPACKED * part.file.length)
