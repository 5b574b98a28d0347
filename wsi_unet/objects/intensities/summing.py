"""Summing the values of pixels over objects, exactly, in pieces of a window."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, merge_boxes
from wsi_unet.objects.intensities.quantities import Quantity
from wsi_unet.objects.regions import Numbers

PIECE = 1024
"""px: pieces of this side, from multiples of it, are read only where they have objects."""

AT_ONCE = 1 << 18
"""Pixels that are summed at once: their values and sums fit into caches and 64 bits."""

LOW_BITS = 32
"""Bits of a sum of many pieces that are added up apart from the rest."""


class PixelValues(Protocol):
    """Where the values of pixels come from."""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is read of every pixel."""
        ...

    def read(
        self, box: Box, at: NDArray[np.int64], classes: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """Return the values (n, k) of n pixels, one column per quantity, each below 2^22.

        Args:
            box: px of the labels.
            at: which of its pixels, row by row.
            classes: (n,) label values of the objects that they are of.

        Raises:
            SlideError: the slide can't be read there.
            OutputError: what is stored is damaged.
        """
        ...


def sum_values(
    values: PixelValues | None,
    window: Box,
    numbers: Numbers,
    classes: NDArray[np.uint8],
) -> NDArray[Any]:
    """Return the sums (n, 2k) of k values, and then of their squares, of n regions.

    Args:
        values: the values; None: there are none, so k is 0.
        window: px of the labels.
        numbers: (h, w) numbers of the regions in the window, from 1.
        classes: (n,) their label values.

    Returns:
        int64, or Python's integers where a sum needs more.
    """
    total = len(classes)
    if values is None:
        return np.zeros((total, 0), np.int64)
    columns = 2 * len(values.quantities)
    high, low = (np.zeros((total, columns), np.int64) for _ in range(2))
    for box in _find_occupied(window, numbers):
        inside = np.ascontiguousarray(numbers[box.relative_to(window).slices()]).ravel()
        at = np.flatnonzero(inside)
        region = inside[at] - 1
        found = values.read(box, at, classes[region])
        for start in range(0, len(at), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            sums = _sum_rows(region[some], found[some], total)
            high += sums >> LOW_BITS
            low += sums & ((1 << LOW_BITS) - 1)
    if high.max(initial=0) < 1 << 62 - LOW_BITS:
        return np.asarray((high << LOW_BITS) + low)
    return np.asarray((high.astype(object) << LOW_BITS) + low.astype(object))


def _find_occupied(window: Box, numbers: Numbers) -> tuple[Box, ...]:
    """Return boxes of a window that cover its regions, and little else."""
    pieces = []
    y0, x0 = (side // PIECE * PIECE for side in (window.y0, window.x0))
    for piece in Box(y0, x0, window.y1, window.x1).tiles(PIECE):
        box = piece.intersection(window)
        if numbers[box.relative_to(window).slices()].any():
            pieces.append(box)
    return merge_boxes(pieces)


def _sum_rows(
    region: NDArray[np.int32], values: NDArray[np.int64], total: int
) -> NDArray[np.int64]:
    """Return the sums (total, 2k) of the rows of values (n, k) and their squares, by region."""
    from scipy.sparse import csc_array

    rows = len(region)
    ones, columns = np.ones(rows, np.int64), np.arange(rows + 1, dtype=np.int32)
    members = csc_array((ones, region, columns), shape=(total, rows))
    return np.asarray(members @ np.concatenate([values, values * values], axis=1))
