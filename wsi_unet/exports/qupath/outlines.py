"""Outlines of objects as GeoJSON geometries: the texts of many polygons at once.

All edges lie between pixels of the labels, so a coordinate is one of few numbers, each of which is
written once, and the same wherever it occurs: neighbours share their edges exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from wsi_unet.errors import OutputError

DECIMALS = 3
"""Decimals of coordinates, px of the slide; whole numbers have none."""

_SLACK = 1e-3
"""How far from an edge of pixels a vertex may be, px of the labels, since numbers are rounded."""

_HEADS = pa.array(
    ['{"type":"Polygon","coordinates":[[[', '{"type":"MultiPolygon","coordinates":[[[[']
)
_TAILS = pa.array(["]]]}", "]]]]}"])


@dataclass(frozen=True, eq=False)
class GridLines:
    """The lines between the pixels of the labels along one axis, and the text of each.

    Attributes:
        step: their distance, slide px.
        texts: the coordinate of each as QuPath counts, from the first one on.
    """

    step: float
    texts: pa.Array

    @classmethod
    def make(cls, pixels: int, step: float, origin: int) -> GridLines:
        """Return the lines of an axis.

        Args:
            pixels: number of the labels' pixels along it.
            step: slide px per pixel of the labels.
            origin: where QuPath begins to count, slide px.
        """
        places = np.round(np.arange(pixels + 1) * step - origin, DECIMALS)
        return cls(step, pc.cast(pa.array(places + 0.0), pa.string()))  # no -0

    def write(self, coordinates: NDArray[np.float64]) -> pa.Array:
        """Return the texts of coordinates (n,), slide px.

        Raises:
            OutputError: one isn't on a line, so no object of these labels has it.
        """
        exact = coordinates / self.step
        lines = np.rint(exact)
        known = (lines >= 0) & (lines < len(self.texts)) & (np.abs(exact - lines) <= _SLACK)
        if not known.all():
            raise OutputError(
                "the outlines of the objects don't fit the labels; find objects again with "
                "another rule, and then with this one"
            )
        return self.texts.take(pa.array(lines.astype(np.int64)))


def write_geometries(outlines: pa.Array, x_lines: GridLines, y_lines: GridLines) -> pa.Array:
    """Return the GeoJSON geometries of outlines.

    Rings end where they begin; outer ones run counter-clockwise in (x, y), holes clockwise.

    Args:
        outlines: (n,) polygons and multipolygons as WKB, slide px.
        x_lines: the lines that x may be on.
        y_lines: the lines that y may be on.

    Raises:
        OutputError: an outline isn't on the edges of pixels.
    """
    points, offsets = _take_apart(outlines)
    vertices = pc.binary_join_element_wise(
        x_lines.write(points[:, 0]), y_lines.write(points[:, 1]), ","
    )
    texts = vertices
    for ends, separator in zip(offsets, ("],[", "]],[[", "]]],[[["), strict=True):
        texts = pc.binary_join(
            pa.ListArray.from_arrays(pa.array(ends, pa.int32()), texts), separator
        )
    several = pa.array((np.diff(offsets[-1]) > 1).astype(np.int8))
    return pc.binary_join_element_wise(_HEADS.take(several), texts, _TAILS.take(several), "")


def _take_apart(outlines: pa.Array) -> tuple[NDArray[np.float64], tuple[NDArray[Any], ...]]:
    """Return the points (v, 2) of outlines, and where rings, polygons and objects begin.

    Each of the three begins with 0 and ends with the number of what it counts.
    """
    shapes = shapely.from_wkb(outlines.to_numpy(zero_copy_only=False))
    kind, points, offsets = shapely.to_ragged_array(shapes, include_z=False)
    if kind == shapely.GeometryType.POLYGON:
        offsets = (*offsets, np.arange(len(shapes) + 1))
    return points, offsets
