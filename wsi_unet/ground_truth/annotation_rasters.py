"""Annotations rasterised on a grid, box by box."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.annotation import Annotation, Annotations
from wsi_unet.annotations.drawing import (
    Indices,
    PolygonEdges,
    Spans,
    check_drawable,
    draw_numbers,
)
from wsi_unet.annotations.points import find_containing
from wsi_unet.annotations.polygons import Polygon, area, bounds
from wsi_unet.annotations.reading import HEAD_BYTES, looks_like_annotations, read_annotations
from wsi_unet.errors import AnnotationError
from wsi_unet.geometry import Box, Shape
from wsi_unet.ground_truth.grids import Grid
from wsi_unet.locations import Location
from wsi_unet.regular_files import open_regular

SIDE = 2048
"""About the side of the boxes that are read, px."""


@dataclass(frozen=True)
class AnnotationFacts:
    """What was read from a file of annotations.

    Attributes:
        annotations: number of features with an area.
        polygons: number of their polygons.
        left_out: what was left out because it covers nothing, in words; "" if nothing was.
    """

    annotations: int
    polygons: int
    left_out: str = ""


class AnnotationRaster:
    """Annotations on a grid. Where several overlap, the smallest polygon lies on top.

    Attributes:
        path: the file they were read from.
        annotations: the annotations, in full-resolution px.
        names: the class of each annotation, by its number; they are numbered from 1.
        polygons: the polygons of all annotations in px of the grid, the largest first.
        areas: the areas of the polygons, px.
        owners: (n,) annotation number by polygon number, which start at 1; 0 for 0.
    """

    def __init__(self, path: Path, read: Annotations, grid: Grid) -> None:
        """Lay annotations over a grid.

        Args:
            path: the file they were read from, for messages.
            read: what was read from it, full-resolution px of the slide; at least one annotation.
            grid: the grid to rasterise them on.

        Raises:
            AnnotationError: an annotation lies outside of the slide, or they are too intricate to
                be drawn.
        """
        annotations: Sequence[Annotation] = read.annotations
        self.path = path
        self.annotations = annotations
        self._left_out = read.left_out
        self._shape = grid.shape
        self.names = {number: item.name for number, item in enumerate(annotations, 1)}
        owned = [
            (number, grid.transform_polygon(polygon))
            for number, item in enumerate(annotations, 1)
            for polygon in item.polygons
        ]
        areas = np.array([area(polygon) for _, polygon in owned])
        order = np.argsort(-areas, kind="stable")
        self.areas = areas[order]
        self.owners = np.array([0, *(owned[index][0] for index in order)], np.int32)
        self.polygons: list[Polygon] = [owned[index][1] for index in order]
        self._bounds = np.array([bounds(polygon) for polygon in self.polygons])
        self._edges = PolygonEdges.from_polygons(self.polygons)
        self._refuse_outside(grid)
        check_drawable(path, self._edges, Box.from_shape(grid.shape), SIDE)

    @cached_property
    def facts(self) -> AnnotationFacts:
        """What was read."""
        return AnnotationFacts(
            annotations=len(self.annotations),
            polygons=sum(len(item.polygons) for item in self.annotations),
            left_out=self._left_out,
        )

    def _refuse_outside(self, grid: Grid) -> None:
        y0, x0, y1, x1 = self._bounds.T
        height, width = grid.shape
        outside = np.flatnonzero((y1 <= 0) | (x1 <= 0) | (y0 >= height) | (x0 >= width))
        if not len(outside):
            return
        number = int(self.owners[outside[0] + 1])
        top, left, bottom, right = (
            end * step + (first - step / 2 + 0.5)
            for end, step, first in zip(
                self._bounds[outside[0]],
                grid.slide_centres.step * 2,
                grid.slide_centres.first * 2,
                strict=True,
            )
        )
        raise AnnotationError(
            f"{self.path}: annotation {number} ({self.names[number]!r}, x {left:.0f} to "
            f"{right:.0f}, y {top:.0f} to {bottom:.0f}) lies outside of the slide; coordinates "
            "must be full-resolution pixels of the same slide"
        )

    def find_touching(self, box: Box) -> NDArray[np.intp]:
        """Return the indices of the polygons whose bounding box meets a box."""
        y0, x0, y1, x1 = self._bounds.T
        indices: NDArray[np.intp] = np.flatnonzero(
            (y0 < box.y1) & (y1 > box.y0) & (x0 < box.x1) & (x1 > box.x0)
        )
        return indices

    def read(self, box: Box) -> NDArray[np.int32]:
        """Return the number of the annotation that each pixel's centre lies in, 0 for none.

        Args:
            box: px of the grid.

        Returns:
            (h, w); annotations are numbered from 1 in the order of the file.
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
        return draw_numbers(self._edges.take(self.find_touching(box)), box)

    def read_spans(self, box: Box) -> Iterator[tuple[Box, Spans]]:
        """Yield the pixels of every annotation in a box, those below others too, band by band.

        Args:
            box: px of the grid.

        Yields:
            A band of the box's rows, and disjoint intervals of each annotation, px of the band; in
            place of a polygon's index they have the number of the annotation.
        """
        edges = self._edges.take(self.find_touching(box))
        for band in edges.find_bands(box):
            nothing_hides = np.zeros(band.shape, np.bool_)
            layers = list(edges.find_layers(band, nothing_hides))
            polygon, row, begin, end = (
                np.concatenate([getattr(layer, name) for layer in layers])
                for name in ("polygon", "row", "begin", "end")
            )
            spans = Spans(self.owners[polygon + 1].astype(np.intp), row, begin, end)
            single = len(self.polygons) == len(self.annotations)
            yield band, spans if single else _unite_spans(spans, band.shape)

    def find_holders(self, points: NDArray[np.float64]) -> tuple[Indices, Indices]:
        """Find the annotations that hold points; see `find_containing`.

        Args:
            points: (n, 2) of (y, x), px of the grid.

        Returns:
            Numbers of annotations and indices of points: each pair once.
        """
        if not len(points):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        (y0, x0), (y1, x1) = np.floor(points.min(axis=0)), np.floor(points.max(axis=0)) + 1
        edges = self._edges.take(self.find_touching(Box(int(y0), int(x0), int(y1), int(x1))))
        polygon, point = find_containing(edges, points)
        numbers = self.owners[polygon + 1].astype(np.intp)
        if len(self.polygons) == len(self.annotations):
            return numbers, point
        pairs = np.unique(numbers * len(points) + point)
        return pairs // len(points), pairs % len(points)

    def list_boxes(self) -> list[Box]:
        """Return the smallest box of the grid that holds each polygon."""
        low = np.floor(self._bounds[:, :2]).astype(int).tolist()
        high = np.ceil(self._bounds[:, 2:]).astype(int).tolist()
        whole = Box.from_shape(self._shape)
        return [Box(*y0x0, *y1x1).intersection(whole) for y0x0, y1x1 in zip(low, high, strict=True)]

    def extent(self) -> Box:
        """Return the smallest box of the grid that holds all annotations."""
        low = np.floor(self._bounds[:, :2].min(axis=0)).astype(int).tolist()
        high = np.ceil(self._bounds[:, 2:].max(axis=0)).astype(int).tolist()
        return Box(*low, *high).intersection(Box.from_shape(self._shape))


