"""Exported objects, edits of them as people make them in QuPath, and what these should come to."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
from measuring.regions import star
from numpy.typing import NDArray
from objects import shapes
from support.labelled import write_store

import wsi_unet

SHAPE = (540, 560)
DOWNSAMPLE, MPP = (1.5, 3.25), (0.25, 0.5)
PIXEL = (DOWNSAMPLE[0] * MPP[0], DOWNSAMPLE[1] * MPP[1])
NAMES = {1: "nucleus", 2: "tumour"}
VALUES = {name: value for value, name in NAMES.items()}

Geometry: TypeAlias = shapely.Polygon | shapely.MultiPolygon
Feature = dict[str, Any]
Mask = NDArray[np.bool_]


def draw_labels() -> shapes.Labels:
    """Return discs that touch, a region with a hole across blocks, and single pixels."""
    labels = np.zeros(SHAPE, np.uint8)
    for y, x in ((5, 10), (20, 490), (480, 60), (480, 480)):
        part = labels[y : y + 60, x : x + 60]
        part[...] = shapes.touching_discs(60, seed=y + x)
    labels[230:280, 220:300] = 2
    labels[250:262, 246:268] = 0
    labels[150, ::100] = 1
    return labels


LABELS = draw_labels()


def make_result(path: Path, *, block: int = 512, **options: Any) -> Path:
    """Write a result whose pixels aren't square, with its objects; return its path."""
    given: dict[str, Any] = {"downsample": DOWNSAMPLE, "mpp": MPP} | options
    path.parent.mkdir(parents=True, exist_ok=True)
    write_store(path, given.pop("labels", LABELS), block=block, **given)
    wsi_unet.find_objects(path)
    return path


def export_features(result: Path | str) -> list[Feature]:
    """Return the objects of a result as features that QuPath reads, in order of identity."""
    rows = wsi_unet.open_objects(result).to_table().sort_by("id").to_pylist()
    return [
        make_feature(shapely.from_wkb(row["geometry"]), row["class"], row["uuid"]) for row in rows
    ]


def make_feature(geometry: Geometry, name: str | None, identity: str | None = None) -> Feature:
    """Return a feature of an outline in slide px."""
    properties: dict[str, Any] = {"objectType": "detection", "measurements": {"Area": 3.5}}
    if name is not None:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    feature = {"type": "Feature", "geometry": shapely.geometry.mapping(geometry)}
    identified = {} if identity is None else {"id": identity}
    return feature | identified | {"properties": properties}


def write_features(path: Path, features: Sequence[Feature], **members: Any) -> Path:
    """Write features as QuPath does, packed if the name says so."""
    document = {"type": "FeatureCollection", "features": [*features], **members}
    text = json.dumps(document).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return path


def find_pixels(geometry: Geometry, shape: tuple[int, int] = SHAPE) -> Mask:
    """Return which pixels of the labels have their centre in an outline in slide px."""
    x0, y0, x1, y1 = geometry.bounds
    rows = slice(max(0, int(y0 / DOWNSAMPLE[0]) - 1), max(0, int(y1 / DOWNSAMPLE[0]) + 2))
    columns = slice(max(0, int(x0 / DOWNSAMPLE[1]) - 1), max(0, int(x1 / DOWNSAMPLE[1]) + 2))
    found, (y, x) = np.zeros(shape, np.bool_), np.indices(shape)[:, rows, columns]
    centres = (x + 0.5) * DOWNSAMPLE[1], (y + 0.5) * DOWNSAMPLE[0]
    found[rows, columns] = shapely.contains_xy(geometry, *centres)
    return found


@dataclass(frozen=True, eq=False)
class Expected:
    """What should become of an object: its class, its pixels, and what is told of it."""

    name: str
    mask: Mask
    edit: str


