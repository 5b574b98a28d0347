"""What is exported: the finished labels of a result, their colours and their objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from wsi_unet.colour import Colour, parse_colour
from wsi_unet.errors import OptionError, OutputError
from wsi_unet.exports.provenance import describe_export, describe_group
from wsi_unet.geometry import BlockIndex, Box, Shape
from wsi_unet.labels.contents import choose_name, open_output, read_label_names
from wsi_unet.labels.reading import open_labels
from wsi_unet.labels.stored_level import ShardRecords, StoredLevel, open_level
from wsi_unet.locations import Location
from wsi_unet.objects.painting.stored import StoredObjects
from wsi_unet.objects.records import StageRecord
from wsi_unet.objects.source import LabelSource
from wsi_unet.objects.table import make_schema

BATCH_ROWS = 20_000
"""Rows of the table of objects that are written at once."""

NOT_PREDICTED = "not predicted"
"""Name of the label value, or channel, of pixels that the model didn't look at."""


@dataclass(frozen=True, eq=False)
class ExportedObjects:
    """The objects of a label group.

    Attributes:
        stored: their table, a file per block, which is compared with its checksum as it is read.
        schema: its columns.
    """

    stored: StoredObjects
    schema: pa.Schema

    @property
    def record(self) -> StageRecord:
        """What they were found by."""
        return self.stored.record

    def __len__(self) -> int:
        return sum(each.objects for each in self.record.classes)

    def read_rows(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the table in order of identity, `BATCH_ROWS` rows at a time.

        Memory depends on how wide a slide is, not on how many objects it has; neither the order nor
        the batches depend on the blocks.

        Args:
            columns: those that are wanted; None: all.

        Raises:
            OutputError: a file isn't what was written.
        """
        wanted = self.schema.names if columns is None else list(columns)
        read = list(dict.fromkeys([*wanted, "id"]))
        return _rebatch(table.select(wanted) for table in self._read_block_rows(read))

    def _read_block_rows(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the objects whose first pixel is in a row of blocks, by identity, row by row.

        A file holds the objects whose component begins in its block. Where components are split, a
        part may begin in a row further down, and waits for that row.
        """
        grid, waiting = self.stored.grid, None
        for row, blocks in self._group_blocks().items():
            tables = [self.stored.read_table(block, [*columns]) for block in blocks]
            table = pa.concat_tables(tables if waiting is None else [waiting, *tables])
            table = table.take(pc.sort_indices(table["id"]))
            below = np.uint64((row + 1) * grid.side * grid.shape[1])
            ready = np.searchsorted(table["id"].to_numpy(), below)
            yield table.slice(0, int(ready))
            waiting = table.slice(int(ready))
        if waiting is not None:
            yield waiting

    def _group_blocks(self) -> dict[int, list[BlockIndex]]:
        """Return the blocks that have a file of the table, by their row, from top to bottom."""
        rows: dict[int, list[BlockIndex]] = {}
        for block in sorted(self.stored.markers):
            rows.setdefault(block[0], []).append(block)
        return rows


def _rebatch(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the rows of tables, `BATCH_ROWS` at a time."""
    left: pa.Table | None = None
    for table in tables:
        left = table if left is None else pa.concat_tables([left, table])
        while len(left) >= BATCH_ROWS:
            yield left.slice(0, BATCH_ROWS).combine_chunks()
            left = left.slice(BATCH_ROWS)
    if left is not None and len(left):
        yield left.combine_chunks()


@dataclass(frozen=True, eq=False)
class ExportedLevel:
    """A level of the labels of a group.

    Attributes:
        source: the labels.
        stored: the level.
    """

    source: LabelSource
    stored: StoredLevel

    @property
    def shape(self) -> Shape:
        """(rows, columns), px."""
        return self.stored.plane

    @property
    def downsample(self) -> tuple[float, float]:
        """(y, x) slide px per px; its first pixel begins where the slide's does."""
        factor = 1 << self.stored.level
        return self.source.downsample[0] * factor, self.source.downsample[1] * factor

    @property
    def mpp(self) -> tuple[float, float] | None:
        """(y, x) size of a px, µm; None where the slide's pixel size isn't known."""
        factor = 1 << self.stored.level
        height, width = self.source.pixel_size
        return (height * factor, width * factor) if self.source.micrometres else None

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return the label values (h, w) of a box inside the level.

        Raises:
            OutputError: a shard is damaged or lost.
        """
        return self.stored[box.slices()]

    def read_predicted(self, box: Box) -> NDArray[np.bool_]:
        """Return at which pixels (h, w) of a box inside the level the model looked."""
        return self.source.area.read(box, self.stored.level)

    def read_marked(self, box: Box, not_predicted: int | None) -> NDArray[np.uint8]:
        """Return the label values (h, w) of a box, others where the model didn't look.

        Args:
            box: the box, inside the level.
            not_predicted: the value of pixels that the model didn't look at; None: as they are
                stored.

        Raises:
            OutputError: a shard is damaged or lost.
        """
        labels = self.read(box)
        if not_predicted is not None:
            labels[~self.read_predicted(box)] = not_predicted
        return labels

    @property
    def predicted_everywhere(self) -> bool:
        """Whether the model looked at all of the slide."""
        return self.source.area.whole


@dataclass(frozen=True, eq=False)
class ExportedGroup:
    """A label group that is exported.

    Attributes:
        source: its labels.
        colours: of its classes, by label value, background left out.
        levels: number of pyramid levels of its labels.
    """

    source: LabelSource
    colours: Mapping[int, Colour]
    levels: int

    @property
    def name(self) -> str:
        """The name of the group."""
        return self.source.label

    def find_not_predicted_value(self) -> int | None:
        """Return a value for pixels that the model didn't look at; None where there are none.

        It is the largest that no class has.

        Raises:
            OutputError: all values are classes'.
        """
        if self.source.area.whole:
            return None
        free: set[int] = {*range(1, 256)} - {*self.source.classes}
        if not free:
            raise OutputError(
                f"{self.source.store}: {self.name!r} has 255 classes, which leave no value for "
                "pixels that the model didn't look at; segment without `regions` and with "
                "`tissue='none'`"
            )
        return max(free)

    def open_objects(self) -> ExportedObjects:
        """Return its objects.

        Raises:
            OutputError: they weren't found yet, aren't complete, or belong to earlier labels.
        """
        stored = StoredObjects.open(self.source.store, self.name)
        values = stored.record.values
        schema = make_schema(micrometres=self.source.micrometres, values=values)
        return ExportedObjects(stored, schema)

    def open_level(self, level: int) -> ExportedLevel:
        """Return a level of its labels, 0 is the finest; no pixel is read.

        Raises:
            OptionError: there is no such level.
        """
        if not 0 <= level < self.levels:
            raise OptionError(
                f"`level` is {level}, but the labels {self.name!r} have levels 0 to "
                f"{self.levels - 1}",
                option="level",
            )
        source = self.source
        records = ShardRecords.open(source.store, source.run)
        key = f"labels/{self.name}"
        stored = open_level(source.store, key, level, self.levels, channels=False, records=records)
        return ExportedLevel(source, stored)


@dataclass(frozen=True, eq=False)
class ExportedResult:
    """A result that is exported.

    Attributes:
        location: where it is.
        groups: its label groups.
    """

    location: Location
    groups: tuple[ExportedGroup, ...]

    @property
    def stem(self) -> str:
        """Its name without suffixes, after which exports are named."""
        name = self.location.name.removesuffix(".zarr").removesuffix(".ome")
        return name or "result"

    @property
    def only_group(self) -> ExportedGroup:
        """Its only label group.

        Raises:
            OutputError: there are several.
        """
        names = [group.name for group in self.groups]
        choose_name(self.location, "labels", names, None)
        return self.groups[0]

    def describe(self, objects: Mapping[str, ExportedObjects] | None = None) -> dict[str, Any]:
        """Return the provenance that an export of it holds.

        Args:
            objects: the objects that the export holds, by label group.
        """
        found = objects or {}
        return describe_export(
            describe_group(group.source, found[group.name].record if group.name in found else None)
            for group in self.groups
        )


def open_result(location: Location, label: str | None) -> ExportedResult:
    """Open the label groups of a finished result; nothing but metadata is read.

    Args:
        location: the result: a folder or an s3:// URL.
        label: name of the label group; None takes all.

    Raises:
        OutputError: there is no such result or group, its labels aren't finished, or what is known
            of them is missing or damaged.
    """
    store = open_output(location)
    names = read_label_names(store)
    if label is not None or not names:
        names = [choose_name(location, "labels", names, label)]
    sources = LabelSource.open_all(store, names)
    return ExportedResult(location, tuple(_open_group(source) for source in sources))


def _open_group(source: LabelSource) -> ExportedGroup:
    attributes = open_labels(source.store.location, source.label).attrs
    colours: dict[int, str] = attributes["colors"]
    missing = {*source.classes} - {*colours}
    if missing:
        raise OutputError(
            f"{source.store}: the class {source.classes[min(missing)]!r} of {source.label!r} has "
            "no colour; segment again with `overwrite=True`"
        )
    parsed = {value: parse_colour(colours[value]) for value in source.classes}
    return ExportedGroup(source, parsed, attributes["levels"])
