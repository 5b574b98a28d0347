"""The stored objects under a picture: which of them can be told apart, and their pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.labels.pyramid import reduce_mode
from wsi_unet.logs import warn
from wsi_unet.objects.painting.stored import StoredObjects, number_by_class
from wsi_unet.objects.records import StageFiles, StageRecord
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.stage import check_current
from wsi_unet.storage.store import ByteStore

UINT64 = np.dtype(np.uint64)

SMALLEST = 4.0
"""Diameter of a mean object, px of the picture, below which outlines would leave nothing of it."""

TILE = 1024
"""Side of what is painted at once, px of level 0."""


def read_current_record(
    store: ByteStore, run: str, label: str, finished: str | None
) -> StageRecord | None:
    """Return what the objects of a label group were found by; None if they aren't all there.

    Args:
        store: the output.
        run: the run that made the labels.
        label: the label group.
        finished: when its labels were finished; None if they aren't.
    """
    try:
        return check_current(store, StageFiles(store, run, label), finished)
    except OutputError:
        return None


def are_visible(record: StageRecord, pixel: tuple[float, float], scale: float) -> bool:
    """Return whether objects differ from the areas of their classes, and can be told apart.

    Objects that are components, all of them kept, have the outlines of their classes.

    Args:
        record: what they were found by.
        pixel: (y, x) size of a pixel of the labels, in the unit of the record.
        scale: pixels of the labels per pixel of the picture.
    """
    special = {name for name, rule in record.rules.items() if rule != ClassRule()}
    areas = [each.mean_area for each in record.classes if each.name in special]
    known = [area for area in areas if area is not None]
    if not known:
        return bool(areas)
    pixels = max(known) / (pixel[0] * pixel[1])
    return math.sqrt(4 * pixels / math.pi) >= SMALLEST * scale


def open_objects_of(store: ByteStore, label: str) -> StoredObjects | None:
    """Open the objects of a label group; None, with a warning, if some are missing."""
    try:
        return StoredObjects.open(store, label)
    except OutputError as error:
        warn(f"{error}; until then, outlines are those of classes")
        return None


def read_level(objects: StoredObjects, level: int, box: Box) -> NDArray[np.uint64]:
    """Return numbers that say object and class of the pixels of a box.

    Args:
        objects: the objects.
        level: level of the pyramid; each is reduced from the one before, as labels are.
        box: px of the level, inside of it.

    Returns:
        (h, w) numbers; the lowest byte is the label value.

    Raises:
        OutputError: a part isn't what was written.
    """
    found, whole = np.empty(box.shape, np.uint64), Box.from_shape(objects.grid.shape)
    for tile in box.tiles(max(1, TILE >> level)):
        finest = Box(*(edge << level for edge in (tile.y0, tile.x0, tile.y1, tile.x1)))
        painted = objects.paint(finest.intersection(whole), number_by_class, UINT64)
        for _ in range(level):
            painted = reduce_mode(painted)
        found[tile.relative_to(box).slices()] = painted
    return found