def write_differently(geometry: Geometry, random: np.random.Generator) -> Geometry:
    """Return an outline with other first points, directions and last digits."""

    def change(ring: Any) -> NDArray[np.float64]:
        points = shapely.get_coordinates(ring)[:-1]
        points = np.roll(points, int(random.integers(len(points))), axis=0)[
            :: int(random.choice([-1, 1]))
        ]
        single: NDArray[np.float64] = np.round(points, 2).astype(np.float32).astype(np.float64)
        return single

    parts = [
        shapely.Polygon(change(part.exterior), [change(ring) for ring in part.interiors])
        for part in shapely.get_parts(geometry)
    ]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def edit_at_random(
    features: Sequence[Feature], seed: int
) -> tuple[list[Feature], dict[str, Expected]]:
    """Return edited features in any order, and what should become of the objects, by UUID.

    Added objects are by numbers from 0 on, in place of their UUIDs.
    """
    random = np.random.default_rng(seed)
    edited: list[Feature] = []
    expected: dict[str, Expected] = {}
    for feature in features:
        geometry = shapely.geometry.shape(feature["geometry"])
        name, mask = feature["properties"]["classification"]["name"], find_pixels(geometry)
        other = NAMES[3 - VALUES[name]]
        identity, edit = feature["id"], str(random.choice(["keep", "class", "shape", "gone"]))
        if edit == "gone":
            expected[identity] = Expected(name, mask, "missing")
            continue
        moved = geometry
        if edit == "shape":
            dx, dy = random.uniform(-9, 9, 2)
            moved = shapely.affinity.translate(geometry, dx, dy)
            if not find_pixels(moved).any():
                moved = geometry
        if edit == "class":
            name = other
        pixels = find_pixels(moved)
        same = np.array_equal(pixels, mask)
        told = ("reclassified" if edit == "class" else "unchanged") if same else "reshaped"
        expected[identity] = Expected(name, pixels, told)
        drawn = write_differently(geometry, random) if same else moved
        edited.append(make_feature(drawn, name, identity))
    for number in range(int(random.integers(1, 6))):
        y, x = random.uniform(30, np.array(SHAPE) * DOWNSAMPLE - 30)
        outline = star(random, y, x, 25)
        name = str(random.choice([*VALUES]))
        kind = random.choice(["uuid", "none", "text"])
        drawn_by = {"uuid": str(uuid.UUID(bytes=random.bytes(16), version=4)), "text": f"n{number}"}
        edited.append(make_feature(outline, name, drawn_by.get(str(kind))))
        expected[str(number)] = Expected(name, find_pixels(outline), "added")
    order = random.permutation(len(edited))
    return [edited[index] for index in order], expected


def count_edits(expected: Mapping[str, Expected]) -> dict[str, int]:
    """Return how many objects were edited how."""
    told = [each.edit for each in expected.values()]
    return {name: told.count(name) for name in {*told}}


def measure_alone(mask: Mask, value: int) -> list[dict[str, Any]]:
    """Return the rows that `find_objects` would give of the components of a mask by itself."""
    table = shapes.find_by_blocks((mask * np.uint8(value)).astype(np.uint8), 1024, pixel=PIXEL)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


SHAPE_COLUMNS = (
    "area_px", "area_um2", "perimeter_um", "equivalent_diameter_um", "major_axis_um",
    "minor_axis_um", "eccentricity", "orientation", "solidity", "circularity", "large", "cut",
)  # fmt: skip


def read_rows(result: Path | str, label: str | None = None) -> list[dict[str, Any]]:
    """Return the corrected objects of a result in order of identity."""
    rows: list[dict[str, Any]] = (
        wsi_unet.open_edited_objects(result, label).to_table().sort_by("id").to_pylist()
    )
    return rows


def read_objects(result: Path | str) -> list[dict[str, Any]]:
    """Return the objects of a result as they were found, in order of identity."""
    rows: list[dict[str, Any]] = wsi_unet.open_objects(result).to_table().sort_by("id").to_pylist()
    return rows
