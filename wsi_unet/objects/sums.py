"""Sums over the pixels of objects that add up over blocks, and the measurements that they give.

All sums are whole numbers, so their order and the blocks that they come from make no difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.runs import Runs

EXACT = 1 << 20
"""Most pixels of an object whose products of sums surely fit into 64 bits, with `LONG`."""

LONG = 1 << 10
"""Longest side of such an object, px."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the pixels of n objects, one row each; coordinates are from a point of each.

    Attributes:
        moments: (n, 6) number of pixels, Σy, Σx, Σyy, Σxx, Σxy.
        crossings: (n, 3) how many pairs of neighbours have one pixel in the object and one outside,
            along rows, along columns and along both diagonals.
        cut: (n,) whether it touches pixels that weren't predicted, or the edge of the slide.
        values: (n, 2k) sums of the k values that pixels have, and then of their squares.
    """

    moments: NDArray[Any]
    crossings: NDArray[Any]
    cut: NDArray[np.bool_]
    values: NDArray[Any]


def sum_moments(runs: Runs, origins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the moments (n, 6) of regions.

    Args:
        runs: the regions.
        origins: (n, 2) the point (y, x) from which each region's coordinates count, px.
    """
    y, x0 = runs.y - origins[runs.region, 0], runs.x0 - origins[runs.region, 1]
    x1 = x0 + (runs.x1 - runs.x0)
    pixels = x1 - x0
    # Of the columns x0 … x1 − 1, whose squares sum up to (x1 − 1) x1 (2 x1 − 1) / 6 from 0 on.
    first = (x0 + x1 - 1) * pixels // 2
    second = ((x1 - 1) * x1 * (2 * x1 - 1) - (x0 - 1) * x0 * (2 * x0 - 1)) // 6
    terms = pixels, y * pixels, first, y * y * pixels, second, y * first
    starts = runs.find_starts(len(origins))[:-1]
    return np.stack([np.add.reduceat(each, starts) for each in terms], axis=1)


def count_crossings(runs: Runs, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many pairs of neighbours cross the edge of each region (n, 3), by direction.

    Args:
        runs: the regions.
        pixels: (n,) number of pixels of each.
    """
    total = len(pixels)
    lower, upper = runs.find_touching()
    low0, low1, up0, up1 = runs.x0[lower], runs.x1[lower], runs.x0[upper], runs.x1[upper]
    region = runs.region[lower]

    def count_inside(shift: int) -> NDArray[np.int64]:
        """Count pairs inside a region: a pixel, and that above it and `shift` to the right."""
        shared = np.minimum(low1 + shift, up1) - np.maximum(low0 + shift, up0)
        return np.bincount(region, np.maximum(shared, 0), total).astype(np.int64)

    rows = 2 * np.bincount(runs.region, minlength=total)
    columns = 2 * (pixels - count_inside(0))
    diagonals = 4 * pixels - 2 * (count_inside(1) + count_inside(-1))
    return np.stack([rows, columns, diagonals], axis=1)


def find_cut(runs: Runs, predicted: NDArray[np.bool_], total: int) -> NDArray[np.bool_]:
    """Return which regions (total,) have a pixel that wasn't predicted among their 8 neighbours.

    Args:
        runs: the regions.
        predicted: (h + 2, w + 2) which pixels were predicted, with those around the window.
        total: number of regions.
    """
    found = np.zeros(total, np.bool_)
    if not predicted.all():
        missing = ~predicted
        missing = missing[:-2] | missing[1:-1] | missing[2:]
        at = np.flatnonzero(missing[:, :-2] | missing[:, 1:-1] | missing[:, 2:])
        start = runs.y * runs.shape[1] + runs.x0
        stop = start + (runs.x1 - runs.x0)
        found[runs.region[np.searchsorted(at, start) < np.searchsorted(at, stop)]] = True
    return found


def finish_sums(sums: Sums, pixel_size: tuple[float, float]) -> dict[str, NDArray[Any]]:
    """Return measurements (n,) by name, in the unit of `pixel_size` (y, x).

    Axes, eccentricity and orientation are those of the ellipse with the same second moments; the
    perimeter is Crofton's in 4 directions (Legland et al., Image Analysis & Stereology 26, 2007).
    """
    height, width = pixel_size
    pixels = sums.moments[:, 0].astype(np.int64)
    area = pixels * (height * width)
    yy, xx, xy = _central_moments(sums.moments)
    yy, xx, xy = yy * height * height, xx * width * width, xy * height * width
    half, root = (yy + xx) / 2, np.sqrt(((yy - xx) / 2) ** 2 + xy * xy)
    major, minor = half + root, np.maximum(half - root, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        eccentricity = np.where(major > 0, np.sqrt(1 - minor / major), 0.0)
    perimeter = _perimeter(sums.crossings, pixel_size)
    # math.atan2: numpy's own may differ in the last bit between processors.
    angles = map(math.atan2, (2 * xy).tolist(), (yy - xx).tolist())
    orientation = np.fromiter((angle / 2 for angle in angles), np.float64, len(pixels))
    return {
        "area": area,
        "perimeter": perimeter,
        "equivalent_diameter": np.sqrt(area * (4 / math.pi)),
        "major_axis": 4 * np.sqrt(major),
        "minor_axis": 4 * np.sqrt(minor),
        "eccentricity": eccentricity,
        "orientation": orientation,
        "circularity": area * (4 * math.pi) / (perimeter * perimeter),
    }


def _central_moments(moments: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """Return the variances of y and x and their covariance, px²."""
    pixels = moments[:, 0]
    small = moments.dtype != object and not len(moments)
    if moments.dtype != object and len(moments):
        n = int(pixels.max())
        small = n <= EXACT and int(np.abs(moments[:, 3:]).max()) <= n * LONG * LONG
    exact = moments if small else moments.astype(object)
    n, y, x, yy, xx, xy = exact.T
    square = (n * n).astype(np.float64)
    return tuple(
        (n * product - one * other).astype(np.float64) / square
        for product, one, other in ((yy, y, y), (xx, x, x), (xy, y, x))
    )


def _perimeter(crossings: NDArray[Any], pixel_size: tuple[float, float]) -> NDArray[np.float64]:
    """Return the perimeters (n,): for each direction, how often lines along it meet the edge."""
    height, width = pixel_size
    diagonal, angle = math.hypot(height, width), math.atan2(height, width)
    rows, columns, diagonals = crossings.astype(np.float64).T
    return np.asarray(
        angle * (height / 2) * rows
        + (math.pi / 2 - angle) * (width / 2) * columns
        + (math.pi / 4) * (height * width / diagonal / 2) * diagonals
    )
