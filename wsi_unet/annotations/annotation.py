"""An annotation: a class name and the area that it covers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Polygon, Ring
from wsi_unet.errors import AnnotationError

MAX_COORDINATE = 1e9
"""Largest coordinate, px: more than any slide has."""
UNCLASSIFIED = "unclassified"
"""The class name of annotations that have none."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One outlined area.

    Attributes:
        name: the name of its class.
        polygons: the areas that it covers; (y, x) in full-resolution px.
    """

    name: str
    polygons: tuple[Polygon, ...]


def make_ring(path: Path, points: NDArray[np.float64]) -> Ring:
    """Return a ring, (n, 2) of (y, x), made of points, (n, 2) of (x, y), from a file.

    Args:
        path: the file, for messages.
        points: full-resolution px of the slide.

    Raises:
        AnnotationError: there are fewer than three, or they can't be pixels of a slide.
    """
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise AnnotationError(f"{path}: a polygon needs at least three (x, y) points per ring")
    if not (np.abs(points) < MAX_COORDINATE).all():
        raise AnnotationError(f"{path}: a polygon's coordinates aren't pixels of a slide")
    return points[:, ::-1]
