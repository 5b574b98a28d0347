"""GeoJSON annotations: polygons in full-resolution pixels of a slide, with class names.

QuPath, the Digital Slide Archive and others write (x, y) with the origin at the slide's top left
corner; pixel (i, j) covers [j, j + 1) x [i, i + 1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsi_unet.annotations.annotation import (
    UNCLASSIFIED,
    AnnotationCollector,
    Annotations,
    Points,
)
from wsi_unet.annotations.other_json import describe_json
from wsi_unet.errors import AnnotationError, foreign_errors_as
from wsi_unet.wording import write_short

MAX_DEPTH = 32
"""How deep GeometryCollections may be nested."""
AREAS = ("Polygon", "MultiPolygon", "GeometryCollection")
WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
"""The types of geometries that are left out."""
_PARTS = ("type", "features", "geometry", "geometries", "coordinates", "properties")
"""Members of a document that its annotations are made of."""


def parse_geojson(path: Path, data: bytes) -> Annotations:
    """Return the features of a GeoJSON document that cover an area; points and lines are left out.

    A feature's class is the name of its `classification` (QuPath), else its `label` (Digital Slide
    Archive), else its `name`. Polygons, members and holes without an area are left out and counted.

    Args:
        path: the file, for messages.
        data: a FeatureCollection, a Feature, a geometry, or a list of those.

    Raises:
        AnnotationError: it isn't GeoJSON.
    """
    document = _load(path, data)
    collector = AnnotationCollector(path)
    for number, (identity, properties, geometry) in enumerate(_features(path, document, 0), 1):
        if not geometry:
            continue
        name = _class_name(properties)
        where = f"feature {number} ({name[:40]!r})"
        areas = _areas(path, geometry, 0, where)
        polygons = (_rings(path, rings, where) for rings in areas)
        text = identity if isinstance(identity, str) else ""
        collector.add(name, where, polygons, _own_name(properties), text)
    members = document if isinstance(document, dict) else {}
    others = {key: value for key, value in members.items() if key not in _PARTS}
    return replace(collector.collected, members=others)


def _load(path: Path, data: bytes) -> Any:
    with foreign_errors_as(AnnotationError, f"{path}: isn't valid GeoJSON"):
        try:
            return json.loads(data)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data" or error.doc[error.pos] != "{":
                raise
            raise AnnotationError(
                f"{path}: is several JSON documents one after the other; it looks like GeoJSON "
                "lines: make one FeatureCollection of them"
            ) from error


def _features(path: Path, node: Any, depth: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield id, properties and geometry of every feature (RFC 7946, section 3)."""
    _check_depth(path, depth)
    if node is None:
        return
    if isinstance(node, list):  # QuPath exports may be a bare list of features
        for item in node:
            yield from _features(path, item, depth + 1)
        return
    kind = _kind(path, node)
    if kind == "FeatureCollection":
        for item in _items(path, node.get("features"), "a FeatureCollection's features"):
            yield from _features(path, item, depth + 1)
    elif kind == "Feature":
        yield node.get("id"), node.get("properties"), node.get("geometry")
    elif kind in (*AREAS, *WITHOUT_AREA):
        yield None, None, node
    else:
        raise AnnotationError(f"{path}: is JSON, but not GeoJSON: {describe_json(node)}")


def _areas(path: Path, node: Any, depth: int, where: str) -> Iterator[Any]:
    """Yield the rings of every polygon of a geometry."""
    _check_depth(path, depth)
    kind = _kind(path, node)
    if kind == "Polygon":
        yield node.get("coordinates")
    elif kind == "MultiPolygon":
        yield from _items(path, node.get("coordinates") or [[]], where)
    elif kind == "GeometryCollection":
        for item in _items(path, node.get("geometries") or [], where):
            yield from _areas(path, item, depth + 1, where)
    elif kind not in WITHOUT_AREA:
        known = ", ".join((*AREAS, *WITHOUT_AREA))
        raise AnnotationError(
            f"{path}: {where}: its geometry's type is {write_short(kind)}, none of {known}"
        )


def _check_depth(path: Path, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise AnnotationError(f"{path}: the GeoJSON is nested more than {MAX_DEPTH} levels deep")


def _kind(path: Path, node: Any) -> Any:
    if not isinstance(node, dict):
        raise AnnotationError(
            f"{path}: the GeoJSON holds {write_short(node)} where a JSON object should be"
        )
    kind = node.get("type")
    return kind if isinstance(kind, str) else None


def _items(path: Path, value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise AnnotationError(
            f"{path}: {where}: there is {write_short(value)} where a list should be"
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


def _own_name(properties: Any) -> str:
    """Return the name that a feature has beside its class, "" if it has none."""
    name = properties.get("name") if isinstance(properties, dict) else None
    return name.strip() if isinstance(name, str) else ""


def _rings(path: Path, rings: Any, where: str) -> list[Points]:
    """Return the points of each ring of a polygon; without coordinates it has none."""
    broken = f"{path}: {where}: its coordinates aren't pairs of numbers"
    with foreign_errors_as(AnnotationError, broken):
        return [
            np.asarray([point[:2] for point in ring or []], np.float64)
            for ring in _items(path, rings or [], where)
        ]
