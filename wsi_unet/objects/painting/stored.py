"""The stored objects of a label group, which can be painted into any box of its pixels."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.labels.contents import parse_run_name
from wsi_unet.labels.documents import read_array_shape
from wsi_unet.labels.pyramid import Value
from wsi_unet.labels.shards import ShardRecord
from wsi_unet.objects.painting.edges import VerticalEdges, paint
from wsi_unet.objects.records import PartMarker, StageFiles, StageRecord
from wsi_unet.objects.source import read_finished_attributes
from wsi_unet.objects.stage import check_current
from wsi_unet.process_cache import ProcessCache
from wsi_unet.storage.concurrent import map_concurrently
from wsi_unet.storage.store import ByteStore, get_bounded

CACHE_BYTES = 1 << 28
"""Bytes of parts that are kept, about; those that a row of blocks needs, unless it is very long."""

UNPACKED = 4
"""Bytes that a part takes in memory, per byte of its file, about."""

COLUMNS = ["id", "label", "area_px", "geometry"]

_PART = re.compile(r"/(\d{1,9})\.(\d{1,9})\.parquet")


@dataclass(frozen=True, eq=False)
class StoredPart:
    """The objects of one part.

    Attributes:
        ids: (n,) their identities, ascending.
        values: (n,) their label values.
        edges: the vertical edges of their outlines.
    """

    ids: NDArray[np.uint64]
    values: NDArray[np.uint8]
    edges: VerticalEdges


Numbers = Callable[[StoredPart], NDArray[Value]]
"""Returns the number (n,) of each object of a part, by which it is painted."""


@dataclass(frozen=True, eq=False)
class StoredObjects:
    """The objects of a label group: all of them, and those of its labels as they are.

    Attributes:
        store: the output.
        files: the group's files.
        record: what the objects were found by.
        grid: the blocks of the labels.
        markers: the markers of the parts that have objects.
    """

    store: ByteStore
    files: StageFiles
    record: StageRecord
    grid: BlockGrid
    markers: Mapping[BlockIndex, PartMarker]
    _parts: ProcessCache[StoredPart] = field(default_factory=lambda: ProcessCache(CACHE_BYTES))

    @classmethod
    def open(cls, store: ByteStore, label: str) -> StoredObjects:
        """Open the objects of a label group; no part is read yet.

        Raises:
            OutputError: there are none, or some are missing, or they belong to other labels.
        """
        provenance = read_finished_attributes(store, label)["wsi_unet"]
        files = StageFiles(store, parse_run_name(provenance, label), label)
        record = check_current(store, files, provenance["finished"])
        shape, side = read_array_shape(store, f"labels/{label}/0")
        grid = BlockGrid((shape[-2], shape[-1]), side)
        found = _read_markers(files, record.signature)
        markers = {block: marker for block, marker in found if _fits(marker, grid)}
        if len(markers) != record.parts:
            raise OutputError(
                f"{store}: {len(markers)} of {record.parts} parts of the objects of {label!r} are "
                "there; find objects again, which computes what is missing"
            )
        return cls(store, files, record, grid, markers)

    @property
    def label(self) -> str:
        """The label group."""
        return self.files.label

    @cached_property
    def signature(self) -> str:
        """Hash of all parts: equal only for equal tables of labels with equal blocks."""
        digest = hashlib.sha256(json.dumps([self.grid.shape, self.grid.side]).encode())
        for block, marker in sorted(self.markers.items()):
            digest.update(f"\n{block} {marker.file.sha256}".encode())
        return digest.hexdigest()

    @cached_property
    def _reaches(self) -> tuple[list[BlockIndex], NDArray[np.int64]]:
        """The blocks with parts in order, and the boxes (n, 4) of their objects, px."""
        blocks = sorted(self.markers)
        boxes = [self.markers[block].reach.box for block in blocks]
        return blocks, np.array(boxes, np.int64).reshape(-1, 4)

    def find_parts(self, box: Box) -> list[BlockIndex]:
        """Return the blocks whose parts may have objects in a box, px of the labels."""
        blocks, reaches = self._reaches
        y0, x0, y1, x1 = reaches.T
        near = (y0 < box.y1) & (y1 > box.y0) & (x0 < box.x1) & (x1 > box.x0)
        return [blocks[number] for number in np.flatnonzero(near)]

    def read_part(self, block: BlockIndex) -> StoredPart:
        """Return the part of a block; several threads may read at once.

        Raises:
            OutputError: it isn't what was written.
        """
        marker = self.markers[block]
        cost = UNPACKED * marker.file.length
        return self._parts.get(block, lambda: self._read_part(block, marker), cost)

    def paint(self, box: Box, numbers: Numbers[Value], dtype: np.dtype[Value]) -> NDArray[Value]:
        """Return the numbers of the objects that the pixels of a box belong to.

        Args:
            box: px of the labels, inside of them.
            numbers: the numbers of objects, above 0.
            dtype: their type, unsigned.

        Returns:
            (h, w); 0 where there is no object.

        Raises:
            OutputError: a part isn't what was written.
        """
        sums: NDArray[Value] = np.zeros(box.shape, dtype)
        blocks = self.find_parts(box)
        for block in blocks:
            part = self.read_part(block)
            part.edges.add(sums, box, numbers(part))
        return paint(sums) if blocks else sums

    def read_table(self, block: BlockIndex, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of the part of a block, in order of identity.

        Args:
            block: the block.
            columns: those that are wanted; None: all.

        Raises:
            OutputError: it isn't what was written.
        """
        key, record = self.files.part_key(block), self.markers[block].file
        with name_damage(self.store, key, "find objects again, which makes it again"):
            return read_intact(self.store, key, record, columns)

    def _read_part(self, block: BlockIndex, marker: PartMarker) -> StoredPart:
        key = self.files.part_key(block)
        with name_damage(self.store, key, "find objects again, which makes it again"):
            return _parse_part(read_intact(self.store, key, marker.file, COLUMNS))


