"""Sums over the pixels of objects that add up over blocks, and the measurements that they give.

All sums are whole numbers, so their order and the blocks that they come from make no difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.regions import Numbers

EXACT = 1 << 20
"""Most pixels of an object whose products of sums surely fit into 64 bits, with `LONG`."""

AT_ONCE = 1 << 20
"""Pixels whose products are summed as floats at once: these sums are whole, and below 2^53."""

LONG = 1 << 10
"""Longest side of such an object, px."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the pixels of n objects, one row each; coordinates are from a point of each.

    Attributes:
        moments: (n, 6) number of pixels, Σy, Σx, Σyy, Σxx, Σxy.
        windows: (n, 16) how many windows of 2 x 2 px have which of their pixels in the object: the
            sum of 1 (top left), 2 (top right), 4 (bottom left) and 8 (bottom right).
        cut: (n,) whether it touches pixels that weren't predicted, or the edge of the slide.
    """

    moments: NDArray[Any]
    windows: NDArray[Any]
    cut: NDArray[np.bool_]


def sum_moments(numbers: Numbers, origins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the moments (n, 6) of the regions 1 … n of `numbers` (h, w).

    Args:
        numbers: (h, w).
        origins: (n, 2) the point (y, x) from which each region's coordinates count, px.
    """
    found = np.flatnonzero(numbers)
    moments = np.zeros((6, len(origins)), np.int64)
    for start in range(0, len(found), AT_ONCE):
        flat = found[start : start + AT_ONCE]
        region = numbers.ravel()[flat] - 1
        y, x = np.divmod(flat, numbers.shape[1])
        y, x = y - origins[region, 0], x - origins[region, 1]
        moments[0] += np.bincount(region, minlength=len(origins))
        for row, values in enumerate((y, x, y * y, x * x, x * y), start=1):
            moments[row] += np.bincount(region, values, len(origins)).astype(np.int64)
    return moments.T.copy()


def count_windows(numbers: Numbers, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many windows of 2 x 2 px are which, per region (n, 16), but for the empty one.

    Args:
        numbers: (h, w); the pixels at its border are 0.
        pixels: (n,) number of pixels of each region.
    """
    total = len(pixels)
    corners = numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, :-1], numbers[1:, 1:]
    mixed = (corners[0] != corners[1]) | (corners[0] != corners[2]) | (corners[0] != corners[3])
    at = np.flatnonzero(mixed)
    at += at // mixed.shape[1]  # a row of windows is 1 shorter than a row of pixels
    width, flat = numbers.shape[1], numbers.ravel()
    values = [flat[at + shift] for shift in (0, 1, width, width + 1)]
    counts = np.zeros(16 * (total + 1), np.int64)
    for position, own in enumerate(values):
        fresh = own > 0
        for before in values[:position]:
            fresh &= own != before  # each region of a window counts once
        chosen = own[fresh]
        code = np.zeros(len(chosen), np.int64)
        for bit, other in enumerate(values):
            code += (chosen == other[fresh]).astype(np.int64) << bit
        counts += np.bincount(chosen * 16 + code, minlength=len(counts))
    found: NDArray[np.int64] = counts.reshape(total + 1, 16)[1:]
    # Each pixel is the top left one of a window: those that aren't mixed are full.
    found[:, 15] += pixels - found[:, 1::2].sum(axis=1)
    return found


def find_cut(numbers: Numbers, predicted: NDArray[np.bool_], total: int) -> NDArray[np.bool_]:
    """Return which regions (total,) have a pixel that wasn't predicted among their 8 neighbours.

    Args:
        numbers: (h, w).
        predicted: (h + 2, w + 2) which pixels were predicted, with those around `numbers`.
        total: number of regions.
    """
    found = np.zeros(total + 1, np.bool_)
    if not predicted.all():
        rows, columns = numbers.shape
        for y in range(3):
            for x in range(3):
                found[numbers[~predicted[y : y + rows, x : x + columns]]] = True
    return found[1:]


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
    perimeter = _perimeter(sums.windows, pixel_size)
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


def _perimeter(windows: NDArray[Any], pixel_size: tuple[float, float]) -> NDArray[np.float64]:
    """Return the perimeters (n,): for each direction, how often lines along it meet the edge."""
    height, width = pixel_size
    diagonal, angle = math.hypot(height, width), math.atan2(height, width)
    codes = np.arange(16)
    bit = [(codes >> position) & 1 for position in range(4)]
    crossings = {  # per window; each horizontal and vertical pair lies in two windows
        "row": ((bit[0] != bit[1]).astype(int) + (bit[2] != bit[3])) / 2,
        "column": ((bit[0] != bit[2]).astype(int) + (bit[1] != bit[3])) / 2,
        "diagonal": (bit[0] != bit[3]).astype(int) + (bit[1] != bit[2]),
    }
    counts = {name: windows.astype(np.float64) @ each for name, each in crossings.items()}
    return np.asarray(
        angle * (height / 2) * counts["row"]
        + (math.pi / 2 - angle) * (width / 2) * counts["column"]
        + (math.pi / 4) * (height * width / diagonal / 2) * counts["diagonal"]
    )
