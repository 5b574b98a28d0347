"""The arrays of a result that exports hold: labels, probabilities, the image, numbers of objects.

Where the model didn't look nothing is known, so labels get a value of their own there, and
probabilities a channel that says so. Both are left out of results that cover the whole slide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.colour import Colour, parse_colour
from wsi_unet.errors import OutputError
from wsi_unet.exports.results import NOT_PREDICTED, ExportedGroup, ExportedResult
from wsi_unet.geometry import Box, Shape
from wsi_unet.labels.contents import count_described_levels, parse_frame, read_object_images
from wsi_unet.labels.documents import DamagedError, GroupKind, read_group_attributes
from wsi_unet.labels.names import IMAGE_NAME, object_image_name
from wsi_unet.labels.object_images import read_signature
from wsi_unet.labels.pyramid import UINT8, UINT32, Pyramid
from wsi_unet.labels.stored_level import LostShards, ShardRecords, StoredLevel, open_level
from wsi_unet.objects.intensities.probabilities import find_probabilities
from wsi_unet.objects.painting.image_files import ImageFiles
from wsi_unet.objects.painting.label_image import sign_image
from wsi_unet.objects.painting.stored import StoredObjects
from wsi_unet.storage.store import ByteStore

WHITE: Colour = (255, 255, 255)
"""Colour of background."""

GREYS = (200, 168, 136, 104)
"""Greys of pixels that the model didn't look at: the first that no class has."""

ReadBox = Callable[[int, Box], NDArray[Any]]
"""Returns a box (h, w) or (c, h, w) of a level."""


@dataclass(frozen=True)
class Meaning:
    """What a label value or a channel stands for.

    Attributes:
        name: its name.
        colour: its colour.
        shown: whether viewers show it at first, if it is a channel.
    """

    name: str
    colour: Colour
    shown: bool = True


@dataclass(frozen=True, eq=False)
class ExportedPyramid:
    """An array of a result, at all of its levels.

    Attributes:
        name: of its group; of the slide, for the image.
        shapes: (rows, columns) of each level, px, the finest first.
        dtype: type of its pixels.
        mpp: (y, x) size of a pixel of the finest level, µm; None where that isn't known.
        read: reads a box inside a level; (h, w), or (c, h, w) of an array with channels.
        attributes: those of its group in the result.
        values: the meaning of each label value, in ascending order; of labels alone.
        channels: the meaning of each channel; of arrays (c, y, x) alone.
        not_predicted: the label value, or channel, that says where the model didn't look; None:
            none does.
    """

    name: str
    shapes: tuple[Shape, ...]
    dtype: np.dtype[Any]
    mpp: tuple[float, float] | None
    read: ReadBox
    attributes: Mapping[str, Any]
    values: Mapping[int, Meaning]
    channels: tuple[Meaning, ...]
    not_predicted: int | None

    def without_small_levels(self) -> tuple[Shape, ...]:
        """Return the shapes of the levels down to the first that fits into one tile.

        All arrays of a result have as many levels as the one that needs most.
        """
        return self.shapes[: Pyramid.count_levels(self.shapes[0])]


def open_label_pyramid(group: ExportedGroup) -> ExportedPyramid:
    """Return the labels of a group.

    Raises:
        OutputError: the classes leave no value for pixels that the model didn't look at.
    """
    levels = [group.open_level(level) for level in range(group.levels)]
    attributes = _read_attributes(group.source.store, f"labels/{group.name}", "labels")
    properties = attributes["ome"]["image-label"]["properties"]
    names = {each["label-value"]: each["class"] for each in properties}
    values = {0: Meaning(names.get(0, "background"), WHITE)}
    for value, name in sorted(group.source.classes.items()):
        values[value] = Meaning(name, group.colours[value])
    not_predicted = group.find_not_predicted_value()
    if not_predicted is not None:
        values[not_predicted] = Meaning(NOT_PREDICTED, _choose_grey(values.values()))

    return ExportedPyramid(
        name=group.name,
        shapes=tuple(level.shape for level in levels),
        dtype=UINT8,
        mpp=levels[0].mpp,
        read=lambda level, box: levels[level].read_marked(box, not_predicted),
        attributes=attributes,
        values=dict(sorted(values.items())),
        channels=(),
        not_predicted=not_predicted,
    )


def _choose_grey(meanings: Iterable[Meaning]) -> Colour:
    taken = {each.colour for each in meanings}
    greys: list[Colour] = [(grey, grey, grey) for grey in GREYS]
    return next((grey for grey in greys if grey not in taken), greys[0])


def open_probability_pyramids(result: ExportedResult) -> list[ExportedPyramid]:
    """Return the stored probabilities of the runs that made a result's label groups."""
    runs = {group.source.run: group for group in result.groups}
    return [
        _open_probabilities(group, run)
        for run, group in runs.items()
        if find_probabilities(group.source.store, run) is not None
    ]


def open_only_probabilities(result: ExportedResult) -> ExportedPyramid:
    """Return the only stored probabilities of a result.

    Raises:
        OutputError: there are none, or those of several runs.
    """
    found = open_probability_pyramids(result)
    if not found:
        raise OutputError(
            f"{result.location}: no probabilities are stored; segment with "
            "`outputs=('labels', 'probabilities')` into another output"
        )
    if len(found) > 1:
        names = ", ".join(group.name for group in result.groups)
        raise OutputError(
            f"{result.location}: {len(found)} runs stored probabilities; give `label` one of "
            f"{names}"
        )
    return found[0]


