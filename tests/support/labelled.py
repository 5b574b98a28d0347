"""Made-up labels and annotations for the tests of the evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box


def blobs(shape: tuple[int, int], seed: int = 0, values: int = 3) -> NDArray[np.uint8]:
    """Labels from 0 in patches of some pixels, with single pixels between them."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, values, (-(-shape[0] // 9), -(-shape[1] // 9)), np.uint8)
    labels = coarse.repeat(9, 0).repeat(9, 1)[: shape[0], : shape[1]].copy()
    labels[random.random(shape) < 0.1] = 1
    return labels


def rectangle(box: Box) -> list[list[list[int]]]:
    """GeoJSON coordinates of a box."""
    corners = [(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)]
    return [[[x, y] for x, y in [*corners, corners[0]]]]


def write_geojson(path: Path, features: Sequence[tuple[str | None, Any]]) -> Path:
    """Write polygons (coordinates) with class names, as QuPath does."""
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        "type": "Feature",
                        "geometry": {"type": "Polygon", "coordinates": coordinates},
                        "properties": {"objectType": "annotation"}
                        | ({"classification": {"name": name}} if name else {}),
                    }
                    for name, coordinates in features
                ],
            }
        )
    )
    return path
