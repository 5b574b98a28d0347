"""Annotations as pixels of a grid, drawn box by box."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet import locations
from wsi_unet.annotations.annotation import Annotation
from wsi_unet.annotations.polygons import Polygon, area, bounds, crosses_itself, inside
from wsi_unet.annotations.reading import read_annotations
from wsi_unet.errors import AnnotationError
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.grids import Grid


@dataclass(frozen=True)
class AnnotationFacts:
    """What was read from a file of annotations.

    Attributes:
        annotations: features with an area.
        polygons: polygons of those.
        repaired: polygons with a ring that crosses or touches itself; see `polygons`.
    """

    annotations: int
    polygons: int
    repaired: int


class Drawing:
    """Annotations on a grid. Where several overlap, the smallest polygon lies on top.

    Attributes:
        path: what they were read from.
        annotations: full-resolution px.
        names: the class of each annotation, by its number; they are numbered from 1.
        polygons: of all annotations, px of the grid, the largest first.
        areas: of the polygons, px.
        owners: of each polygon's number, from 1, the annotation's number; 0 for 0.
    """

    def __init__(self, path: Path, annotations: Sequence[Annotation], grid: Grid) -> None:
        """Lay annotations over a grid.

        Args:
            path: what they were read from, for messages.
            annotations: full-resolution px of the slide; at least one.
            grid: whose pixels are asked for.

        Raises:
            AnnotationError: one lies outside of the slide.
        """
        self.path = path
        self.annotations = annotations
        self._shape = grid.shape
        self.names = {number: one.name for number, one in enumerate(annotations, 1)}
        placed = [
            (number, grid.on_grid(polygon))
            for number, one in enumerate(annotations, 1)
            for polygon in one.polygons
        ]
        sizes = np.array([area(polygon) for _, polygon in placed])
        order = np.argsort(-sizes, kind="stable")
        self.areas = sizes[order]
        self.owners = np.array([0, *(placed[place][0] for place in order)], np.int32)
        self.polygons: list[Polygon] = [placed[place][1] for place in order]
        self._bounds = np.array([bounds(polygon) for polygon in self.polygons])
        self._refuse_outside(grid)

    @cached_property
    def facts(self) -> AnnotationFacts:
        """What was read."""
        return facts_of(self.annotations)

    def _refuse_outside(self, grid: Grid) -> None:
        y0, x0, y1, x1 = self._bounds.T
        height, width = grid.shape
        beside = np.flatnonzero((y1 <= 0) | (x1 <= 0) | (y0 >= height) | (x0 >= width))
        if not len(beside):
            return
        number = int(self.owners[beside[0] + 1])
        top, left, bottom, right = (
            end * step + (first - step / 2 + 0.5)
            for end, step, first in zip(
                self._bounds[beside[0]],
                grid.on_slide.step * 2,
                grid.on_slide.first * 2,
                strict=True,
            )
        )
        raise AnnotationError(
            f"{self.path}: annotation {number} ({self.names[number]!r}, x {left:.0f} to "
            f"{right:.0f}, y {top:.0f} to {bottom:.0f}) lies outside of the slide; coordinates "
            "must be full-resolution pixels of the same slide"
        )

    def touching(self, box: Box) -> NDArray[np.intp]:
        """Return the places of the polygons whose bounding box meets a box."""
        y0, x0, y1, x1 = self._bounds.T
        found: NDArray[np.intp] = np.flatnonzero(
            (y0 < box.y1) & (y1 > box.y0) & (x0 < box.x1) & (x1 > box.x0)
        )
        return found

    def read(self, box: Box) -> NDArray[np.int32]:
        """Return the number of the annotation that each pixel's centre lies in, 0 for none.

        Args:
            box: px of the grid.

        Returns:
            (h, w); annotations are numbered from 1 as they stand in the file.
        """
        numbers: NDArray[np.int32] = self.owners[self.read_polygons(box)]
        return numbers

    def read_polygons(self, box: Box) -> NDArray[np.int32]:
        """Return the number of the polygon that each pixel's centre lies in, 0 for none.

        Args:
            box: px of the grid.

        Returns:
            (h, w); polygon n is `polygons[n - 1]` and belongs to annotation `owners[n]`.
        """
        drawn = np.zeros(box.shape, np.int32)
        for place in self.touching(box).tolist():
            found = inside(self.polygons[place], box)
            if found is not None:
                part, mask = found
                drawn[part.relative_to(box).slices()][mask] = place + 1
        return drawn

    def extent(self) -> Box:
        """Return the smallest box of the grid that holds all annotations."""
        low = np.floor(self._bounds[:, :2].min(axis=0)).astype(int).tolist()
        high = np.ceil(self._bounds[:, 2:].max(axis=0)).astype(int).tolist()
        return Box(*low, *high).intersection(Box.of_shape(self._shape))


def annotation_path(place: str | os.PathLike[str]) -> Path:
    """Return the file that is meant.

    Raises:
        AnnotationError: it is a URL.
    """
    location = locations.resolve(os.fspath(place))
    if locations.is_url(location):
        raise AnnotationError(f"{location}: annotations must be a file on a disk; copy it there")
    return Path(location)


def read_drawing(path: Path, grid: Grid) -> Drawing:
    """Read annotations in full-resolution px of a slide.

    Args:
        path: of GeoJSON or ASAP XML.
        grid: whose pixels are asked for.

    Raises:
        AnnotationError: they can't be read, or one lies outside of the slide.
    """
    return Drawing(path, read_annotations(path), grid)


def facts_of(annotations: Sequence[Annotation]) -> AnnotationFacts:
    """Count annotations and their polygons."""
    polygons = [polygon for one in annotations for polygon in one.polygons]
    return AnnotationFacts(
        annotations=len(annotations),
        polygons=len(polygons),
        repaired=sum(any(crosses_itself(ring) for ring in polygon) for polygon in polygons),
    )