def _open_probabilities(group: ExportedGroup, run: str) -> ExportedPyramid:
    store, source, key = group.source.store, group.source, f"probability/{run}"
    attributes = _read_attributes(store, key, "channels")
    levels = _open_levels(store, key, attributes, ShardRecords.open(store, run), channels=True)
    described = attributes["ome"]["omero"]["channels"]
    channels = [
        Meaning(
            each["label"], _parse_channel_colour(each.get("color")), each.get("active") is not False
        )
        for each in described
    ]
    whole = source.area.whole
    if not whole:
        channels.append(Meaning(NOT_PREDICTED, _choose_grey(channels), shown=False))

    def read(level: int, box: Box) -> NDArray[np.uint8]:
        stored: NDArray[np.uint8] = levels[level][(slice(None), *box.slices())]
        if whole:
            return stored
        elsewhere = np.where(source.area.read(box, level), np.uint8(0), np.uint8(255))
        return np.concatenate((stored, elsewhere[None]))

    return ExportedPyramid(
        name=run,
        shapes=tuple(level.plane for level in levels),
        dtype=UINT8,
        mpp=_find_mpp(attributes),
        read=read,
        attributes=attributes,
        values={},
        channels=tuple(channels),
        not_predicted=None if whole else len(channels) - 1,
    )


def open_image_pyramid(result: ExportedResult) -> ExportedPyramid | None:
    """Return the stored image of the slide: RGB; None if none is stored.

    Raises:
        OutputError: it isn't finished.
    """
    store = result.groups[0].source.store
    attributes = _read_attributes(store, "", "any")
    if "multiscales" not in attributes.get("ome", {}):
        return None
    records = ShardRecords.open(store, IMAGE_NAME)
    if records is None or records.progress.read_tail(records.run.signature) is None:
        raise OutputError(
            f"{store}: the stored image isn't finished; run the same segmentation again, which "
            "completes it"
        )
    levels = _open_levels(store, "", attributes, records, channels=True)
    return ExportedPyramid(
        name=result.groups[0].source.provenance.slide.name,
        shapes=tuple(level.plane for level in levels),
        dtype=UINT8,
        mpp=_find_mpp(attributes),
        read=_make_reader(levels, channels=True),
        attributes=attributes,
        values={},
        channels=(
            Meaning("R", (255, 0, 0)),
            Meaning("G", (0, 255, 0)),
            Meaning("B", (0, 0, 255)),
        ),
        not_predicted=None,
    )


def open_object_pyramid(group: ExportedGroup) -> ExportedPyramid | None:
    """Return the label image of a group's objects, uint32; None if none is stored.

    Raises:
        OutputError: it isn't that of the current objects.
    """
    store, name = group.source.store, object_image_name(group.name)
    if name not in read_object_images(store):
        return None
    objects = StoredObjects.open(store, group.name)
    pyramid = Pyramid(objects.grid.shape, objects.grid.side, group.levels)
    if read_signature(store, group.name, pyramid) != sign_image(objects):
        raise OutputError(
            f"{store}: the label image {name!r} shows other objects than the table has; find "
            "objects again with `object_labels=True`"
        )
    key = f"labels/{name}"
    attributes = _read_attributes(store, key, "object image")
    records = ImageFiles(objects.files)
    levels = [
        open_level(store, key, level, group.levels, channels=False, records=records, dtype=UINT32)
        for level in range(group.levels)
    ]
    return ExportedPyramid(
        name=name,
        shapes=tuple(level.plane for level in levels),
        dtype=UINT32,
        mpp=_find_mpp(attributes),
        read=_make_reader(levels, channels=False),
        attributes=attributes,
        values={},
        channels=(),
        not_predicted=None,
    )


def _open_levels(
    store: ByteStore,
    key: str,
    attributes: Mapping[str, Any],
    records: LostShards | None,
    *,
    channels: bool,
) -> list[StoredLevel]:
    count = count_described_levels(attributes) or 0
    return [
        open_level(store, key, level, count, channels=channels, records=records)
        for level in range(count)
    ]


def _make_reader(levels: list[StoredLevel], *, channels: bool) -> ReadBox:
    def read(level: int, box: Box) -> NDArray[Any]:
        rows, columns = box.slices()
        return levels[level][(slice(None), rows, columns) if channels else (rows, columns)]

    return read


def _read_attributes(store: ByteStore, key: str, kind: GroupKind) -> dict[str, Any]:
    attributes = read_group_attributes(store, key, kind)
    if attributes is None:
        raise DamagedError(f"{store}: {key!r} is listed but missing; compute it again")
    return attributes


def _find_mpp(attributes: dict[str, Any]) -> tuple[float, float] | None:
    frame = parse_frame(attributes)
    return None if frame.unit is None else frame.scale


def _parse_channel_colour(text: object) -> Colour:
    """Return the colour of a channel; white for what isn't one."""
    if isinstance(text, str) and re.fullmatch("[0-9A-Fa-f]{6}", text):
        return parse_colour(text)
    return WHITE
