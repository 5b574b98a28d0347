"""Masks that somebody made: GeoJSON polygons, drawn here, and images (`mask_rasters`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import MaskError
from wsi_unet.geometry import Shape
from wsi_unet.slides.mask_rasters import MOST_CELLS, read_raster

FARTHEST = 1e9
"""px: no slide has coordinates like that."""
DEEPEST = 32
"""How far GeometryCollections may be nested."""

Ring = NDArray[np.float64]
"""(n, 2) of (y, x)."""


def read_mask(path: Path, shape: Shape) -> NDArray[np.bool_]:
    """Read a mask; what it is follows from its content.

    Args:
        path: a raster or GeoJSON.
        shape: (rows, columns) of the slide's level 0, px.

    Returns:
        (rows, columns) bool, at most `MOST_CELLS` per side, stretched over the slide.

    Raises:
        MaskError: it can't be read, is neither, or marks nothing of the slide.
    """
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise MaskError(f"{path}: the mask can't be read: {error.strerror or error}") from error
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return draw(_polygons(path, _read_json(path)), shape, path)
    return read_raster(path, head)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise MaskError(f"{path}: the mask isn't valid GeoJSON ({error})") from error


def _polygons(path: Path, document: Any) -> list[list[Ring]]:
    """Return the rings (outer ones and holes) of each polygon in a GeoJSON document."""
    polygons = [_rings(path, rings) for rings in _walk(path, document, 0)]
    if not polygons:
        raise MaskError(
            f"{path}: the GeoJSON holds no polygons; annotate areas, not points or lines"
        )
    return polygons


def _walk(path: Path, node: Any, depth: int) -> Iterator[Any]:
    """Yield the coordinates of every polygon below a GeoJSON object (RFC 7946, section 3)."""
    if depth > DEEPEST:
        raise MaskError(f"{path}: the GeoJSON is nested more than {DEEPEST} deep")
    if isinstance(node, list):  # QuPath exports may be a bare list of features
        for item in node:
            yield from _walk(path, item, depth + 1)
        return
    if not isinstance(node, dict):
        raise MaskError(f"{path}: the GeoJSON holds {str(node)[:40]!r} where an object should be")
    kind = node.get("type")
    if kind == "Polygon":
        yield node.get("coordinates")
    elif kind == "MultiPolygon":
        yield from _items(path, node.get("coordinates"))
    elif kind == "Feature":
        if node.get("geometry") is not None:
            yield from _walk(path, node["geometry"], depth + 1)
    elif kind in ("FeatureCollection", "GeometryCollection"):
        inside = node.get("features" if kind == "FeatureCollection" else "geometries")
        for item in _items(path, inside):
            yield from _walk(path, item, depth + 1)


def _items(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise MaskError(f"{path}: the GeoJSON holds {str(value)[:40]!r} where a list should be")
    return value


def _rings(path: Path, rings: Any) -> list[Ring]:
    found = []
    for ring in _items(path, rings):
        try:
            points = np.asarray([point[:2] for point in ring], np.float64)
        except (TypeError, ValueError, KeyError) as error:
            raise MaskError(f"{path}: a polygon's coordinates aren't pairs of numbers") from error
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise MaskError(f"{path}: a polygon needs at least three (x, y) points per ring")
        if not (np.abs(points) < FARTHEST).all():
            raise MaskError(f"{path}: a polygon's coordinates aren't pixels of a slide")
        found.append(points[:, ::-1])
    return found


def draw(polygons: Iterable[list[Ring]], shape: Shape, path: Path) -> NDArray[np.bool_]:
    """Return a mask of the cells whose centre lies in any of the polygons.

    Args:
        polygons: for each its rings, (y, x) in level-0 px; holes by the even-odd rule.
        shape: (rows, columns) of the slide's level 0, px.
        path: for the message.

    Raises:
        MaskError: the polygons mark nothing of the slide.
    """
    cell = max(1, math.ceil(max(shape) / MOST_CELLS))
    size = -(-shape[0] // cell), -(-shape[1] // cell)
    scale = size[0] / shape[0], size[1] / shape[1]
    mask = np.zeros(size, np.bool_)
    for rings in polygons:
        _fill([ring * scale for ring in rings], mask)
    if not mask.any():
        raise MaskError(
            f"{path}: no polygon covers any of the slide ({shape[1]} x {shape[0]} px); coordinates "
            "must be (x, y) pixels of level 0, not µm and not of another level"
        )
    return mask


def _fill(rings: list[Ring], mask: NDArray[np.bool_]) -> None:
    """Mark the cells whose centre is inside an odd number of rings.

    Every edge switches the cells to the right of where it crosses the line through a row's
    centres; whoever is switched an odd number of times is inside.
    """
    points = np.concatenate(rings)
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0)) + 1
    top, left = (max(0, int(side)) for side in low)
    bottom, right = (min(side, int(end)) for side, end in zip(mask.shape, high, strict=True))
    if top >= bottom or left >= right:
        return
    switches = np.zeros((bottom - top, right - left + 1), np.int32)
    for ring in rings:
        rows, columns = _crossings(ring, top, bottom)
        np.add.at(switches, (rows - top, np.clip(columns, left, right) - left), 1)
    inside = np.cumsum(switches[:, :-1], axis=1) & 1
    mask[top:bottom, left:right] |= inside.astype(np.bool_)


def _crossings(ring: Ring, top: int, bottom: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return, for every row centre that an edge crosses, the row and the first cell behind."""
    start, stop = ring, np.roll(ring, -1, axis=0)
    # An edge crosses the centres y + 1/2 with min(y0, y1) <= y + 1/2 < max(y0, y1).
    first = np.clip(np.ceil(np.minimum(start[:, 0], stop[:, 0]) - 0.5), top, bottom).astype(np.intp)
    last = np.clip(np.ceil(np.maximum(start[:, 0], stop[:, 0]) - 0.5), top, bottom).astype(np.intp)
    count = last - first
    edge = np.repeat(np.arange(len(ring)), count)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    (y0, x0), (y1, x1) = start[edge].T, stop[edge].T
    x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    return rows, np.ceil(x - 0.5).astype(np.intp)
