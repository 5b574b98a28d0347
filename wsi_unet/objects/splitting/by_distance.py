"""Splitting components by the distance to their edge, each as if it were alone.

The distance transform of a class equals that of each of its components alone: if the nearest pixel
outside a component belonged to another one of its class, that pixel's neighbour on the way back
would be nearer, and 8-connected to it. So components may be laid out anew, side by side, and split
together: only the order of the pixels inside each of them must stay.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wsi_unet.objects.regions import Regions, describe_regions
from wsi_unet.objects.runs import Runs
from wsi_unet.objects.splitting.distances import find_steps, measure_squares
from wsi_unet.objects.splitting.maxima import Seeds, Squares, find_seeds
from wsi_unet.objects.splitting.sheets import Sheet, lay_out


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
    steps = find_steps(pixel_size)
    whole, total, found = np.ones(len(regions), np.bool_), len(regions), []
    for sheet in lay_out(regions, chosen):
        squares, seeds = _find_seeds(sheet, heights[sheet.members] / steps[2], steps[:2])
        if len(seeds.members):
            runs = _flood(regions, sheet, squares, seeds)
            found.append(replace(runs, region=runs.region + total))
            total += len(seeds.members)
            whole[sheet.members[seeds.members]] = False
    own = whole[regions.runs.region]
    unsplit = regions.runs.select(own, regions.runs.region[own])
    return describe_regions(Runs.concatenate([unsplit, *found]).number_anew(), labels)


def _find_seeds(
    sheet: Sheet, heights: NDArray[np.float64], steps: tuple[int, int]
) -> tuple[Squares, Seeds]:
    """Return the squares of the distances on a sheet, and its seeds; see `find_seeds`."""
    pixels = sheet.runs.find_pixels()
    squares = measure_squares(sheet.runs, pixels, steps)
    member = np.repeat(sheet.runs.region, sheet.runs.x1 - sheet.runs.x0)
    return squares, find_seeds(squares, pixels, member, heights)


def _flood(regions: Regions, sheet: Sheet, squares: Squares, seeds: Seeds) -> Runs:
    """Return the parts (in the window of the regions) that the seeds of a sheet give.

    Meyer's flooding: pixels in order of falling distance (behind a saddle, of the saddle's), of
    equal ones that first which was reached first; the seeds' pixels come before all others, in
    raster order. They get levels of their own for that: scikit-image pops equal ones in an order
    that depends on all the image.
    """
    from skimage.segmentation import watershed

    split = np.unique(seeds.members)
    numbers = np.zeros(squares.shape, np.int32)
    numbers.ravel()[seeds.pixels] = seeds.numbers
    smaller = Sheet.lay_out(regions, sheet.members[split])
    markers, own = sheet.move_images([numbers, squares], smaller, split)
    mask, marked, relief = own > 0, np.flatnonzero(markers), -own.astype(np.float64)
    relief.ravel()[marked] = np.arange(len(marked)) - len(marked) - own.max() - 1
    parts = watershed(relief, markers, connectivity=2, mask=mask)  # type: ignore[no-untyped-call]
    member = np.searchsorted(split, seeds.members)
    return smaller.bring_back(Runs.find(parts), member, regions.runs.shape)
