"""An annotation: a class name and the area that it covers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Polygon, Ring
from wsi_unet.errors import AnnotationError

FARTHEST = 1e9
"""px: no slide has coordinates like that."""
UNCLASSIFIED = "unclassified"
"""The class of what has none."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One area that somebody outlined.

    Attributes:
        name: of its class, "unclassified" where it has none.
        polygons: what it covers: the areas of all of them; (y, x) in full-resolution px.
    """

    name: str
    polygons: tuple[Polygon, ...]


def ring_of(path: Path, points: NDArray[np.float64]) -> Ring:
    """Return a ring (n, 2) of (y, x) made of points (n, 2) of (x, y) that a file holds.

    Args:
        path: of the file, for messages.
        points: full-resolution px of the slide.

    Raises:
        AnnotationError: they are fewer than three, or no pixels.
    """
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise AnnotationError(f"{path}: a polygon needs at least three (x, y) points per ring")
    if not (np.abs(points) < FARTHEST).all():
        raise AnnotationError(f"{path}: a polygon's coordinates aren't pixels of a slide")
    return points[:, ::-1]
