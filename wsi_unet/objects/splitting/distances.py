"""Squares of the distances from the outside of regions."""

from __future__ import annotations

from fractions import Fraction
from itertools import count

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.runs import Runs

FINEST_RATIO = 1000
"""Pixels that are less than 1/1000 longer than wide count as square; see `find_steps`."""

MOST_ROWS = 64
"""Rows around each that are looked at one by one; where there may be more, SciPy is quicker."""


def find_steps(pixel_size: tuple[float, float]) -> tuple[int, int, float]:
    """Return whole numbers in the ratio of a pixel's sides (y, x), and the length of 1 of them.

    Squared distances are then whole numbers, so two equal ones are equal in floating point too.

    >>> find_steps((0.5, 0.5)), find_steps((0.5, 0.25))
    ((1, 1, 0.5), (2, 1, 0.25))
    """
    ratio = Fraction(pixel_size[0] / pixel_size[1]).limit_denominator(FINEST_RATIO)
    ratio = max(ratio, Fraction(1, FINEST_RATIO))
    return ratio.numerator, ratio.denominator, pixel_size[1] / ratio.denominator


def measure_squares(
    runs: Runs, pixels: NDArray[np.int64], steps: tuple[int, int]
) -> NDArray[np.signedinteger]:
    """Return the squares (h, w) of the distances of pixels from the nearest one outside; 0 there.

    Distances in rows come first, and then, of each column, the nearest by both
    (Saito and Toriwaki, Pattern Recognition 27, 1994).

    Args:
        runs: regions that don't touch; the border of their window is empty.
        pixels: their pixels, see `Runs.find_pixels`.
        steps: (y, x) the sides of a pixel, in whole numbers.
    """
    lengths, start = runs.x1 - runs.x0, runs.y * runs.shape[1] + runs.x0
    to_left = pixels - np.repeat(start - 1, lengths)
    to_right = np.repeat(start + lengths, lengths) - pixels
    in_row = np.minimum(to_left, to_right) * steps[1]
    farthest = int(in_row.max(initial=0))
    squares = np.zeros(runs.shape, np.int32 if farthest < 1 << 15 else np.int64)
    squares.ravel()[pixels] = in_row * in_row
    if farthest > MOST_ROWS * steps[0]:
        return _measure_large(squares > 0, steps)
    rows = squares.copy()
    for distance in count(1):
        square = (distance * steps[0]) ** 2
        if square >= squares.max(initial=0):
            return squares
        below, above = slice(distance, None), slice(None, -distance)
        np.minimum(squares[below], rows[above] + square, out=squares[below])
        np.minimum(squares[above], rows[below] + square, out=squares[above])
    raise AssertionError


def _measure_large(inside: NDArray[np.bool_], steps: tuple[int, int]) -> NDArray[np.int64]:
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(inside, sampling=steps)
    return np.asarray(np.rint(distance * distance), np.int64)
