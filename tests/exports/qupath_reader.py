"""Read GeoJSON as QuPath does, and refuse what it would refuse, ignore or misread."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, eq=False)
class QuPathObject:
    """A feature.

    Attributes:
        uuid: its identity.
        kind: "annotation" or "detection".
        name: of its class.
        colour: of its class.
        measurements: by name; NaN where the file says "NaN".
        outline: px.
    """

    uuid: str
    kind: str
    name: str
    colour: tuple[int, int, int]
    measurements: dict[str, float]
    outline: BaseGeometry


def read_files(paths: Sequence[Path]) -> list[QuPathObject]:
    """Read the objects of an export, whose identities must differ."""
    found = [each for path in paths for each in _read_file(path)]
    assert len({each.uuid for each in found}) == len(found)
    return found


def read_head(path: Path) -> dict[str, Any]:
    """Return what a file says about itself."""
    said: dict[str, Any] = _load(path)["wsi_unet"]
    return said


def _read_file(path: Path) -> list[QuPathObject]:
    assert path.name.endswith((".geojson", ".json", ".geojson.gz", ".json.gz"))
    document = _load(path)
    assert document["type"] == "FeatureCollection"
    return [_read_feature(feature) for feature in document["features"]]


def _load(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    document: dict[str, Any] = json.loads(
        data.decode(), parse_constant=_refuse, object_pairs_hook=_refuse_repeated
    )
    return document


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} isn't JSON")


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def _read_feature(feature: dict[str, Any]) -> QuPathObject:
    assert feature.keys() == {"type", "id", "geometry", "properties"}, "what QuPath would ignore"
    assert feature["type"] == "Feature"
    assert UUID.fullmatch(feature["id"])
    properties = feature["properties"]
    assert properties.keys() == {"objectType", "classification", "measurements"}
    assert properties["objectType"] in {"annotation", "detection", "cell", "tile"}
    name, colour = _read_class(properties["classification"])
    measurements = {key: _read_number(value) for key, value in properties["measurements"].items()}
    outline = _read_geometry(feature["geometry"])
    return QuPathObject(
        feature["id"], properties["objectType"], name, colour, measurements, outline
    )


def _read_class(classification: dict[str, Any]) -> tuple[str, tuple[int, int, int]]:
    assert classification.keys() == {"name", "color"}
    name, colour = classification["name"], classification["color"]
    assert isinstance(name, str)
    assert name.strip()
    assert [type(part) for part in colour] == [int] * 3
    assert all(0 <= part < 256 for part in colour)
    return name, (colour[0], colour[1], colour[2])


def _read_number(value: object) -> float:
    if value == "NaN":
        return math.nan
    assert isinstance(value, int | float)
    assert not isinstance(value, bool)
    assert math.isfinite(value)
    return value


def _read_geometry(geometry: dict[str, Any]) -> BaseGeometry:
    assert geometry.keys() == {"type", "coordinates"}
    coordinates = geometry["coordinates"]
    polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}[geometry["type"]]
    assert polygons
    assert len(polygons) > 1 or geometry["type"] == "Polygon"
    for outer, *holes in polygons:
        assert _signed_area(outer) > 0, "RFC 7946, 3.1.6: outer rings run counter-clockwise"
        assert all(_signed_area(hole) < 0 for hole in holes)
    outline: BaseGeometry = shapely.from_geojson(json.dumps(geometry))
    assert shapely.is_valid(outline), shapely.is_valid_reason(outline)
    return outline


def _signed_area(ring: list[Any]) -> float:
    assert len(ring) >= 4
    assert ring[0] == ring[-1]
    points = np.array(ring, np.float64)
    assert points.shape == (len(ring), 2)
    assert np.isfinite(points).all()
    x, y = (points - points[0]).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2
