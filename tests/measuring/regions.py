"""Regions for tests, and the whole-image oracle of what they measure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import shapely
from numpy.typing import NDArray

import wsi_unet

Geometry: TypeAlias = shapely.Polygon | shapely.MultiPolygon
Named = tuple[dict[str, Any], Geometry]
"""Properties of a feature, and its outline (x, y) in slide px."""


def write_regions(path: Path, regions: Sequence[Named]) -> Path:
    features = [
        {"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(outline)}
        for properties, outline in regions
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def star(random: np.random.Generator, y: float, x: float, radius: float) -> shapely.Polygon:
    """Return a polygon around a point, at most `radius` px from it, that doesn't cross itself."""
    corners = int(random.integers(5, 30))
    angles = (np.arange(corners) + random.uniform(0, 0.9, corners)) * (2 * np.pi / corners)
    radii = radius * random.uniform(0.4, 1, len(angles))
    return shapely.Polygon(
        np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
    )


def draw_regions(seed: int, shape: tuple[int, int]) -> list[Named]:
    """Return overlapping regions, some with holes or several parts or partly beyond the slide."""
    random = np.random.default_rng(seed)
    height, width = shape
    regions: list[Named] = []
    for number in range(int(random.integers(1, 6))):
        parts = []
        for _ in range(int(random.integers(1, 4))):
            y, x = random.uniform(0, height), random.uniform(0, width)
            radius = random.uniform(0.02, 0.5) * width
            outline = star(random, y, x, radius)
            if random.random() < 0.5:
                outline = outline.difference(star(random, y, x, radius / 2))
            parts.append(outline)
        pieces = shapely.get_parts(shapely.unary_union(parts))
        seen = [piece for piece in pieces if piece.intersects(shapely.box(0, 0, width, height))]
        if seen:
            regions.append(({"name": f"r{number}"}, shapely.MultiPolygon(seen)))
    return regions


def measure_whole(
    output: Path,
    labels: NDArray[np.uint8],
    predicted: NDArray[np.bool_],
    regions: Sequence[Named],
    downsample: tuple[float, float] = (1.0, 1.0),
    pixel_area: float = 0.25,
) -> pd.DataFrame:
    """Measure by masks of the whole image, and by the centroids of the whole table of objects."""
    y, x = np.indices(labels.shape)
    centres = (x + 0.5) * downsample[1], (y + 0.5) * downsample[0]
    table = wsi_unet.open_objects(output).to_table().to_pandas()
    rows = []
    for properties, outline in regions:
        mask = shapely.contains_xy(outline, *centres)
        inside = table[shapely.contains_xy(outline, table["x"], table["y"])]
        area = np.count_nonzero(mask & predicted) * pixel_area / 1e6
        for value, name in enumerate(("nucleus", "tumour"), 1):
            own = inside[inside["label"] == value]
            class_area = np.count_nonzero((labels == value) & mask & predicted) * pixel_area / 1e6
            row = {
                "region_name": properties["name"],
                "class": name,
                "region_area_mm2": area,
                "region_predicted": np.divide(np.sum(mask & predicted), np.sum(mask)),
                "class_area_mm2": class_area,
                "share": np.divide(class_area, area),
                "objects": len(own),
                "objects_per_mm2": np.divide(len(own), area),
            }
            for column in ("area_um2", "perimeter_um", "eccentricity", "circularity"):
                row |= {f"{column}_mean": own[column].mean()}
                row |= {f"{column}_median": own[column].median()}
            rows.append(row)
    return pd.DataFrame(rows)


def assert_measured(found: Any, expected: pd.DataFrame) -> None:
    frame = found.to_pandas()[expected.columns]
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False, rtol=1e-12)
