"""Labels in memory, their objects by blocks of any size, and shapes that are hard to cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, Box
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.finding import find_objects_of_block
from wsi_unet.objects.joining import join_faces
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.search import LARGEST_BOX, Objects, Search
from wsi_unet.objects.table import TableFrame, make_table

Labels = NDArray[np.uint8]
NO_RULES = {1: ClassRule(), 2: ClassRule()}


@dataclass(frozen=True, eq=False)
class InMemory:
    """Labels (h, w), all predicted."""

    array: Labels

    def labels(self, box: Box) -> Labels:
        assert Box.from_shape(self.array.shape).contains(box)
        return self.array[box.slices()]

    def predicted(self, box: Box) -> NDArray[np.bool_]:
        inside = box.intersection(Box.from_shape(self.array.shape))
        found = np.zeros(box.shape, np.bool_)
        found[inside.relative_to(box).slices()] = True
        return found


def find_by_blocks(
    labels: Labels,
    side: int,
    rules: dict[int, ClassRule] = NO_RULES,
    *,
    pixel: float = 0.5,
    largest_box: int = LARGEST_BOX,
    margin: int = 8,
) -> pa.Table:
    """Return the table of the objects, found in blocks of `side` px, in order of identity."""
    grid = BlockGrid((labels.shape[0], labels.shape[1]), side)
    pixels = InMemory(labels)
    search = Search(grid, rules, (pixel, pixel), largest_box, margin)
    faces = {i: Faces.find(pixels.labels(grid.core(i)), grid, i) for i in grid}
    owned = join_faces(grid, faces)
    blocks = [find_objects_of_block(pixels, search, i, owned.get(i, [])) for i in grid]
    frame = TableFrame(
        columns=labels.shape[1], downsample=(1.0, 1.0), pixel_size=(pixel, pixel), micrometres=True,
        classes={1: "one", 2: "two"}, rules=rules, fingerprint="f", model="m",
    )  # fmt: skip
    return make_table(Objects.concatenate(blocks), frame)


def spiral(side: int) -> Labels:
    """Return an arm of 2 px that winds inwards, with gaps of 1 px."""
    labels = np.zeros((side, side), np.uint8)
    y0, x0, y1, x1 = 0, 0, side, side
    while y1 - y0 > 3 and x1 - x0 > 3:
        labels[y0 : y0 + 2, x0:x1] = 1
        labels[y0:y1, x1 - 2 : x1] = 1
        labels[y1 - 2 : y1, x0 + 3 : x1] = 1
        labels[y0 + 3 : y1, x0 + 3 : x0 + 5] = 1
        y0, x0, y1, x1 = y0 + 3, x0 + 3, y1 - 3, x1 - 3
    return labels


def comb(side: int) -> Labels:
    """Return teeth of 1 px, every other joined to a bar above and the rest to one below."""
    labels = np.zeros((side, side), np.uint8)
    labels[0] = labels[-1] = 1
    labels[:-2, ::4] = 1
    labels[2:, 2::4] = 2
    labels[-1] = 2
    return labels


def rings(side: int) -> Labels:
    """Return squares inside one another, each with a hole; their classes alternate."""
    labels = np.zeros((side, side), np.uint8)
    for number, edge in enumerate(range(0, side // 2 - 1, 3)):
        labels[edge : side - edge, edge : side - edge] = 1 + number % 2
        labels[edge + 2 : side - edge - 2, edge + 2 : side - edge - 2] = 0
    return labels


def diagonals(side: int) -> Labels:
    """Return chains of pixels that touch at corners only, in both directions, crossing."""
    labels = np.zeros((side, side), np.uint8)
    at = np.arange(side)
    labels[at, at] = labels[at, side - 1 - at] = 1
    labels[at[7:], at[:-7]] = 2
    return labels


def corners(side: int) -> Labels:
    """Return single pixels at the corners of the image and of blocks, and bars along edges."""
    labels = np.zeros((side, side), np.uint8)
    labels[::31, ::31] = 1
    labels[0, 3:20] = labels[-1, 3:20] = labels[3:20, 0] = labels[3:20, -1] = 2
    return labels


def full(side: int) -> Labels:
    """Return one object that fills all."""
    return np.ones((side, side), np.uint8)


def empty(side: int) -> Labels:
    """Return background."""
    return np.zeros((side, side), np.uint8)


def touching_discs(side: int, seed: int = 0) -> Labels:
    """Return discs that overlap, of two classes."""
    random, labels = np.random.default_rng(seed), np.zeros((side, side), np.uint8)
    y, x = np.mgrid[:side, :side]
    for _ in range(side * side // 150):
        (v, u), radius = random.integers(0, side, 2), random.integers(2, 9)
        labels[(y - v) ** 2 + (x - u) ** 2 <= radius**2] = random.integers(1, 3)
    return labels
