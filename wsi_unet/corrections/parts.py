"""The parts of a table of corrected objects: the objects' rows before, changed as files say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from wsi_unet.annotations.drawing import PolygonEdges
from wsi_unet.annotations.points import find_containing
from wsi_unet.corrections.edited_file import EditedFeatures
from wsi_unet.corrections.matching import FeatureClasses, Matches
from wsi_unet.corrections.rasters import (
    are_same,
    collect_edges,
    count_pixels,
    find_boxes,
    find_runs,
    parse_outlines,
)
from wsi_unet.corrections.records import Completeness, EditCounts
from wsi_unet.corrections.rows import RowMaker, choose_ids
from wsi_unet.errors import AnnotationError
from wsi_unet.geometry import BlockIndex, Shape
from wsi_unet.objects.painting.stored import StoredObjects
from wsi_unet.objects.runs import Runs

PROBABILITY = "probability"
"""The column with the mean probability of an object's class."""


def draw_stored(table: pa.Table, downsample: tuple[float, float], shape: Shape) -> Runs:
    """Return the pixels of stored objects: runs of regions 0, 1, … in the order of the rows."""
    outlines = parse_outlines(table["geometry"].to_pylist(), downsample)
    return find_runs(*collect_edges(outlines), shape)


@dataclass(frozen=True, eq=False)
class DeletedAreas:
    """Where objects that aren't in the files were deleted.

    Attributes:
        completeness: nowhere, everywhere or in some regions.
        edges: the regions, px of the slide; None where there are none.
    """

    completeness: Completeness
    edges: PolygonEdges | None = None

    def hold(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return which objects (n,) lie there, by their centroids."""
        if self.completeness == "whole":
            return np.ones(len(table), np.bool_)
        inside = np.zeros(len(table), np.bool_)
        if self.edges is not None:
            centroids = np.stack([table["y"].to_numpy(), table["x"].to_numpy()], axis=1)
            inside[find_containing(self.edges, centroids)[1]] = True
        return inside


@dataclass
class Tally:
    """What became of objects, counted part by part.

    Attributes:
        counts: numbers by the fields of `EditCounts`.
        objects: numbers of objects that are left, by label value.
        pixels: numbers of their pixels.
    """

    counts: dict[str, int] = field(default_factory=dict)
    objects: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, **counts: int | np.integer[Any]) -> None:
        """Add numbers of objects."""
        for name, number in counts.items():
            self.counts[name] = self.counts.get(name, 0) + int(number)

    def add_rows(self, table: pa.Table) -> None:
        """Count the rows of a part."""
        labels = table["label"].to_numpy()
        self.objects += np.bincount(labels, minlength=256)
        areas = np.bincount(labels, table["area_px"].to_numpy(), minlength=256)
        self.pixels += areas.astype(np.int64)

    def finish(self) -> EditCounts:
        """Return the counts."""
        return EditCounts(**self.counts)


@dataclass(frozen=True, eq=False)
class Edits:
    """The objects of a label group, and how files change them.

    Attributes:
        objects: the objects before.
        features: the outlines of the files.
        matches: which of them are which objects.
        classes: their classes.
        added: (n,) which of the outlines are new objects; each has pixels.
        deleted: where objects that aren't in the files were deleted.
        rows: makes the rows of drawn objects.
        tally: counts what is done.
    """

    objects: StoredObjects
    features: EditedFeatures
    matches: Matches
    classes: FeatureClasses
    added: NDArray[np.bool_]
    deleted: DeletedAreas
    rows: RowMaker
    tally: Tally = field(default_factory=Tally)

    def make_parts(self) -> Iterator[tuple[BlockIndex, pa.Table]]:
        """Yield the parts that have rows, in order of blocks; those are in order of identity.

        Raises:
            OutputError: a part of the objects before isn't what was written.
            AnnotationError: an object has no pixel any more, is too large or there twice.
        """
        self._refuse_twins()
        added = self._make_added()
        for block in sorted({*self.objects.markers, *added}):
            tables = [added[block]] if block in added else []
            if block in self.objects.markers:
                table = self.objects.read_table(block)
                tables.append(self._change(table, self.matches.features[block]))
            table = pa.concat_tables(tables)
            if len(table):
                table = table.take(pc.sort_indices(table["id"])).combine_chunks()
                self.tally.add_rows(table)
                yield block, table

    def _change(self, table: pa.Table, feature: NDArray[np.int64]) -> pa.Table:
        """Return the rows that are left of a part, changed as the files say.

        Args:
            table: the rows.
            feature: (n,) the outline of each; -1 for none.
        """
        there = feature >= 0
        gone = ~there & self.deleted.hold(table)
        value = table["label"].to_numpy().copy()
        value[there] = self.classes.values[feature[there]]
        dropped = there & (value == 0)
        kept = ~gone & ~dropped
        self.tally.add(deleted=(gone | dropped).sum(), absent=(kept & ~there).sum())
        which = np.flatnonzero(kept & there)
        reshaped = np.zeros(len(table), np.bool_)
        reshaped[which] = ~self._keep_pixels(table, which, feature[which])
        self._refuse_doubles(table, np.flatnonzero(kept & ~reshaped))
        renamed = kept & ~reshaped & (value != table["label"].to_numpy())
        self.tally.add(
            reshaped=reshaped.sum(),
            reclassified=renamed.sum(),
            unchanged=(kept & there & ~reshaped & ~renamed).sum(),
        )
        same = self._rename(table, value, renamed).filter(pa.array(kept & ~reshaped))
        return pa.concat_tables([same, self._draw_anew(table, np.flatnonzero(reshaped), feature)])

    def _keep_pixels(
        self, table: pa.Table, which: NDArray[np.int64], feature: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return whether some rows (n,) have the pixels of their outlines in the files."""
        before = self._draw(table.take(pa.array(which)))
        return are_same(before, self._take(feature), len(which))

    def _draw(self, table: pa.Table) -> Runs:
        source = self.rows.source
        return draw_stored(table, source.downsample, source.grid.shape)

    def _take(self, feature: NDArray[np.int64]) -> Runs:
        """Return the pixels of some outlines, as regions from 0 on."""
        return self.features.runs.take_regions(feature, self._starts)

    def _rename(
        self, table: pa.Table, value: NDArray[np.uint8], renamed: NDArray[np.bool_]
    ) -> pa.Table:
        """Return rows with the classes of values; what belongs to the class before is null."""
        schema = self.rows.schema
        columns = {name: table[name] for name in schema.names}
        if renamed.any():
            names = [self.classes.names.get(each) for each in value.tolist()]
            columns["label"] = pa.array(value, pa.uint8())
            columns["class"] = pa.array(names, pa.string())
            if PROBABILITY in columns:
                columns[PROBABILITY] = pc.if_else(
                    pa.array(renamed), pa.scalar(None, pa.float64()), columns[PROBABILITY]
                )
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _draw_anew(
        self, table: pa.Table, which: NDArray[np.int64], feature: NDArray[np.int64]
    ) -> pa.Table:
        """Return the rows of objects that have other pixels; they keep their identities."""
        if not len(which):
            return self.rows.schema.empty_table()
        chosen = feature[which]
        runs = self._take(chosen)
        pixels = count_pixels(runs, len(chosen))
        if not pixels.all():
            raise AnnotationError(
                f"{self.features.locate(int(chosen[np.argmin(pixels)]))} covers the centre of no "
                "pixel of the labels any more; delete it, or draw it larger"
            )
        rows = table.select(["id", "uuid"]).take(pa.array(which))
        ids, uuids = (rows[name].to_pylist() for name in ("id", "uuid"))
        return self.rows.make(runs, self.classes.values[chosen], ids, uuids)

    def _make_added(self) -> dict[BlockIndex, pa.Table]:
        """Return the rows of added objects, by the block of their first pixels."""
        which = np.flatnonzero(self.added)
        self.tally.add(added=len(which))
        if not len(which):
            return {}
        runs, values = self._take(which), self.classes.values[which]
        grid, total = self.rows.source.grid, len(which)
        starts = runs.find_starts(total)[:-1]
        y, x = runs.y[starts], runs.x0[starts]
        # The order of the files makes no difference: that of pixels and classes does.
        order = np.lexsort((values, count_pixels(runs, total), x, y)).tolist()
        chosen = choose_ids(runs, order, {*self.matches.ids.tolist()}, grid.shape[1], total)
        ids = np.array([chosen[number] for number in range(total)], np.int64)
        row, column = ids // grid.shape[1] // grid.side, ids % grid.shape[1] // grid.side
        blocks: dict[BlockIndex, list[int]] = {}
        for number, block in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
            blocks.setdefault(block, []).append(number)
        found = {}
        for block, members in blocks.items():
            own = np.array(members)
            part = self._take(which[own])
            uuids = [
                self.rows.make_uuid(int(ids[number]), int(values[number])) for number in members
            ]
            found[block] = self.rows.make(part, values[own], ids[own].tolist(), uuids)
        return found

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """(n + 1,): where the runs of each outline begin, and where the last ones end."""
        return self.features.runs.find_starts(len(self.features))

    def _refuse_twins(self) -> None:
        """Refuse added objects with exactly the pixels of other added ones.

        Raises:
            AnnotationError: there are such.
        """
        for features in self._added_keys.values():
            for one, other in combinations(features, 2):
                if are_same(self._take(np.array([one])), self._take(np.array([other])), 1)[0]:
                    raise AnnotationError(
                        f"{self.features.locate(one)} covers exactly the pixels of another added "
                        "one; delete one of the two"
                    )

    def _refuse_doubles(self, table: pa.Table, which: NDArray[np.int64]) -> None:
        """Refuse added objects with exactly the pixels of objects that are there.

        Raises:
            AnnotationError: there is one.
        """
        keys = self._added_keys
        if not keys:
            return
        near = [
            (int(row), keys[key])
            for row, key in zip(which, self._find_keys(table, which), strict=True)
            if key in keys
        ]
        for row, features in near:
            stored = self._draw(table.slice(row, 1))
            for feature in features:
                if are_same(stored, self._take(np.array([feature])), 1)[0]:
                    raise AnnotationError(
                        f"{self.features.locate(feature)} covers exactly the pixels of the object "
                        f"{table['uuid'][row].as_py()}, and has another id or none; delete one of "
                        "the two"
                    )

    def _find_keys(self, table: pa.Table, which: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
        """Yield the bounding box and number of pixels of rows."""
        y, x = self.rows.source.downsample
        rows = table.select(["bbox", "area_px"]).take(pa.array(which))
        sides = zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x, y), strict=True)
        bbox = rows["bbox"].combine_chunks()
        found = [np.rint(pc.struct_field(bbox, name).to_numpy() / f) for name, f in sides]
        areas = rows["area_px"].to_pylist()
        yield from zip(*(each.astype(np.int64).tolist() for each in found), areas, strict=True)

    @cached_property
    def _added_keys(self) -> Mapping[tuple[int, ...], list[int]]:
        """The added outlines by bounding box and number of pixels."""
        which = np.flatnonzero(self.added)
        runs, total = self._take(which), len(which)
        boxes = find_boxes(runs, total)[:, [1, 0, 3, 2]]
        keys = np.concatenate([boxes, count_pixels(runs, total)[:, None]], axis=1)
        found: dict[tuple[int, ...], list[int]] = {}
        for feature, key in zip(which.tolist(), keys.tolist(), strict=True):
            found.setdefault(tuple(key), []).append(feature)
        return found
