"""Growing interiors into the boundary around them.

A network with a class of boundaries keeps objects that touch apart: the components of its class of
interiors are the objects, less the boundary between them, which growing gives back.

Each boundary pixel belongs to its nearest interior pixel, of equally near ones to the first in
raster order. That could as well be the one of the object with the smaller identity; but identities
come from first pixels, which can lie anywhere, while the pixels within the growth of a boundary
pixel are known to every window that holds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.regions import Numbers, Regions
from wsi_unet.objects.runs import Runs
from wsi_unet.objects.splitting.distances import find_steps

MOST_VALUES = 256

AT_ONCE = 1 << 15
"""Pixels that are compared at once: they fit into a processor's cache."""


@dataclass(frozen=True)
class Growth:
    """How far the interiors of a class grow, and into what.

    Attributes:
        boundary: label value of the boundary class.
        distance: how far the centre of a boundary pixel may be from that of its nearest interior
            pixel, in the unit of the pixel size.
    """

    boundary: int
    distance: float

    def limit(self, pixel_size: tuple[float, float]) -> int:
        """Return the largest square of a distance within which they grow; see `find_steps`.

        Numbers mean what they are in decimals, so that 0.3 is three pixels of 0.1.

        Args:
            pixel_size: (y, x) size of a pixel.

        >>> Growth(2, 0.3).limit((0.1, 0.1)), Growth(2, 1.0).limit((1.0, 0.5))
        (9, 4)
        """
        step = Fraction(str(float(pixel_size[1]))) / find_steps(pixel_size)[1]
        return math.floor((Fraction(str(float(self.distance))) / step) ** 2)

    def reach(self, pixel_size: tuple[float, float]) -> int:
        """Return how far they grow at most along either axis, px."""
        return math.isqrt(self.limit(pixel_size)) // min(find_steps(pixel_size)[:2])


def grow_regions(
    regions: Regions,
    labels: NDArray[np.uint8],
    growths: Mapping[int, Growth],
    growing: NDArray[np.bool_],
    pixel_size: tuple[float, float],
) -> Regions:
    """Return regions with the boundary pixels that are theirs; their order and first pixels stay.

    A region takes the boundary pixels whose nearest interior pixel it has, within the growth of its
    class, if they adjoin: are 8-connected to it through others that it takes. Interiors of all
    classes with the same boundary compete, also those outside of any region.

    Args:
        regions: components, each whole.
        labels: (h, w) the labels of their window, which holds all within twice the reach of those
            that grow; 0 along its border.
        growths: the growth of each class that grows, by label value.
        growing: (n,) which regions grow; all are of such classes.
        pixel_size: (y, x) size of a pixel.
    """
    if not growing.any():
        return regions
    numbers = regions.numbers.copy()
    values = set(np.unique(regions.values[growing]).tolist())
    for boundary in sorted({growths[value].boundary for value in values}):
        limits = np.full(MOST_VALUES, -1, np.int64)
        for value, growth in growths.items():
            if growth.boundary == boundary:
                limits[value] = growth.limit(pixel_size)
        at = np.flatnonzero(labels == boundary)
        nearest, squares = _find_nearest((limits >= 0)[labels], at, pixel_size, int(limits.max()))
        near = squares <= limits[labels.ravel()[nearest]]  # -1, the last pixel, is of none
        owner = numbers.ravel()[nearest]
        taken = near & np.concatenate([[False], growing])[owner]
        _add_adjoining(numbers, at[taken], owner[taken])
    return Regions(Runs.find(numbers), regions.values, regions.first)


def _find_nearest(
    interior: NDArray[np.bool_], at: NDArray[np.int64], pixel_size: tuple[float, float], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the interior pixels (n,) that are nearest to some pixels, and the squared distances.

    Of equally near ones it is the first, row by row; −1 if none is within the limit. Of a column
    only the nearest pixel, of two the upper one, can be that; so columns are compared, those nearby
    first, until none can be as near as what was found.

    Args:
        interior: (h, w) whether a pixel is of an interior.
        at: (n,) the pixels; indices into the rows of `interior`, one after another.
        pixel_size: (y, x) size of a pixel.
        limit: the largest square of a distance.
    """
    height, width, _ = find_steps(pixel_size)
    columns, side = interior.shape[1], math.isqrt(limit) // width
    beside = np.pad(interior, ((0, 0), (side, side)))
    rows = _find_in_columns(beside, math.isqrt(limit) // height + 1)
    nearest, squares = np.full(len(at), -1), np.full(len(at), limit + 1)
    for start in range(0, len(at), AT_ONCE):
        y, x = np.divmod(at[start : start + AT_ONCE], columns)
        best, pixel = squares[start : start + AT_ONCE], nearest[start : start + AT_ONCE]
        left = np.arange(len(y))
        for dx in sorted(range(-side, side + 1), key=abs):
            left = left[best[left] >= (dx * width) ** 2]
            u = x[left] + dx
            v = rows[y[left], u + side].astype(np.int64)
            square, here = ((v - y[left]) * height) ** 2 + (dx * width) ** 2, v * columns + u
            before = best[left]
            nearer = (square < before) | ((square == before) & (here < pixel[left]))
            pixel[left[nearer]], best[left[nearer]] = here[nearer], square[nearer]
    return nearest, squares


def _find_in_columns(interior: NDArray[np.bool_], reach: int) -> NDArray[np.int32]:
    """Return the row (h, w) of the interior pixel that is nearest in a pixel's column.

    It is the upper one of two; where there is none, a row that is at least `reach` px away.
    """
    rows = np.arange(len(interior), dtype=np.int32)[:, None]
    far = np.int32(2 * (len(interior) + reach))
    above, below = np.where(interior, rows, -far), np.where(interior, rows, far)
    np.maximum.accumulate(above, axis=0, out=above)
    np.minimum.accumulate(below[::-1], axis=0, out=below[::-1])
    return np.where(rows - above <= below - rows, above, below)


def _add_adjoining(numbers: Numbers, at: NDArray[np.int64], owner: NDArray[np.int32]) -> None:
    """Add those of some pixels to regions that adjoin the one which may take them.

    Args:
        numbers: (h, w) numbers of the regions, changed in place; 0 along the border.
        at: (m,) the pixels; indices into the rows of `numbers`, one after another.
        owner: (m,) numbers of the regions that may take them.
    """
    columns, flat = numbers.shape[1], numbers.ravel()
    shifts = [dy * columns + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    reached = at[:0]
    for _ in range(2):  # most adjoin at once, or their neighbours do
        adjoin = _find_adjoining(flat, at, owner, shifts)
        reached = at[adjoin]
        flat[reached] = owner[adjoin]
        at, owner = at[~adjoin], owner[~adjoin]
    waiting = np.zeros_like(flat)
    waiting[at] = owner
    while len(reached):
        following = []
        for shift in shifts:
            to = reached + shift
            to = to[waiting[to] == flat[reached]]
            flat[to], waiting[to] = waiting[to], 0
            following.append(to)
        reached = np.concatenate(following)


def _find_adjoining(
    flat: NDArray[np.int32], at: NDArray[np.int64], owner: NDArray[np.int32], shifts: list[int]
) -> NDArray[np.bool_]:
    """Return which of some pixels (m,) have a neighbour of their region."""
    found = np.zeros(len(at), np.bool_)
    for start in range(0, len(at), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        for shift in shifts:
            found[some] |= flat[at[some] + shift] == owner[some]
    return found
