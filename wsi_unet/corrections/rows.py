"""Rows of the table for objects that people have drawn, measured as those that were found."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsi_unet.errors import AnnotationError
from wsi_unet.geometry import Box
from wsi_unet.objects.outlines.tracing import Edges, trace_polygons
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.runs import Runs
from wsi_unet.objects.search import LARGEST_BOX, Objects
from wsi_unet.objects.source import LabelSource
from wsi_unet.objects.sums import Sums, count_crossings, find_cut, sum_moments
from wsi_unet.objects.table import UUID_NAMESPACE, TableFrame, make_schema, make_table

MOST_MOMENT = 1 << 62
"""Sums over the pixels of an object must stay below this."""

BAND_PIXELS = 1 << 22
"""Pixels around an object that are looked at at once."""


@dataclass(frozen=True, eq=False)
class RowMaker:
    """Makes rows for objects that were drawn.

    Attributes:
        source: the labels.
        classes: names of all classes by label value.
        values: columns of what the pixels of objects have, which drawn objects don't.
    """

    source: LabelSource
    classes: Mapping[int, str]
    values: Sequence[str]

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table."""
        return make_schema(micrometres=self.source.micrometres, values=self.values)

    def make(
        self, runs: Runs, values: NDArray[np.uint8], ids: Sequence[int], uuids: Sequence[str]
    ) -> pa.Table:
        """Return the rows of n objects in their order; the columns `values` are null.

        Args:
            runs: their pixels, px of the labels; each has some.
            values: (n,) their label values.
            ids: (n,) their identities.
            uuids: (n,) their UUIDs.

        Raises:
            AnnotationError: an object is too large to be measured.
        """
        table = make_table(self._measure(runs, values), self._frame)
        columns = {name: table[name] for name in table.column_names}
        columns |= {"id": pa.array(ids, pa.uint64()), "uuid": pa.array(uuids, pa.string())}
        columns |= {name: pa.nulls(len(ids), pa.float64()) for name in self.values}
        schema = self.schema
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def make_uuid(self, identity: int, value: int) -> str:
        """Return the UUID (version 5) of an object that was added."""
        said = self.source.provenance
        text = [said.slide.fingerprint, said.model.sha256, self.classes[value], "added"]
        return str(uuid.uuid5(UUID_NAMESPACE, f"{json.dumps(text)}/{identity}"))

    @property
    def _frame(self) -> TableFrame:
        source = self.source
        return TableFrame(
            columns=source.grid.shape[1],
            downsample=source.downsample,
            pixel_size=source.pixel_size,
            micrometres=source.micrometres,
            classes=self.classes,
            rules=dict.fromkeys(self.classes, ClassRule()),
            fingerprint=source.provenance.slide.fingerprint,
            model=source.provenance.model.sha256,
        )

    def _measure(self, runs: Runs, values: NDArray[np.uint8]) -> Objects:
        total = len(values)
        starts = runs.find_starts(total)[:-1]
        last = np.append(starts[1:], len(runs)) - 1
        left, right = np.minimum.reduceat(runs.x0, starts), np.maximum.reduceat(runs.x1, starts)
        boxes = np.stack([runs.y[starts], left, runs.y[last] + 1, right], axis=1)
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = sides.prod(axis=1)
        too_large = areas.astype(np.float64) * sides.max(axis=1) ** 2.0 > MOST_MOMENT
        if too_large.any():
            y, x = boxes[np.argmax(too_large), :2] * self.source.downsample
            raise AnnotationError(
                f"the outline from x {x:.0f}, y {y:.0f} on is too large for an object; leave it out"
            )
        moments = sum_moments(runs, boxes[:, :2])
        outlines = trace_polygons(Edges.of_runs(runs), total)
        return Objects(
            first=np.stack([runs.y[starts], runs.x0[starts]], axis=1),
            values=values,
            boxes=boxes,
            sums=Sums(
                moments,
                count_crossings(runs, moments[:, 0]),
                self._find_cut(runs, boxes),
                np.zeros((total, 0), np.int64),
            ),
            large=areas > LARGEST_BOX,
            outlines=outlines.move(-boxes[:, [1, 0]]),
            dropped={},
        )

    def _find_cut(self, runs: Runs, boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which objects (n,) touch the slide's edge, or pixels that weren't predicted."""
        (rows, columns), (y0, x0, y1, x1) = self.source.grid.shape, boxes.T
        cut: NDArray[np.bool_] = (y0 == 0) | (x0 == 0) | (y1 == rows) | (x1 == columns)
        if not self.source.area.whole:
            starts = runs.find_starts(len(boxes))
            for number in np.flatnonzero(~cut).tolist():
                own = runs.take_regions(np.array([number]), starts)
                cut[number] = self._is_cut(own, Box(*boxes[number].tolist()))
        return cut

    def _is_cut(self, runs: Runs, box: Box) -> bool:
        """Return whether an object of a box touches pixels that weren't predicted."""
        for band in _cut_into_bands(box):
            inside = (runs.y >= band.y0) & (runs.y < band.y1)
            shift = np.array([[-band.y0, -band.x0]])
            part = runs.select(inside, runs.region[inside]).shift(band.shape, shift)
            if find_cut(part, self.source.predicted(band.grow(1, 1)), 1)[0]:
                return True
        return False


def _cut_into_bands(box: Box) -> Iterator[Box]:
    step = max(1, BAND_PIXELS // box.shape[1])
    for y in range(box.y0, box.y1, step):
        yield replace(box, y0=y, y1=min(y + step, box.y1))


def choose_ids(
    runs: Runs, order: Sequence[int], taken: set[int], columns: int, total: int
) -> dict[int, int]:
    """Return the identities of objects: the first pixel in raster order that identifies no other.

    Args:
        runs: the pixels of objects.
        order: the objects in the order in which they choose.
        taken: identities of others; those that are chosen are added.
        columns: width of the labels, px.
        total: number of objects that `runs` has.

    Raises:
        AnnotationError: all pixels of an object identify others.
    """
    starts = runs.find_starts(total)
    chosen = {}
    for number in order:
        own = slice(int(starts[number]), int(starts[number + 1]))
        spans = zip(runs.y[own].tolist(), runs.x0[own].tolist(), runs.x1[own].tolist(), strict=True)
        pixels = (y * columns + x for y, x0, x1 in spans for x in range(x0, x1))
        identity = next((pixel for pixel in pixels if pixel not in taken), None)
        if identity is None:
            raise AnnotationError(
                "every pixel of an added outline identifies another object already; delete it, or "
                "draw it larger"
            )
        taken.add(identity)
        chosen[number] = identity
    return chosen
