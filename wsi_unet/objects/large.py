"""Measuring components that are too large for one window, block by block, by what adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.objects.intensities.summing import PixelValues, sum_values
from wsi_unet.objects.joining import Component
from wsi_unet.objects.outlines.tracing import Edges, trace_polygons
from wsi_unet.objects.regions import Regions, label_components
from wsi_unet.objects.runs import Runs
from wsi_unet.objects.search import LabelPixels, Objects, Search
from wsi_unet.objects.sums import Sums, find_cut, sum_moments


class _LargeComponent:
    """A component that is measured block by block, by what adds up."""

    def __init__(self, component: Component) -> None:
        self.component = component
        self.numbers: dict[BlockIndex, list[int]] = {}  # of its parts, by block
        for block, number in component.members:
            self.numbers.setdefault(block, []).append(number)
        self._value = 0
        self._moments = [0] * 6
        self._crossings = np.zeros(3, np.int64)
        self._cut = False
        self._values: list[NDArray[Any]] = []
        self._edges: list[Edges] = []

    def add(self, block: BlockIndex, window: _BlockWindow, values: NDArray[Any]) -> None:
        """Add what of it lies in a block; `values` (2k,) are the sums of what its pixels have."""
        numbers, regions, corner = self.numbers[block], window.regions, self.component.box
        self._value = int(regions.values[numbers[0] - 1])
        mask = np.pad(np.isin(regions.numbers, numbers), 1)
        own = mask[1:-1, 1:-1].astype(np.int32)
        same = window.labels == self._value
        y, x = window.box.y0 - corner.y0, window.box.x0 - corner.x0
        runs = Runs.find(own)
        part = sum_moments(runs, np.zeros((1, 2), np.int64))[0]
        self._moments = _add_moments(self._moments, part.tolist(), y + 1, x + 1)
        self._crossings += _count_own_crossings(mask, same)
        self._edges.append(_find_own_edges(mask, same).shift(y, x))
        self._values.append(values.astype(object))
        self._cut = self._cut or bool(find_cut(runs, window.predicted, 1)[0])

    def finish(self, search: Search) -> Objects:
        """Return it as an object, once all its blocks were added; none if it is dropped."""
        box, values = self.component.box, np.array([self._value], np.uint8)
        table = np.array([self._moments], object)
        kept, dropped = search.apply_limits(values, table[:, 0])
        outlines = trace_polygons(Edges.concatenate(self._edges).sort(), 1)
        return Objects(
            first=np.array([self.component.first], np.int64)[kept],
            values=values[kept],
            boxes=np.array([[box.y0, box.x0, box.y1, box.x1]], np.int64)[kept],
            sums=Sums(
                table[kept],
                self._crossings[None][kept],
                np.array([self._cut])[kept],
                np.sum(self._values, axis=0)[None][kept],
            ),
            large=np.ones(1, np.bool_)[kept],
            outlines=outlines.take(np.flatnonzero(kept)),
            dropped=dropped,
        )


@dataclass(frozen=True, eq=False)
class _BlockWindow:
    """A block and the pixels around it.

    Attributes:
        box: block and pixels around it, px of the labels; it may reach beyond the array.
        labels: labels in the box, 0 beyond the array.
        predicted: which pixels of the box were predicted.
        regions: components of the block, numbered as for its faces.
    """

    box: Box
    labels: NDArray[np.uint8]
    predicted: NDArray[np.bool_]
    regions: Regions

    @classmethod
    def read(cls, pixels: LabelPixels, grid: BlockGrid, block: BlockIndex) -> _BlockWindow:
        box = grid.core(block).grow(1, 1)
        labels = _read_padded(pixels, grid, box)
        regions = label_components(np.ascontiguousarray(labels[1:-1, 1:-1]))
        return cls(box, labels, pixels.predicted(box), regions)

    def sum_values(
        self, values: PixelValues | None, groups: Sequence[Sequence[int]]
    ) -> NDArray[Any]:
        """Return the sums (n, 2k) of what the pixels of n groups of regions have."""
        numbers, classes = self.regions.numbers, [self.regions.values[g[0] - 1] for g in groups]
        if values is not None:
            lookup = np.zeros(len(self.regions) + 1, np.int32)
            for number, group in enumerate(groups, start=1):
                lookup[list(group)] = number
            numbers = lookup[numbers]
        return sum_values(values, self.box.grow(-1, -1), numbers, np.array(classes, np.uint8))


def sum_large(
    pixels: LabelPixels, search: Search, components: Sequence[Component]
) -> list[Objects]:
    """Measure large components; a block is read once for all of them."""
    large = [_LargeComponent(each) for each in components]
    for block in sorted({block for each in large for block in each.numbers}):
        window = _BlockWindow.read(pixels, search.grid, block)
        here = [each for each in large if block in each.numbers]
        values = window.sum_values(search.values, [each.numbers[block] for each in here])
        for each, own in zip(here, values, strict=True):
            each.add(block, window, own)
    return [each.finish(search) for each in large]


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


def _count_own_crossings(mask: NDArray[np.bool_], same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many pairs of neighbours cross the component's edge, by direction (3,).

    Neighbours of one class are of one component. A pair counts in the block that has its pixel of
    the component, so once over all blocks.

    Args:
        mask: (h + 2, w + 2) the component's pixels in the block.
        same: pixels of its class, around the block too.
    """
    rows, columns = mask.shape
    inner, outside = mask[1:-1, 1:-1], ~same
    counts = np.zeros(3, np.int64)
    for y in (0, 1, 2):
        for x in (0, 1, 2):
            if (y, x) != (1, 1):
                direction = 0 if y == 1 else 1 if x == 1 else 2
                shifted = outside[y : y + rows - 2, x : x + columns - 2]
                counts[direction] += np.count_nonzero(inner & shifted)
    return counts


def _find_own_edges(mask: NDArray[np.bool_], same: NDArray[np.bool_]) -> Edges:
    """Return the edges between a component's pixels in a block and pixels of other classes."""
    found = []
    inner = mask[1:-1, 1:-1]
    for down, neighbour in enumerate((same[1:-1, :-2], same[1:-1, 2:])):
        y, x = np.nonzero(inner & ~neighbour)
        right = np.full(len(y), down == 1)
        found.append(Edges(np.zeros(len(y), np.int64), y + 1, x + 1 + down, right))
    return Edges.concatenate(found)
