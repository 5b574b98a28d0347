"""Finding and measuring the objects of one block: those whose component begins there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.objects.faces import Component
from wsi_unet.objects.outlines import Edges, find_edges, trace_polygons
from wsi_unet.objects.regions import Regions, label_components
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.splitting import split_by_distance
from wsi_unet.objects.sums import Sums, count_windows, find_cut, sum_moments

LARGEST_BOX = 4096 * 4096
"""px: a component whose bounding box has more pixels is large: never split, summed by blocks."""

MARGIN = 256
"""px: how far components may reach out of their block to be finished in one window with it."""


class LabelPixels(Protocol):
    """Where labels come from."""

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Return the labels (h, w) of a box inside the array."""
        ...

    def predicted(self, box: Box) -> NDArray[np.bool_]:
        """Return which pixels (h, w) of a box were predicted; none beyond the array's edge."""
        ...


@dataclass(frozen=True)
class Search:
    """What is searched for, and where.

    Attributes:
        grid: the blocks of the labels.
        rules: the rule of each label value.
        pixel_size: (y, x) size of a pixel, in the unit of the rules.
        largest_box: see `LARGEST_BOX`.
        margin: see `MARGIN`.
    """

    grid: BlockGrid
    rules: Mapping[int, ClassRule]
    pixel_size: tuple[float, float]
    largest_box: int = LARGEST_BOX
    margin: int = MARGIN

    def is_large(self, box: Box) -> bool:
        """Return whether a component with this bounding box is large."""
        return box.area > self.largest_box


