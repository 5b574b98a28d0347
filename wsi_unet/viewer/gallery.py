"""The page of a folder: its results, how far each is, and what was found in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.cohorts.status import OutputStatus
from wsi_unet.errors import OutputError, WsiUnetError
from wsi_unet.labels.contents import open_output
from wsi_unet.locations import Location
from wsi_unet.objects.records import StageFiles
from wsi_unet.objects.stage import check_current
from wsi_unet.viewer.groups import list_groups
from wsi_unet.viewer.library import Library
from wsi_unet.viewer.painting import MARGIN, paint_classes, paint_looks
from wsi_unet.viewer.pictures import PAPER, render_picture
from wsi_unet.viewer.tile_files import encode_jpeg
from wsi_unet.viewer.tile_grid import TILE
from wsi_unet.viewer.viewed import ViewedSlide

CLASSES = 0.6
"""Opacity of classes in a thumbnail."""


def describe_gallery(library: Library) -> dict[str, Any]:
    """Return what the page of a folder shows, as JSON-able values.

    Raises:
        OutputError: the folder can't be read.
    """
    assert library.folder is not None
    numbers = {str(entry.place): number for number, entry in enumerate(library.entries)}
    return {
        "name": library.folder.name,
        "slides": [_describe(status, numbers[status.output]) for status in library.read_statuses()],
    }


def _describe(status: OutputStatus, number: int) -> dict[str, Any]:
    place, error = Location.parse(status.output), status.error
    classes: list[dict[str, Any]] = []
    try:
        classes = [*_list_classes(place)]
    except WsiUnetError as damage:
        error = error or str(damage)
    return {
        "number": number,
        "name": place.name,
        "slide": status.slide,
        "state": status.state,
        "done": None if status.blocks is None else status.blocks.done,
        "total": None if status.blocks is None else status.blocks.total,
        "failures": status.failures,
        "error": error,
        "classes": classes,
    }


def _list_classes(place: Location) -> Iterator[dict[str, Any]]:
    """Yield the classes of a result, with their areas and the numbers of their objects."""
    store = open_output(place)
    for group in list_groups(store):
        files = StageFiles(store, group.run, group.name)
        try:
            record = check_current(store, files, group.finished)
            objects = {each.value: each.objects for each in record.classes}
        except OutputError:
            objects = {}
        for value, name in group.classes.items():
            pixels = group.pixels.get(value)
            yield {
                "name": name,
                "colour": "#" + bytes(group.colours.get(value, (128, 128, 128))).hex(),
                "mm2": None if pixels is None else group.frame.area_mm2(pixels),
                "objects": objects.get(value),
            }


def make_thumbnail(viewed: ViewedSlide) -> bytes:
    """Return the whole slide with its classes as a JPEG file, of a tile's size at most.

    Where the model didn't look it is hatched.

    Raises:
        WsiUnetError: something can't be read.
    """
    place = viewed.grid.place(viewed.grid.zooms - 1, 0, 0)
    assert place is not None
    picture = render_picture(viewed.source.levels, place)
    blended = np.full((TILE, TILE, 3), PAPER, np.float32)
    if picture is not None:
        blended[:] = picture
    for group in viewed.groups:
        values = group.labels.read_tile(place, viewed.run_of(group).states, MARGIN)
        _blend(blended, paint_classes(values, group.colours, [*group.classes], "fill"), CLASSES)
    for run in viewed.runs:
        if not run.states.looked_everywhere:
            looks = run.states.read_tile(place, run.groups[0].labels.downsample, MARGIN)
            _blend(blended, paint_looks(looks), 1.0)
    rows, columns = place.inside
    return encode_jpeg(np.ascontiguousarray(blended[:rows, :columns].astype(np.uint8)))


def _blend(picture: NDArray[np.float32], painted: NDArray[np.uint8], opacity: float) -> None:
    """Blend RGBA over RGB (h, w, 3), in place."""
    alpha = painted[..., 3:].astype(np.float32) * np.float32(opacity / 255)
    picture += (painted[..., :3] - picture) * alpha
