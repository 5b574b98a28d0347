"""Annotations: class names and the areas that they cover."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Polygon, Ring, bounds
from wsi_unet.errors import AnnotationError

MAX_COORDINATE = 1e9
"""Largest coordinate, px: more than any slide has."""
UNCLASSIFIED = "unclassified"
"""The class name of annotations that have none."""

Points = NDArray[np.float64]
"""(n, 2) of (x, y)."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One outlined area.

    Attributes:
        name: the name of its class.
        polygons: the areas that it covers; (y, x) in full-resolution px.
        title: its own name, beside that of its class; "" if it has none.
        identity: the id by which a program knows it; "" if it has none.
    """

    name: str
    polygons: tuple[Polygon, ...]
    title: str = ""
    identity: str = ""


@dataclass(frozen=True, eq=False)
class Annotations:
    """What was read from a file.

    Attributes:
        annotations: those that cover an area, in the order of the file.
        empty: number of outlines and holes that cover nothing and were left out.
        first_empty: where the first of them is, as "feature 3 ('nuclei')"; "" if there is none.
        members: what the file says beside its annotations, unchecked, by key.
    """

    annotations: tuple[Annotation, ...]
    empty: int = 0
    first_empty: str = ""
    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def left_out(self) -> str:
        """What was left out, in words; "" if nothing was.

        >>> Annotations((), 2, "feature 3 ('nuclei')").left_out
        "2 outlines that cover nothing are left out, first in feature 3 ('nuclei')"
        """
        if not self.empty:
            return ""
        what = "1 outline that covers nothing is left out, "
        if self.empty > 1:
            what = f"{self.empty} outlines that cover nothing are left out, first "
        return f"{what}in {self.first_empty}"


class AnnotationCollector:
    """Collects the annotations of a file, and counts what covers nothing.

    Args:
        path: the file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._annotations: list[Annotation] = []
        self._empty = 0
        self._first_empty = ""

    @property
    def collected(self) -> Annotations:
        """What was collected so far."""
        return Annotations(tuple(self._annotations), self._empty, self._first_empty)

    def add(
        self,
        name: str,
        where: str,
        polygons: Iterable[Sequence[Points]],
        title: str = "",
        identity: str = "",
    ) -> None:
        """Add an annotation, unless it covers nothing.

        Args:
            name: the name of its class.
            where: what it is called in messages: "feature 3 ('nuclei')".
            polygons: outer ring and holes of each, full-resolution px of the slide.
            title: its own name, "" if it has none.
            identity: the id by which a program knows it, "" if it has none.

        Raises:
            AnnotationError: points can't be pixels of a slide.
        """
        kept = [self._make_polygon(where, rings) for rings in polygons]
        areas = tuple(polygon for polygon in kept if polygon)
        if areas:
            self._annotations.append(Annotation(name, areas, title, identity))

    def _make_polygon(self, where: str, rings: Sequence[Points]) -> Polygon:
        """Return outer ring and holes, () if the outer ring encloses nothing."""
        made = [self._make_ring(where, points) for points in rings]
        empty = sum(ring is None for ring in made) or not made
        if empty:
            self._first_empty = self._first_empty or where
            self._empty += int(empty)
        if not made or made[0] is None:
            return ()
        return tuple(ring for ring in made if ring is not None)

    def _make_ring(self, where: str, points: Points) -> Ring | None:
        """Return a ring; None if it has fewer than three corners or no extent."""
        if not len(points):
            return None
        if points.ndim != 2 or points.shape[1] != 2:
            raise AnnotationError(f"{self._path}: {where}: its points aren't (x, y) pairs")
        if not (np.abs(points) < MAX_COORDINATE).all():
            raise AnnotationError(
                f"{self._path}: {where}: its coordinates aren't pixels of a slide"
            )
        corners = len(points) - int((points[0] == points[-1]).all())
        ring = points[:, ::-1]
        y0, x0, y1, x1 = bounds((ring,))
        return ring if corners >= 3 and y0 < y1 and x0 < x1 else None