def _unite_spans(spans: Spans, shape: Shape) -> Spans:
    """Return disjoint intervals with the pixels of others (of one annotation) of a band."""
    rows, columns = shape
    line = (spans.polygon * rows + spans.row) * (columns + 1)
    order = np.argsort(line + spans.begin, kind="stable")
    spans, line = spans.select(order), line[order]
    # How far the intervals before have reached in the same row.
    reached = np.concatenate([[0], np.maximum.accumulate(line + spans.end)[:-1]]) - line
    begin = np.maximum(spans.begin, reached[: len(line)])
    united = Spans(spans.polygon, spans.row, begin, spans.end)
    return united.select(begin < spans.end)


def is_annotation_file(path: str | os.PathLike[str] | Location) -> bool:
    """Return whether a file begins as JSON or XML; of a URL, only the suffix is looked at."""
    location = Location.parse(path)
    if location.is_url:
        return location.name.lower().removesuffix(".gz").endswith(("json", ".xml"))
    try:
        with open_regular(location.path) as file:
            return looks_like_annotations(file.read(HEAD_BYTES))
    except OSError:
        return False  # a folder; or an error that opening it reports


def annotation_path(path: str | os.PathLike[str] | Location) -> Path:
    """Return the path of an annotation file.

    Raises:
        AnnotationError: it is a URL.
    """
    location = Location.parse(path)
    if location.is_url:
        raise AnnotationError(f"{location}: annotations must be a file on a disk; copy it there")
    return location.path


def open_annotation_raster(path: Path, grid: Grid) -> AnnotationRaster:
    """Read annotations in full-resolution px of a slide, and lay them over a grid.

    Args:
        path: a GeoJSON or ASAP XML file.
        grid: the grid to rasterise them on.

    Raises:
        AnnotationError: they can't be read, or one lies outside of the slide.
    """
    return AnnotationRaster(path, read_annotations(path), grid)
