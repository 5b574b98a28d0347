"""Finding and measuring the objects of one block: those whose component begins there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.objects.growing import grow_regions
from wsi_unet.objects.intensities.summing import sum_values
from wsi_unet.objects.joining import Component
from wsi_unet.objects.large import sum_large
from wsi_unet.objects.outlines.polygons import NO_POLYGONS, Polygons
from wsi_unet.objects.outlines.tracing import Edges, trace_polygons
from wsi_unet.objects.regions import Regions, label_components
from wsi_unet.objects.search import LabelPixels, Objects, Search
from wsi_unet.objects.splitting.by_distance import split_by_distance
from wsi_unet.objects.sums import Sums, count_crossings, find_cut, sum_moments


def find_objects_of_block(
    pixels: LabelPixels, search: Search, index: BlockIndex, owned: Sequence[Component]
) -> Objects:
    """Find the objects whose component begins in a block.

    Args:
        pixels: the labels.
        search: what is searched for.
        index: the block.
        owned: the components that begin in the block and touch faces that it shares, those of
            boundary classes left out.
    """
    core = search.grid.core(index)
    reach = core.grow(search.margin, search.margin)
    large: list[Component] = []
    near: list[Component] = []
    far: list[Component] = []
    for each in owned:
        if search.is_large(each.box) and len(each.blocks) > 1:
            large.append(each)
        else:
            (near if reach.contains(each.box) else far).append(each)
    window = core
    for each in near:
        window = window.union(each.box)
    found = [_find_in_window(pixels, search, window, core, near)]
    found += [_find_in_window(pixels, search, each.box, None, [each]) for each in far]
    found += sum_large(pixels, search, large)
    return Objects.concatenate(found)


def _find_in_window(
    pixels: LabelPixels,
    search: Search,
    window: Box,
    core: Box | None,
    whole: Sequence[Component],
) -> Objects:
    """Find objects in a window that holds their components.

    Args:
        pixels: the labels.
        search: what is searched for.
        window: px of the labels; what is read has the halo around it.
        core: the block, of which components that touch no shared face are taken; None: none is.
        whole: components that lie in the window and are taken too.
    """
    window = search.add_halo(window)
    labels = np.pad(pixels.labels(window), 1)
    origin = np.array([window.y0 - 1, window.x0 - 1])
    regions = label_components(_clear_values(labels, search.boundaries.values()))
    taken = {each.first for each in whole}
    kept = np.array([tuple(first) in taken for first in (regions.first + origin).tolist()], bool)
    if core is not None:
        kept |= _lie_inside(regions.boxes + np.tile(origin, 2), core, search.grid)
    regions, large = _split_and_grow(regions.select(kept), labels, search)
    moments = sum_moments(regions.runs, regions.boxes[:, :2])
    keep, dropped = search.apply_limits(regions.values, moments[:, 0])
    regions, moments, large = regions.select(keep), moments[keep], large[keep]
    return Objects(
        first=regions.first + origin,
        values=regions.values,
        boxes=regions.boxes + np.tile(origin, 2),
        sums=Sums(
            moments,
            count_crossings(regions.runs, moments[:, 0]),
            find_cut(regions.runs, pixels.predicted(window.grow(2, 2)), len(regions)),
            _sum_values(search, window, regions),
        ),
        large=large,
        outlines=_outline(regions),
        dropped=dropped,
    )


def _sum_values(search: Search, window: Box, regions: Regions) -> NDArray[Any]:
    """Return the sums (n, 2k) of what the pixels of regions have; they have a pixel around them."""
    if search.values is None:  # then nobody needs the numbers, which are drawn when asked for
        return np.zeros((len(regions), 0), np.int64)
    return sum_values(search.values, window, regions.numbers[1:-1, 1:-1], regions.values)


def _split_and_grow(
    components: Regions, labels: NDArray[np.uint8], search: Search
) -> tuple[Regions, NDArray[np.bool_]]:
    """Return the objects that components give, and which (n,) are large components.

    Args:
        components: components, each whole.
        labels: (h, w) the labels of their window.
        search: what is searched for.
    """
    sides = components.boxes[:, 2:] - components.boxes[:, :2]
    is_large = sides.prod(axis=1) > search.largest_box
    firsts_of_large = {tuple(first) for first in components.first[is_large].tolist()}
    heights = np.array([search.rules[value].h or 0.0 for value in components.values.tolist()])
    heights[is_large] = 0
    regions = split_by_distance(components, labels, heights, search.pixel_size)
    large = np.array([tuple(first) in firsts_of_large for first in regions.first.tolist()], bool)
    growing = np.isin(regions.values, list(search.boundaries)) & ~large
    return grow_regions(regions, labels, search.growths, growing, search.pixel_size), large


def _clear_values(labels: NDArray[np.uint8], values: Collection[int]) -> NDArray[np.uint8]:
    """Return labels (h, w) with 0 in place of some values."""
    if not values:
        return labels
    lookup = np.arange(256, dtype=np.uint8)
    lookup[list(values)] = 0
    return lookup[labels]


def _lie_inside(boxes: NDArray[np.int64], core: Box, grid: BlockGrid) -> NDArray[np.bool_]:
    """Return which bounding boxes lie in a block and touch no face that it shares."""
    rows, columns = grid.shape
    y0, x0, y1, x1 = boxes.T
    inside = (y0 > core.y0) | ((y0 == 0) & (core.y0 == 0))
    inside &= (x0 > core.x0) | ((x0 == 0) & (core.x0 == 0))
    inside &= (y1 < core.y1) | ((y1 == rows) & (core.y1 == rows))
    inside &= (x1 < core.x1) | ((x1 == columns) & (core.x1 == columns))
    return np.asarray(inside)


def _outline(regions: Regions) -> Polygons:
    """Return the outlines of regions, from the corners of their bounding boxes."""
    if not len(regions):
        return NO_POLYGONS
    polygons = trace_polygons(Edges.of_runs(regions.runs), len(regions))
    return polygons.move(-regions.boxes[:, [1, 0]])
