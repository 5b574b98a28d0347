"""Numbered regions in a window: components of equal labels, with first pixel and bounding box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int32]
"""(h, w): the number of each pixel's region, from 1; 0 for none."""

EIGHT = np.ones((3, 3), np.bool_)


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions numbered 1 … n in a window; arrays have one row per region, in order of numbers.

    Attributes:
        numbers: (h, w) numbers.
        values: label values.
        first: (n, 2) first pixels in raster order, (y, x), px of the window.
        boxes: (n, 4) bounding boxes (y0, x0, y1, x1), half open, px of the window.
    """

    numbers: Numbers
    values: NDArray[np.uint8]
    first: NDArray[np.int64]
    boxes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.values)

    def select(self, kept: NDArray[np.bool_]) -> Regions:
        """Return the regions for which `kept` (n,) is true, numbered anew in the same order."""
        if kept.all():
            return self
        lookup = np.zeros(len(kept) + 1, np.int32)
        lookup[1:][kept] = np.arange(1, np.count_nonzero(kept) + 1)
        return Regions(lookup[self.numbers], self.values[kept], self.first[kept], self.boxes[kept])


def label_components(labels: NDArray[np.uint8]) -> Regions:
    """Return the 8-connected components of equal labels (h, w); 0 is background."""
    from scipy import ndimage

    numbers, total = np.zeros(labels.shape, np.int32), 0
    for value in find_values(labels):
        inside = labels == value
        of_class, found = ndimage.label(inside, EIGHT)
        if total:
            of_class[inside] += total
            numbers += of_class
        else:
            numbers = of_class
        total += found
    return describe_regions(numbers, labels, total)


def find_values(labels: NDArray[np.uint8]) -> list[int]:
    """Return the values that occur in labels, ascending, without 0."""
    highest = int(labels.max(initial=0))
    if highest <= 1:  # much quicker than to count
        return [highest] if highest else []
    values: list[int] = np.flatnonzero(np.bincount(labels.ravel())[1:] > 0).tolist()
    return [value + 1 for value in values]


def describe_regions(numbers: Numbers, labels: NDArray[np.uint8], total: int) -> Regions:
    """Return the regions that `numbers` (h, w) has, 1 … `total`, each of a single label."""
    flat = np.flatnonzero(numbers)
    region = numbers.ravel()[flat] - 1
    columns = numbers.shape[1]
    first = np.zeros(total, np.int64)
    last = np.zeros(total, np.int64)
    first[region[::-1]] = flat[::-1]  # of several assignments to one place the last one stays
    last[region] = flat
    x = flat % columns
    x0, x1 = np.full(total, columns, np.int64), np.zeros(total, np.int64)
    np.minimum.at(x0, region, x)
    np.maximum.at(x1, region, x)
    boxes = np.stack([first // columns, x0, last // columns + 1, x1 + 1], axis=1)
    firsts = np.stack([first // columns, first % columns], axis=1)
    return Regions(numbers, labels.ravel()[first], firsts, boxes)
