"""Outlines as the pixels of labels that they cover, which say whether two are the same.

Programs write outlines with other first points, digits and directions; the pixels stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_unet.annotations.drawing import PolygonEdges, Spans
from wsi_unet.annotations.polygons import Polygon
from wsi_unet.geometry import Box, Shape
from wsi_unet.objects.runs import Runs


def parse_outlines(
    outlines: Sequence[bytes], downsample: tuple[float, float]
) -> list[tuple[Polygon, ...]]:
    """Return the polygons of stored outlines, (y, x) px of the labels.

    Args:
        outlines: (n,) WKB, x and y in px of the slide.
        downsample: (y, x) px of the slide per px of the labels.
    """
    polygons, owner = shapely.get_parts(shapely.from_wkb(outlines), return_index=True)
    rings, of_polygon = shapely.get_rings(polygons, return_index=True)
    points, of_ring = shapely.get_coordinates(rings, return_index=True)
    split = np.split(points[:, ::-1] / downsample, np.flatnonzero(np.diff(of_ring)) + 1)
    found: list[list[list[NDArray[np.float64]]]] = [[] for _ in outlines]
    last = -1
    for ring, polygon in zip(split if len(points) else [], of_polygon.tolist(), strict=True):
        own = found[owner[polygon]]
        if polygon != last:
            own.append([])
            last = polygon
        own[-1].append(ring)
    return [tuple(tuple(each) for each in polygons) for polygons in found]


def collect_edges(outlines: Sequence[Sequence[Polygon]]) -> tuple[PolygonEdges, NDArray[np.intp]]:
    """Return the edges of the polygons of objects, and (polygons,) which object each is of."""
    owner = np.repeat(np.arange(len(outlines)), [len(polygons) for polygons in outlines])
    return PolygonEdges.from_polygons([each for own in outlines for each in own]), owner


def find_runs(edges: PolygonEdges, owner: NDArray[np.intp], shape: Shape) -> Runs:
    """Return the pixels of a grid whose centres lie in objects.

    Args:
        edges: the polygons of objects, px of the grid; the even-odd rule counts in each, and an
            object has the pixels of all its polygons.
        owner: (polygons,) which object each is of, ascending.
        shape: (rows, columns) of the grid.

    Returns:
        Runs of regions with the numbers of the objects; objects without pixels have none.
    """
    found = [*edges.find_spans(Box.from_shape(shape))]
    spans = _concatenate(found)
    rows, columns = shape
    region = owner[spans.polygon].astype(np.int64)
    line = (region * rows + spans.row) * (columns + 1)  # a column more, so that lines don't adjoin
    order = np.argsort(line + spans.begin, kind="stable")
    start, stop = (line + spans.begin)[order], (line + spans.end)[order]
    begins = np.ones(len(start), np.bool_)
    begins[1:] = start[1:] > np.maximum.accumulate(stop)[:-1]
    at = np.flatnonzero(begins)
    start = start[at]
    stop = np.maximum.reduceat(stop, at) if len(at) else stop
    line, x0 = np.divmod(start, columns + 1)
    region, y = np.divmod(line, rows)
    return Runs(shape, region, y, x0, x0 + (stop - start))


def _concatenate(several: Sequence[Spans]) -> Spans:
    nothing = np.empty(0, np.intp)
    return Spans(
        *(
            np.concatenate([nothing, *(getattr(spans, name) for spans in several)])
            for name in ("polygon", "row", "begin", "end")
        )
    )


def join_runs(several: Sequence[Runs], counts: Sequence[int]) -> Runs:
    """Return the runs of several groups of regions, numbered on from group to group.

    Args:
        several: the groups, at least one; all in one window.
        counts: number of regions of each.
    """
    before = np.cumsum(counts) - counts
    regions = [runs.region + first for runs, first in zip(several, before, strict=True)]
    y, x0, x1 = (
        np.concatenate([getattr(runs, name) for runs in several]) for name in ("y", "x0", "x1")
    )
    return Runs(several[0].shape, np.concatenate(regions), y, x0, x1)


def are_same(one: Runs, other: Runs, total: int) -> NDArray[np.bool_]:
    """Return of which regions 0 … total − 1 both have the same pixels, (total,)."""
    starts, others = one.find_starts(total), other.find_starts(total)
    same: NDArray[np.bool_] = np.diff(starts) == np.diff(others)
    which = np.flatnonzero(same)
    mine, theirs = one.take_regions(which, starts), other.take_regions(which, others)
    differ = (mine.y != theirs.y) | (mine.x0 != theirs.x0) | (mine.x1 != theirs.x1)
    same[which[mine.region[differ]]] = False
    return same


def find_boxes(runs: Runs, total: int) -> NDArray[np.int64]:
    """Return the boxes (total, 4) around regions, (y0, x0, y1, x1); 0 without runs."""
    boxes = np.zeros((total, 4), np.int64)
    at = np.flatnonzero(np.diff(runs.region, prepend=-1))
    if len(at):
        last = np.append(at[1:], len(runs)) - 1
        left, right = np.minimum.reduceat(runs.x0, at), np.maximum.reduceat(runs.x1, at)
        boxes[runs.region[at]] = np.stack([runs.y[at], left, runs.y[last] + 1, right], axis=1)
    return boxes


def count_pixels(runs: Runs, total: int) -> NDArray[np.int64]:
    """Return the numbers of pixels (total,) of regions."""
    return np.bincount(runs.region, runs.x1 - runs.x0, total).astype(np.int64)
