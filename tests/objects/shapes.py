"""Labels in memory, their objects by blocks of any size, and shapes that are hard to cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import ndimage

from wsi_unet.geometry import BlockGrid, Box
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.finding import find_objects_of_block
from wsi_unet.objects.intensities.summing import PixelValues
from wsi_unet.objects.joining import join_faces
from wsi_unet.objects.rule import ClassRule, ObjectRule
from wsi_unet.objects.search import LARGEST_BOX, Objects, Search
from wsi_unet.objects.table import TableFrame, make_table

Labels = NDArray[np.uint8]
NAMES = {1: "one", 2: "two", 3: "border", 4: "membrane"}
NO_RULES = {1: ClassRule(), 2: ClassRule()}


@dataclass(frozen=True, eq=False)
class InMemory:
    """Labels (h, w), and where they were predicted; None: everywhere."""

    array: Labels
    mask: NDArray[np.bool_] | None = None

    def labels(self, box: Box) -> Labels:
        assert Box.from_shape(self.array.shape).contains(box)
        return self.array[box.slices()]

    def predicted(self, box: Box) -> NDArray[np.bool_]:
        inside = box.intersection(Box.from_shape(self.array.shape))
        found = np.zeros(box.shape, np.bool_)
        values = True if self.mask is None else self.mask[inside.slices()]
        found[inside.relative_to(box).slices()] = values
        return found


def make_frame(
    columns: int,
    rules: dict[int, ClassRule],
    size: tuple[float, float],
    values: PixelValues | None = None,
) -> TableFrame:
    """Return the frame of labels on a slide of the same pixels."""
    return TableFrame(
        columns=columns, downsample=(1.0, 1.0), pixel_size=size, micrometres=True,
        classes={value: NAMES[value] for value in rules}, rules=rules, fingerprint="f", model="m",
        quantities=() if values is None else values.quantities,
    )  # fmt: skip


def find_by_blocks(
    labels: Labels,
    side: int,
    rules: dict[int, ClassRule] = NO_RULES,
    *,
    pixel: float | tuple[float, float] = 0.5,
    largest_box: int = LARGEST_BOX,
    margin: int = 8,
    values: PixelValues | None = None,
    predicted: NDArray[np.bool_] | None = None,
) -> pa.Table:
    """Return the table of the objects, found in blocks of `side` px, in order of identity."""
    grid = BlockGrid((labels.shape[0], labels.shape[1]), side)
    pixels = InMemory(labels, predicted)
    size = pixel if isinstance(pixel, tuple) else (pixel, pixel)
    classes = {value: NAMES[value] for value in rules}
    boundaries = ObjectRule({NAMES[v]: r for v, r in rules.items()}).find_boundaries(classes)
    search = Search(grid, rules, size, largest_box, margin, values=values, boundaries=boundaries)
    faces = {i: Faces.find(pixels.labels(grid.core(i)), grid, i) for i in grid}
    faces = {i: each.without(boundaries.values()) for i, each in faces.items()}
    owned = join_faces(grid, faces)
    blocks = [find_objects_of_block(pixels, search, i, owned.get(i, [])) for i in grid]
    frame = make_frame(labels.shape[1], rules, size, values)
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


def cells(side: int) -> Labels:
    """Return small interiors with wide boundaries between them, as a network gives."""
    random = np.random.default_rng(1)
    seeds = random.random((side, side)) < 0.01
    far = ndimage.distance_transform_edt(~seeds)
    values = ndimage.label(seeds)[0] % 2 + 1
    nearest = ndimage.distance_transform_edt(~seeds, return_distances=False, return_indices=True)
    labels: Labels = np.where(far < 3, values[tuple(nearest)], 3).astype(np.uint8)
    labels[far > 7] = 0
    return labels