@dataclass(frozen=True, eq=False)
class Objects:
    """Measured objects, one row each.

    Attributes:
        first: (n, 2) first pixels (y, x), px of the labels.
        values: (n,) label values.
        boxes: (n, 4) bounding boxes (y0, x0, y1, x1), px of the labels.
        sums: their sums; moments count from the corner of the bounding box.
        large: (n,) whether the component is large.
        outlines: (n,) shapely polygons; x and y count from the corner of the bounding box, px.
        dropped: number of objects that were (too small, too large), by label value.
    """

    first: NDArray[np.int64]
    values: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    sums: Sums
    large: NDArray[np.bool_]
    outlines: NDArray[Any]
    dropped: Mapping[int, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def concatenate(cls, several: Sequence[Objects]) -> Objects:
        """Return the objects of several, in order of their first pixels."""
        first = np.concatenate([each.first for each in several])
        order = np.lexsort((first[:, 1], first[:, 0]))

        def join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
            joined: NDArray[Any] = np.concatenate(arrays)[order]
            return joined

        dropped: dict[int, tuple[int, int]] = {}
        for each in several:
            for value, (small, big) in each.dropped.items():
                before = dropped.get(value, (0, 0))
                dropped[value] = before[0] + small, before[1] + big
        return cls(
            first[order],
            join([each.values for each in several]),
            join([each.boxes for each in several]),
            Sums(
                join([each.sums.moments for each in several]),
                join([each.sums.windows for each in several]),
                join([each.sums.cut for each in several]),
            ),
            join([each.large for each in several]),
            join([each.outlines for each in several]),
            dropped,
        )


def find_objects_of_block(
    pixels: LabelPixels, search: Search, index: BlockIndex, owned: Sequence[Component]
) -> Objects:
    """Find the objects whose component begins in a block.

    Args:
        pixels: the labels.
        search: what is searched for.
        index: the block.
        owned: the components that begin in the block and touch faces that it shares.
    """
    core = search.grid.core(index)
    reach = core.grow(search.margin, search.margin)
    large = [each for each in owned if search.is_large(each.box) and len(each.blocks) > 1]
    others = [each for each in owned if each not in large]
    near = [each for each in others if reach.contains(each.box)]
    window = core
    for each in near:
        window = window.union(each.box)
    found = [_find_in_window(pixels, search, window, core, near)]
    found += [
        _find_in_window(pixels, search, each.box, None, [each])
        for each in others
        if each not in near
    ]
    found += [_sum_large(pixels, search, each) for each in large]
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
        window: px of the labels.
        core: the block, of which components that touch no shared face are taken; None: none is.
        whole: components that lie in the window and are taken too.
    """
    labels = np.pad(pixels.labels(window), 1)
    origin = np.array([window.y0 - 1, window.x0 - 1])
    regions = label_components(labels)
    taken = {each.first for each in whole}
    kept = np.array([tuple(first) in taken for first in (regions.first + origin).tolist()], bool)
    if core is not None:
        kept |= _lie_inside(regions.boxes + np.tile(origin, 2), core, search.grid)
    regions = regions.select(kept)
    sides = regions.boxes[:, 2:] - regions.boxes[:, :2]
    is_large = sides.prod(axis=1) > search.largest_box
    firsts_of_large = {tuple(first) for first in regions.first[is_large].tolist()}
    heights = np.array([search.rules[value].h or 0.0 for value in regions.values.tolist()])
    heights[is_large] = 0
    regions = split_by_distance(regions, labels, heights, search.pixel_size)
    moments = sum_moments(regions.numbers, regions.boxes[:, :2])
    keep, dropped = _apply_limits(search, regions.values, moments[:, 0])
    regions, moments = regions.select(keep), moments[keep]
    large = np.array([tuple(first) in firsts_of_large for first in regions.first.tolist()], bool)
    return Objects(
        first=regions.first + origin,
        values=regions.values,
        boxes=regions.boxes + np.tile(origin, 2),
        sums=Sums(
            moments,
            count_windows(regions.numbers, moments[:, 0]),
            find_cut(regions.numbers, pixels.predicted(window.grow(2, 2)), len(regions)),
        ),
        large=large,
        outlines=_outline(regions),
        dropped=dropped,
    )


def _lie_inside(boxes: NDArray[np.int64], core: Box, grid: BlockGrid) -> NDArray[np.bool_]:
    """Return which bounding boxes lie in a block and touch no face that it shares."""
    rows, columns = grid.shape
    y0, x0, y1, x1 = boxes.T
    inside = (y0 > core.y0) | ((y0 == 0) & (core.y0 == 0))
    inside &= (x0 > core.x0) | ((x0 == 0) & (core.x0 == 0))
    inside &= (y1 < core.y1) | ((y1 == rows) & (core.y1 == rows))
    inside &= (x1 < core.x1) | ((x1 == columns) & (core.x1 == columns))
    return np.asarray(inside)


def _apply_limits(
    search: Search, values: NDArray[np.uint8], pixels: NDArray[Any]
) -> tuple[NDArray[np.bool_], dict[int, tuple[int, int]]]:
    """Return which objects have an area within their class's limits, and how many haven't."""
    area = pixels.astype(np.float64) * (search.pixel_size[0] * search.pixel_size[1])
    kept = np.ones(len(values), np.bool_)
    dropped = {}
    for value in np.unique(values).tolist():
        rule = search.rules[value]
        small = (values == value) & (area < rule.min_area)
        big = np.zeros_like(small)
        if rule.max_area is not None:
            big = (values == value) & (area > rule.max_area)
        kept &= ~small & ~big
        dropped[value] = int(small.sum()), int(big.sum())
    return kept, dropped


def _outline(regions: Regions) -> NDArray[Any]:
    import shapely

    if not len(regions):
        return np.empty(0, object)
    outlines = trace_polygons(find_edges(regions.numbers), len(regions))
    points, which = shapely.get_coordinates(outlines, return_index=True)
    moved = points - regions.boxes[which][:, [1, 0]]
    return np.asarray(shapely.set_coordinates(outlines, moved))


def _sum_large(pixels: LabelPixels, search: Search, component: Component) -> Objects:
    """Measure a component block by block, by what adds up."""
    box = component.box
    moments, windows, cut = [0] * 6, np.zeros(16, np.int64), False
    edges: list[Edges] = []
    value = int(pixels.labels(Box(*component.first, *(c + 1 for c in component.first)))[0, 0])
    for block in component.blocks:
        core = search.grid.core(block)
        regions = label_components(pixels.labels(core))
        numbers = [number for other, number in component.members if other == block]
        mask = np.pad(np.isin(regions.numbers, numbers), 1)
        around = core.grow(1, 1)
        same = _read_padded(pixels, search.grid, around) == value
        part = sum_moments(mask[1:-1, 1:-1].astype(np.int32), np.zeros((1, 2), np.int64))[0]
        moments = _add_moments(moments, part.tolist(), core.y0 - box.y0, core.x0 - box.x0)
        windows += _count_own_windows(mask, same)
        edges.append(_find_own_edges(mask, same).shift(around.y0 - box.y0, around.x0 - box.x0))
        predicted = pixels.predicted(core.grow(1, 1))
        own = mask[1:-1, 1:-1].astype(np.int32)
        cut = cut or bool(find_cut(own, predicted, 1)[0])
    values = np.array([value], np.uint8)
    table = np.array([moments], object)
    kept, dropped = _apply_limits(search, values, table[:, 0])
    outlines = trace_polygons(Edges.concatenate(edges), 1)
    return Objects(
        first=np.array([component.first], np.int64)[kept],
        values=values[kept],
        boxes=np.array([[box.y0, box.x0, box.y1, box.x1]], np.int64)[kept],
        sums=Sums(table[kept], windows[None][kept], np.array([cut])[kept]),
        large=np.ones(1, np.bool_)[kept],
        outlines=outlines[kept],
        dropped=dropped,
    )


def _read_padded(pixels: LabelPixels, grid: BlockGrid, box: Box) -> NDArray[np.uint8]:
    """Return the labels of a box that may reach beyond the array, where there is background."""
    inside = box.intersection(Box.from_shape(grid.shape))
    labels = np.zeros(box.shape, np.uint8)
    labels[inside.relative_to(box).slices()] = pixels.labels(inside)
    return labels


def _add_moments(sums: list[int], part: list[int], dy: int, dx: int) -> list[int]:
    """Add the moments of a part that lies (dy, dx) px from the point of the sums; no overflow."""
    n, y, x, yy, xx, xy = part
    moved = (
        n, y + n * dy, x + n * dx, yy + 2 * dy * y + n * dy * dy, xx + 2 * dx * x + n * dx * dx,
        xy + dy * x + dx * y + n * dx * dy,
    )  # fmt: skip
    return [one + other for one, other in zip(sums, moved, strict=True)]


def _count_own_windows(mask: NDArray[np.bool_], same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many windows of 2 x 2 px are which (16,).

    In a window all pixels of one class are of one component. It counts where its first pixel of the
    component lies in the mask, so once over all blocks.

    Args:
        mask: (h + 2, w + 2) the component's pixels in the block.
        same: pixels of its class, around the block too.
    """
    parts = (slice(None, -1), slice(1, None))
    corners = [(rows, columns) for rows in parts for columns in parts]
    code = sum(same[corner].astype(np.int64) << bit for bit, corner in enumerate(corners))
    counts = np.zeros(16, np.int64)
    earlier = np.zeros_like(same[:-1, :-1])
    for corner in corners:
        counts += np.bincount(np.asarray(code)[mask[corner] & ~earlier], minlength=16)
        earlier |= same[corner]
    return counts


def _find_own_edges(mask: NDArray[np.bool_], same: NDArray[np.bool_]) -> Edges:
    """Return the edges between a component's pixels in a block and pixels of other classes."""
    found = []
    inner = mask[1:-1, 1:-1]
    neighbours = (same[:-2, 1:-1], same[1:-1, 2:], same[2:, 1:-1], same[1:-1, :-2])
    for direction, neighbour in enumerate(neighbours):  # above, right, below, left
        y, x = np.nonzero(inner & ~neighbour)
        dy, dx = ((0, 0), (0, 1), (1, 1), (1, 0))[direction]
        turn = np.full(len(y), direction, np.int64)
        found.append(Edges(np.zeros(len(y), np.int64), y + 1 + dy, x + 1 + dx, turn))
    return Edges.concatenate(found)
