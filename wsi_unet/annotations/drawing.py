"""Drawing many polygons at once, in time and memory that their overlaps don't multiply.

The rule is that of `polygons.rasterise`: a pixel is inside a polygon if its centre is inside an odd
number of the polygon's rings. A polygon's edges cross the line through a row's pixel centres an
even number of times, so every second interval between crossings is inside. These intervals are
found for many polygons together, in bands of rows, and drawn at a cost that doesn't depend on how
long they are; polygons below others that already cover everything aren't looked at. Drawing a box
costs its pixels and the crossings in its rows, however large the polygons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Polygon
from wsi_unet.errors import AnnotationError
from wsi_unet.geometry import Box
from wsi_unet.wording import write_size

BAND_PIXELS = 1 << 22
"""Pixels of a band of rows that is drawn at once."""
FIRST_CROSSINGS, MOST_CROSSINGS = 1 << 19, 1 << 21
"""Crossings that are looked at at once, at first and later, unless a single row has more."""
FREE_CROSSINGS = 1 << 25
"""Crossings that any drawing may have; they take a few seconds."""

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Spans:
    """Intervals of pixels inside polygons: columns [begin, end) of rows, from 0 on in a band.

    Attributes:
        polygon: (n,) index of the polygon, ascending.
        row: (n,) row.
        begin: (n,) first column.
        end: (n,) column after the last one.
    """

    polygon: Indices
    row: Indices
    begin: Indices
    end: Indices

    def select(self, chosen: NDArray[np.bool_] | Indices) -> Spans:
        """Return some of the intervals."""
        return Spans(self.polygon[chosen], self.row[chosen], self.begin[chosen], self.end[chosen])


@dataclass(frozen=True, eq=False)
class PolygonEdges:
    """The edges of polygons, those of one polygon after those of the other.

    Attributes:
        start: (n, 2) where each edge starts, (y, x) in px; the centre of pixel (i, j) is
            (i + 1/2, j + 1/2).
        stop: (n, 2) where it stops.
        polygon: (n,) index of its polygon, ascending.
        offsets: (polygons + 1,) each polygon's first edge.
    """

    start: NDArray[np.float64]
    stop: NDArray[np.float64]
    polygon: Indices
    offsets: Indices

    @classmethod
    def from_polygons(cls, polygons: Sequence[Polygon]) -> PolygonEdges:
        """Collect the edges of polygons, whose rings are closed whether they say so or not."""
        rings = [ring for polygon in polygons for ring in polygon]
        lengths = np.array([len(ring) for ring in rings], np.intp)
        owners = np.repeat(np.arange(len(polygons)), [len(polygon) for polygon in polygons])
        start = np.concatenate([*rings, np.empty((0, 2))])
        after = np.arange(1, len(start) + 1)
        ends = np.cumsum(lengths)
        after[ends - 1] = ends - lengths
        edges = np.bincount(owners, lengths, len(polygons)).astype(np.intp)
        offsets = np.concatenate([[0], np.cumsum(edges)]).astype(np.intp)
        return cls(start, start[after], np.repeat(owners, lengths), offsets)

    def take(self, polygons: Indices) -> PolygonEdges:
        """Return the edges of some of all polygons, by rising index; they keep their indices."""
        first, count = self.offsets[polygons], np.diff(self.offsets)[polygons]
        chosen = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        return PolygonEdges(
            self.start[chosen], self.stop[chosen], self.polygon[chosen], self.offsets
        )

    def count_crossings(self, box: Box, side: int | None = None) -> int:
        """Return how often edges cross the lines through the centres of a box's rows.

        Args:
            box: px.
            side: side of smaller boxes, px; crossings count once for each column of these that
                their polygon reaches into. None counts them once.
        """
        begins, counts = self._count_by_polygon(box)
        if side is None or not len(begins):
            return int(counts.sum())
        column = np.clip(self.start[:, 1], box.x0, box.x1) // side
        low, high = np.minimum.reduceat(column, begins), np.maximum.reduceat(column, begins)
        return int((counts * (high - low + 1)).sum())

    def find_bands(self, box: Box) -> Iterator[Box]:
        """Cut a box into bands of rows that are drawn one by one; those without edges are left out.

        Pixels, and crossings with a single polygon, are bounded in each.
        """
        step = max(1, BAND_PIXELS // max(1, box.shape[1]))
        bands = [Box(y, box.x0, min(y + step, box.y1), box.x1) for y in range(box.y0, box.y1, step)]
        while bands:
            band = bands.pop()
            most = int(self._count_by_polygon(band)[1].max(initial=0))
            rows = band.shape[0]
            if most > MOST_CROSSINGS and rows > 1:
                middle = band.y0 + rows // 2
                bands.append(Box(band.y0, band.x0, middle, band.x1))
                bands.append(Box(middle, band.x0, band.y1, band.x1))
            elif most:
                yield band

    def find_layers(self, band: Box, drawn: NDArray[np.generic]) -> Iterator[Spans]:
        """Yield the intervals of pixels inside polygons, the last polygons first.

        Args:
            band: rows that are drawn at once.
            drawn: (h, w) of the band, not 0 where something is drawn. Whoever takes the intervals
                draws them; polygons that are out of sight then are left out.
        """
        left, limit = self, FIRST_CROSSINGS
        while len(left.polygon):
            begins, counts = left._count_by_polygon(band)
            sums = np.concatenate([[0], np.cumsum(counts)])
            first = min(len(counts) - 1, int(np.searchsorted(sums, sums[-1] - limit)))
            if sums[first] < sums[-1]:
                yield left._select(slice(begins[first], None))._find_spans(band)
            left, limit = left._select(slice(0, begins[first])), MOST_CROSSINGS
            if len(left.polygon):
                left = left._select(left._are_in_sight(band, drawn))

    def find_spans(self, box: Box) -> Iterator[Spans]:
        """Yield the intervals of pixels inside each polygon, those below others too.

        The cost is that of the crossings in the box, however large it is.

        Args:
            box: px; rows and columns of the intervals count from its corner.

        Yields:
            The intervals of some polygons, whose indices ascend; crossings at once are bounded,
            unless a single polygon has more.
        """
        begins, counts = self._count_by_polygon(box)
        if not len(begins):
            return
        ends = np.append(begins[1:], len(self.polygon))
        groups = (np.cumsum(counts) - counts) // MOST_CROSSINGS
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(begins)], strict=True):
            chosen = self._select(slice(begins[start], ends[stop - 1]))
            first = int(chosen.polygon[0])  # small numbers fit into the keys of large boxes
            spans = replace(chosen, polygon=chosen.polygon - first)._find_spans(box)
            yield replace(spans, polygon=spans.polygon + first)

    def _select(self, edges: slice | NDArray[np.bool_]) -> PolygonEdges:
        return PolygonEdges(self.start[edges], self.stop[edges], self.polygon[edges], self.offsets)

    def _are_in_sight(self, band: Box, drawn: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Return of which polygons' edges the bounding box isn't fully drawn yet."""
        free = np.zeros((band.shape[0] + 1, band.shape[1] + 1), np.int32)
        np.cumsum(np.cumsum(drawn == 0, axis=0, dtype=np.int32), axis=1, out=free[1:, 1:])
        begins = self._begins()
        (top, bottom), (left, right) = (
            (
                _clip(np.floor(np.minimum.reduceat(self.start[:, axis], begins)), start, stop),
                _clip(np.ceil(np.maximum.reduceat(self.start[:, axis], begins)), start, stop),
            )
            for axis, (start, stop) in enumerate(((band.y0, band.y1), (band.x0, band.x1)))
        )
        inside = free[bottom, right] - free[top, right] - free[bottom, left] + free[top, left]
        return np.repeat(inside > 0, np.diff(begins, append=len(self.polygon)))

    def _begins(self) -> Indices:
        """Return the first edge of each polygon that has any."""
        return np.flatnonzero(np.diff(self.polygon, prepend=-1))

    def _count_by_polygon(self, box: Box) -> tuple[Indices, Indices]:
        """Return each polygon's first edge, and how often it crosses the rows of a box."""
        first, last = self._rows(box.y0, box.y1)
        begins = self._begins()
        return begins, np.add.reduceat(last - first, begins) if len(begins) else begins

    def _rows(self, top: int, bottom: int) -> tuple[Indices, Indices]:
        """Return the first row that each edge crosses, and the row after the last one."""
        # An edge crosses the centres y + 1/2 with min(y0, y1) <= y + 1/2 < max(y0, y1).
        y0, y1 = self.start[:, 0], self.stop[:, 0]
        first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), top, bottom).astype(np.intp)
        last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), top, bottom).astype(np.intp)
        return first, last

    def _find_spans(self, band: Box) -> Spans:
        first, last = self._rows(band.y0, band.y1)
        count = last - first
        edge = np.repeat(np.arange(len(count)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        (y0, x0), (y1, x1) = self.start[edge].T, self.stop[edge].T
        x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        column = np.clip(np.ceil(x - 0.5).astype(np.intp), band.x0, band.x1) - band.x0
        # Sorted by polygon, row and column, every second crossing begins an interval.
        low, high = (side.bit_length() for side in band.shape[::-1])
        key = np.sort((self.polygon[edge] << high | row - band.y0) << low | column)
        line, columns = key[0::2] >> low, key & ((1 << low) - 1)
        spans = Spans(line >> high, line & ((1 << high) - 1), columns[0::2], columns[1::2])
        return spans.select(spans.end > spans.begin)


def _clip(ends: NDArray[np.float64], start: int, stop: int) -> Indices:
    """Return whole numbers clipped to [start, stop], counted from start."""
    return (np.clip(ends, start, stop) - start).astype(np.intp)


def check_drawable(path: Path, edges: PolygonEdges, box: Box, side: int | None = None) -> None:
    """Refuse polygons whose edges are so many, and so long, that drawing them takes too long.

    Args:
        path: the file they come from, for the message.
        edges: the polygons.
        box: what is to be drawn, px.
        side: side of the boxes in which it is drawn, px, each of which looks at all edges of the
            polygons that it meets; None draws all at once.

    Raises:
        AnnotationError: they are.
    """
    crossings, most = edges.count_crossings(box, side), FREE_CROSSINGS + box.area // 4
    if crossings > most:
        raise AnnotationError(
            f"{path}: drawing its outlines on {write_size(box.shape)} looks at {crossings:,} "
            f"crossings of edges and rows, more than {most:,}; merge outlines that overlap, or "
            "simplify them"
        )


def draw_union(edges: PolygonEdges, box: Box) -> NDArray[np.bool_]:
    """Return which pixels (h, w) of a box have their centre in any of the polygons."""
    inside = np.zeros(box.shape, np.bool_)
    for band in edges.find_bands(box):
        drawn = inside[band.relative_to(box).slices()]
        for spans in edges.find_layers(band, drawn):
            drawn |= _cover_band(spans, *band.shape)
    return inside


def draw_numbers(edges: PolygonEdges, box: Box) -> NDArray[np.int32]:
    """Return the number of the last polygon that each pixel's centre lies in, 0 for none.

    Args:
        edges: the polygons; their numbers are their indices plus 1, and later ones lie on top.
        box: px.

    Returns:
        (h, w).
    """
    numbers = np.zeros(box.shape, np.int32)
    for band in edges.find_bands(box):
        drawn = numbers[band.relative_to(box).slices()]
        for spans in edges.find_layers(band, drawn):
            np.maximum(drawn, _number_band(spans, *band.shape), out=drawn)
    return numbers


def _cover_band(spans: Spans, rows: int, columns: int) -> NDArray[np.bool_]:
    """Return which pixels (rows, columns) lie in any interval."""
    wide = columns + 1
    switches = np.bincount(spans.row * wide + spans.begin, minlength=rows * wide).astype(np.int32)
    switches -= np.bincount(spans.row * wide + spans.end, minlength=rows * wide).astype(np.int32)
    covering = np.cumsum(switches.reshape(rows, wide)[:, :-1], axis=1, dtype=np.int32)
    covered: NDArray[np.bool_] = covering > 0
    return covered


def _number_band(spans: Spans, rows: int, columns: int) -> NDArray[np.int32]:
    """Return the largest number of an interval at each pixel (rows, columns), 0 for none."""
    # Intervals of whole rows are common, as inside a large region, and hide what lies below.
    whole = (spans.begin == 0) & (spans.end == columns)
    bottom = np.zeros(rows, np.int32)
    np.maximum.at(bottom, spans.row[whole], (spans.polygon[whole] + 1).astype(np.int32))
    spans = spans.select(~whole & (spans.polygon + 1 > bottom[spans.row]))
    highest = np.zeros((rows, columns), np.int32)
    # An interval is the union of two, of the largest power of two that fits. Those of one length
    # are noted where they begin, then each is split into two of half the length, down to pixels.
    exponents = np.frexp(spans.end - spans.begin)[1] - 1
    for exponent in range(int(exponents.max(initial=0)), -1, -1):
        new = spans.select(exponents == exponent)
        for first in (new.begin, new.end - (1 << exponent)):
            places = new.row * columns + first
            np.maximum.at(highest.reshape(-1), places, (new.polygon + 1).astype(np.int32))
        if exponent:
            half = 1 << (exponent - 1)
            right = highest[:, half:]
            np.maximum(right, highest[:, :-half].copy(), out=right)
    return np.maximum(highest, bottom[:, None])
