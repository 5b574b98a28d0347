"""What objects are searched for and where, and what is found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.objects.growing import Growth
from wsi_unet.objects.intensities.summing import PixelValues
from wsi_unet.objects.outlines.polygons import Polygons
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.sums import Sums

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
        values: what pixels have that is summed over objects; None: nothing.
        boundaries: the label value of the boundary class of each that grows into one.
    """

    grid: BlockGrid
    rules: Mapping[int, ClassRule]
    pixel_size: tuple[float, float]
    largest_box: int = LARGEST_BOX
    margin: int = MARGIN
    values: PixelValues | None = None
    boundaries: Mapping[int, int] = field(default_factory=dict)

    @property
    def growths(self) -> dict[int, Growth]:
        """The growth of each class that grows, by label value."""
        return {
            value: Growth(boundary, self.rules[value].growth or 0.0)
            for value, boundary in self.boundaries.items()
        }

    @property
    def halo(self) -> int:
        """How far around components labels decide which pixels their objects have, px.

        An object grows by its reach at most, and interiors within the reach of its pixels compete.
        """
        reaches = [growth.reach(self.pixel_size) for growth in self.growths.values()]
        return 2 * max(reaches, default=0)

    def add_halo(self, box: Box) -> Box:
        """Return a box with the halo around it, as far as there are labels."""
        return box.grow(self.halo, self.halo).intersection(Box.from_shape(self.grid.shape))

    def find_neighbours(self, index: BlockIndex, boxes: Collection[Box]) -> list[BlockIndex]:
        """Return all blocks whose labels decide the objects of a block; none if no class grows.

        Args:
            index: the block.
            boxes: the bounding boxes of the components that begin in it and touch faces which it
                shares, px of the labels.
        """
        if not self.halo:
            return []
        boxes = [self.grid.core(index), *(box for box in boxes if not self.is_large(box))]
        return sorted({near for box in boxes for near in self.grid.touching(self.add_halo(box))})

    def is_large(self, box: Box) -> bool:
        """Return whether a component with this bounding box is large."""
        return box.area > self.largest_box

    def apply_limits(
        self, values: NDArray[np.uint8], pixels: NDArray[Any]
    ) -> tuple[NDArray[np.bool_], dict[int, tuple[int, int]]]:
        """Return which objects have an area within their class's limits, and how many haven't."""
        area = pixels.astype(np.float64) * (self.pixel_size[0] * self.pixel_size[1])
        kept = np.ones(len(values), np.bool_)
        dropped = {}
        for value in np.unique(values).tolist():
            rule = self.rules[value]
            small = (values == value) & (area < rule.min_area)
            big = np.zeros_like(small)
            if rule.max_area is not None:
                big = (values == value) & (area > rule.max_area)
            kept &= ~small & ~big
            dropped[value] = int(small.sum()), int(big.sum())
        return kept, dropped


@dataclass(frozen=True, eq=False)
class Objects:
    """Measured objects, one row each.

    Attributes:
        first: (n, 2) first pixels (y, x) of the objects, or of their interiors if they have grown,
            px of the labels.
        values: (n,) label values.
        boxes: (n, 4) bounding boxes (y0, x0, y1, x1), px of the labels.
        sums: their sums; moments count from the corner of the bounding box.
        large: (n,) whether the component is large.
        outlines: their outlines; x and y count from the corner of the bounding box, px.
        dropped: number of objects that were (too small, too large), by label value.
    """

    first: NDArray[np.int64]
    values: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    sums: Sums
    large: NDArray[np.bool_]
    outlines: Polygons
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
                join([each.sums.crossings for each in several]),
                join([each.sums.cut for each in several]),
                join([each.sums.values for each in several]),
            ),
            join([each.large for each in several]),
            Polygons.concatenate([each.outlines for each in several]).take(order),
            dropped,
        )
