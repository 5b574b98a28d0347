"""Splitting components by the distance to their edge, each as if it were alone.

The distance transform of a class equals that of each of its components alone: if the nearest pixel
outside a component belonged to another one of its class, that pixel's neighbour on the way back
would be nearer, and 8-connected to it. So components may be laid out anew, side by side, and split
together: only the order of the pixels inside each of them must stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.regions import EIGHT, Numbers, Regions, describe_regions
from wsi_unet.objects.runs import Runs

Slices = tuple[slice, slice]

FINEST_RATIO = 1000
"""Pixels that are less than 1/1000 longer than wide count as square; see `find_steps`."""

SHEET = 1024
"""Width of a sheet of components that are split together, px, if none is wider."""

SHEET_PIXELS = 1 << 21
"""About how many pixels a sheet has; its distances take some 50 bytes each."""


def find_steps(pixel_size: tuple[float, float]) -> tuple[int, int, float]:
    """Return whole numbers in the ratio of a pixel's sides (y, x), and the length of 1 of them.

    Squared distances are then whole numbers, so two equal ones are equal in floating point too.

    >>> find_steps((0.5, 0.5)), find_steps((0.5, 0.25))
    ((1, 1, 0.5), (2, 1, 0.25))
    """
    ratio = Fraction(pixel_size[0] / pixel_size[1]).limit_denominator(FINEST_RATIO)
    ratio = max(ratio, Fraction(1, FINEST_RATIO))
    return ratio.numerator, ratio.denominator, pixel_size[1] / ratio.denominator


def split_by_distance(
    regions: Regions,
    labels: NDArray[np.uint8],
    heights: NDArray[np.float64],
    pixel_size: tuple[float, float],
) -> Regions:
    """Split components by a watershed on the distance to their edge.

    Args:
        regions: components, each whole.
        labels: (h, w) the labels that they are components of.
        heights: (n,) height by which a maximum of the distance must rise above its saddles, in the
            unit of `pixel_size`; 0 for components that aren't split.
        pixel_size: (y, x) size of a pixel.

    Returns:
        The parts, numbered in an order that depends on the window.
    """
    chosen = np.flatnonzero(heights)
    if not len(chosen):
        return regions
    numbers, total = regions.numbers.copy(), len(regions)
    for sheet in _lay_out(regions, chosen):
        parts, found = _split_sheet(sheet.numbers, heights[sheet.regions], find_steps(pixel_size))
        parts[parts > 0] += total
        sheet.write_back(numbers, parts)
        total += found
    kept = np.flatnonzero(np.bincount(numbers.ravel(), minlength=total + 1)[1:]) + 1
    lookup = np.zeros(total + 1, np.int32)
    lookup[kept] = np.arange(1, len(kept) + 1)
    return describe_regions(Runs.find(lookup[numbers]), labels)


class _Sheet:
    """Components side by side with background between them, numbered 1 … n."""

    def __init__(self, source: Regions, regions: NDArray[np.int64], width: int) -> None:
        """Lay out regions (indices from 0) in rows of at most `width` px, or one region each."""
        self.regions = regions
        self._source = source
        self._places: list[tuple[int, int]] = []
        y, x, tallest, right = 1, 1, 0, 0
        sides = source.boxes[regions, 2:] - source.boxes[regions, :2]
        for rows, columns in sides.tolist():
            if x > 1 and x + columns + 1 > width:
                y, x, tallest = y + tallest + 1, 1, 0
            self._places.append((y, x))
            x, tallest = x + columns + 1, max(tallest, rows)
            right = max(right, x)
        self.numbers: Numbers = np.zeros((y + tallest + 1, right), np.int32)
        for number, (own, inside, place) in enumerate(self._slices(), start=1):
            self.numbers[place][source.numbers[inside] == own] = number

    def write_back(self, numbers: Numbers, parts: Numbers) -> None:
        """Replace the regions' pixels in `numbers` by `parts` (of the sheet)."""
        for number, (_, inside, place) in enumerate(self._slices(), start=1):
            mine = self.numbers[place] == number
            numbers[inside][mine] = parts[place][mine]

    def _slices(self) -> Iterator[tuple[int, Slices, Slices]]:
        """Yield each region's number, and where it lies in its window and on the sheet."""
        boxes = self._source.boxes[self.regions].tolist()
        own_numbers = (self.regions + 1).tolist()
        for own, (y0, x0, y1, x1), (y, x) in zip(own_numbers, boxes, self._places, strict=True):
            place = slice(y, y + y1 - y0), slice(x, x + x1 - x0)
            yield own, (slice(y0, y1), slice(x0, x1)), place


def _lay_out(regions: Regions, chosen: NDArray[np.int64]) -> Iterator[_Sheet]:
    """Yield sheets that hold the chosen regions (indices from 0), similar heights together."""
    sides = regions.boxes[chosen, 2:] - regions.boxes[chosen, :2] + 1
    order = np.argsort(sides[:, 0], kind="stable")
    full = (np.cumsum(sides[order].prod(axis=1)) - 1) // SHEET_PIXELS
    for several in np.split(chosen[order], np.flatnonzero(np.diff(full)) + 1):
        yield _Sheet(regions, several, SHEET)


def _split_sheet(
    numbers: Numbers, heights: NDArray[np.float64], steps: tuple[int, int, float]
) -> tuple[Numbers, int]:
    """Return the numbers of the parts, and how many there are.

    Seeds are the regional maxima of the reconstruction of (distance − h) under the distance: the
    h-maxima of Soille, Morphological Image Analysis (2003), 6.3.4. Then Meyer's flooding: pixels in
    order of falling distance (behind a saddle, of the saddle's), of equal ones that first which was
    reached first; the seeds' pixels come before all others, in raster order. They get levels of
    their own for that: scikit-image pops equal ones in an order that depends on all the image.
    """
    from scipy import ndimage
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    inside = numbers > 0
    distance = ndimage.distance_transform_edt(inside, sampling=steps[:2])
    lowered = distance - np.concatenate([[heights.max()], heights])[numbers] / steps[2]
    rebuilt = reconstruction(lowered, distance, footprint=EIGHT)  # type: ignore[no-untyped-call]
    highest = local_maxima(rebuilt, connectivity=2)  # type: ignore[no-untyped-call]
    seeds, found = ndimage.label(highest & inside, EIGHT)
    owner = np.zeros(found + 1, np.int64)
    owner[seeds.ravel()] = numbers.ravel()
    several = np.bincount(owner[1:], minlength=len(heights) + 1) > 1
    mask = several[numbers]
    seeds *= mask
    relief = -distance
    marked = np.flatnonzero(seeds)
    relief.ravel()[marked] = np.arange(len(marked)) - len(marked) - distance.max() - 1
    flooded = watershed(relief, seeds, connectivity=2, mask=mask)  # type: ignore[no-untyped-call]
    parts = flooded.astype(np.int32)
    whole = inside & ~mask
    parts[whole] = numbers[whole] + found
    return parts, found + len(heights)
