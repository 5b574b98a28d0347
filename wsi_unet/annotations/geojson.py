"""GeoJSON annotations: polygons in full-resolution pixels of a slide, with class names.

QuPath, the Digital Slide Archive and others write (x, y) with the origin at the slide's top left
corner; pixel (i, j) covers [j, j + 1) x [i, i + 1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsi_unet.annotations.annotation import UNCLASSIFIED, Annotation, make_ring
from wsi_unet.annotations.polygons import Polygon, Ring
from wsi_unet.errors import AnnotationError

MAX_DEPTH = 32
"""How deep GeometryCollections may be nested."""


def parse_geojson(path: Path, data: bytes) -> list[Annotation]:
    """Return the features of a GeoJSON document that cover an area; points and lines are left out.

    A feature's class is the name of its `classification` (QuPath), else its `label` (Digital Slide
    Archive), else its `name`.

    Args:
        path: the file, for messages.
        data: a FeatureCollection, a Feature, a geometry, or a list of those.

    Raises:
        AnnotationError: it isn't GeoJSON.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: isn't valid GeoJSON ({error})") from error
    return [
        Annotation(name, tuple(polygons))
        for name, geometry in _features(path, document, 0)
        if (polygons := [_polygon(path, rings) for rings in _areas(path, geometry, 0)])
    ]


def _features(path: Path, node: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield class name and geometry of every feature (RFC 7946, section 3)."""
    _check_depth(path, depth)
    if isinstance(node, list):  # QuPath exports may be a bare list of features
        for item in node:
            yield from _features(path, item, depth + 1)
        return
    kind = _kind(path, node)
    if kind == "FeatureCollection":
        for item in _items(path, node.get("features")):
            yield from _features(path, item, depth + 1)
    elif kind == "Feature":
        if node.get("geometry") is not None:
            yield _class_name(node.get("properties")), node["geometry"]
    else:
        yield UNCLASSIFIED, node


def _areas(path: Path, node: Any, depth: int) -> Iterator[Any]:
    """Yield the rings of every polygon of a geometry."""
    _check_depth(path, depth)
    kind = _kind(path, node)
    if kind == "Polygon":
        yield node.get("coordinates")
    elif kind == "MultiPolygon":
        yield from _items(path, node.get("coordinates"))
    elif kind == "GeometryCollection":
        for item in _items(path, node.get("geometries")):
            yield from _areas(path, item, depth + 1)


def _check_depth(path: Path, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise AnnotationError(f"{path}: the GeoJSON is nested more than {MAX_DEPTH} levels deep")


def _kind(path: Path, node: Any) -> Any:
    if not isinstance(node, dict):
        raise AnnotationError(
            f"{path}: the GeoJSON holds {str(node)[:40]!r} where a JSON object should be"
        )
    return node.get("type")


def _items(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise AnnotationError(
            f"{path}: the GeoJSON holds {str(value)[:40]!r} where a list should be"
        )
    return value


def _class_name(properties: Any) -> str:
    """Return the name that a feature's properties give its class.

    >>> _class_name({"classification": {"name": "Tumor", "color": [200, 0, 0]}, "name": "A"})
    'Tumor'
    """
    if not isinstance(properties, dict):
        return UNCLASSIFIED
    for key in ("classification", "label", "name"):
        value = properties.get(key)
        if isinstance(value, dict):
            value = value.get("name") or value.get("names") or value.get("value")
        if isinstance(value, list):  # QuPath's derived classes: "Tumor: Positive"
            value = ": ".join(str(part) for part in value)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return UNCLASSIFIED


def _polygon(path: Path, rings: Any) -> Polygon:
    polygon: list[Ring] = []
    for ring in _items(path, rings):
        try:
            points = np.asarray([point[:2] for point in ring], np.float64)
        except (TypeError, ValueError, KeyError) as error:
            raise AnnotationError(
                f"{path}: a polygon's coordinates aren't pairs of numbers"
            ) from error
        polygon.append(make_ring(path, points))
    if not polygon:
        raise AnnotationError(f"{path}: a polygon needs at least three (x, y) points per ring")
    return tuple(polygon)