@contextmanager
def name_damage(store: ByteStore, key: str, cure: str) -> Iterator[None]:
    """Raise what reading a damaged file of a table raises as an OutputError that names it.

    Args:
        store: the output.
        key: the file.
        cure: what makes it again.
    """
    try:
        yield
    except (ValueError, KeyError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise OutputError(f"{store}: {key!r} is damaged ({reason}); {cure}") from error


def read_intact(
    store: ByteStore, key: str, record: ShardRecord, columns: list[str] | None
) -> pa.Table:
    """Return the rows of a file of a table; the file's checksum is compared.

    Args:
        store: the output.
        key: the file.
        record: its record.
        columns: those that are wanted; None: all.

    Raises:
        ValueError, pa.ArrowException: it isn't what was written.
    """
    data = get_bounded(store, key, record.length)
    if data is None or hashlib.sha256(data).hexdigest() != record.sha256:
        raise ValueError("it isn't what was written")
    return pq.read_table(pa.BufferReader(data), columns=columns, use_threads=False)


def _parse_part(table: pa.Table) -> StoredPart:
    said: dict[str, Any] = json.loads(table.schema.metadata[b"wsi_unet"])
    ids, values, areas = (table[name].to_numpy() for name in COLUMNS[:3])
    y, x = said["downsample"]
    edges = VerticalEdges.parse(table["geometry"].to_numpy(), (y, x), areas)
    return StoredPart(ids, values, edges)


def _read_markers(files: StageFiles, signature: str) -> Iterator[tuple[BlockIndex, PartMarker]]:
    """Yield the markers of the parts of a stage that are stored."""
    names = (_PART.fullmatch(key.removeprefix(files.folder)) for key in files.list_parts())
    blocks = ((int(name[1]), int(name[2])) for name in names if name is not None)

    def read(block: BlockIndex) -> tuple[BlockIndex, PartMarker | None]:
        return block, files.read_stored_marker(block)

    for block, marker in map_concurrently(read, blocks, files.store.location):
        if marker is not None and marker.signature == signature:
            yield block, marker


def _fits(marker: PartMarker, grid: BlockGrid) -> bool:
    """Return whether the objects of a part lie in the labels, as its marker says."""
    box, rows = marker.reach.box, marker.reach.rows
    if box is None or not Box.from_shape(grid.shape).contains(Box(*box)):
        return False
    return all(int(row) < grid.size[0] for row in rows)


def number_by_class(part: StoredPart) -> NDArray[np.uint64]:
    """Return numbers that say identity and class: `(id + 1) · 256 + label value`."""
    return ((part.ids + np.uint64(1)) << np.uint64(8)) | part.values


def number_by_identity(part: StoredPart) -> NDArray[np.uint64]:
    """Return numbers from 1 in order of identity, with gaps."""
    return part.ids + np.uint64(1)
