"""The slide under the labels: its file if it is at hand, or the image that a result stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import InputError, OptionError, SlideError
from wsi_unet.geometry import Box
from wsi_unet.labels.contents import count_described_levels, parse_frame
from wsi_unet.labels.documents import read_group_attributes
from wsi_unet.labels.names import IMAGE_NAME
from wsi_unet.labels.stored_level import ShardRecords, StoredLevel, open_level
from wsi_unet.locations import Location
from wsi_unet.slides.opening import READERS, open_slide
from wsi_unet.slides.slide import Slide
from wsi_unet.storage.store import ByteStore
from wsi_unet.viewer.groups import SlideFacts
from wsi_unet.viewer.pictures import PictureLevel
from wsi_unet.viewer.runs import ViewedRun


@dataclass(frozen=True, eq=False)
class SlideSource:
    """Where the pixels of the slide come from.

    Attributes:
        slide: the open slide; None if it isn't at hand.
        levels: its levels, then those of the stored image.
        note: what the user should know about it; "" if there is nothing.
    """

    slide: Slide | None
    levels: tuple[PictureLevel, ...]
    note: str = ""

    def close(self) -> None:
        """Close the slide."""
        if self.slide is not None:
            self.slide.close()


def list_levels(slide: Slide) -> list[PictureLevel]:
    """Return the levels of a slide."""

    def make(number: int) -> PictureLevel:
        level = slide.levels[number]
        return PictureLevel(level.downsample, level.shape, lambda box: slide.read(number, box))

    return [make(number) for number in range(len(slide.levels))]


def list_stored_levels(store: ByteStore, slide: SlideFacts) -> list[PictureLevel]:
    """Return the levels of the stored image of the slide; none if no image is stored yet.

    Raises:
        OutputError: what is stored is damaged.
    """
    attributes = read_group_attributes(store, "") or {}
    count = count_described_levels(attributes)
    if count is None:
        return []
    frame, records = parse_frame(attributes), ShardRecords.open(store, IMAGE_NAME)
    complete = records is None or records.progress.read_tail(records.run.signature) is not None
    if not complete:
        return []  # its coarse levels are written last
    sizes = (1.0, 1.0) if frame.unit is None or slide.mpp is None else slide.mpp
    step = frame.scale[0] / sizes[0], frame.scale[1] / sizes[1]
    stored = [open_level(store, "", n, count, channels=True, records=records) for n in range(count)]
    return [_make_stored(level, step) for level in stored]


def _make_stored(level: StoredLevel, step: tuple[float, float]) -> PictureLevel:
    factor = 1 << level.level

    def read(box: Box) -> NDArray[np.uint8]:
        rows, columns = box.slices()
        return np.ascontiguousarray(np.moveaxis(level[(slice(None), rows, columns)], 0, -1))

    return PictureLevel((step[0] * factor, step[1] * factor), level.plane, read)


def open_given(path: str, facts: SlideFacts, run: ViewedRun | None) -> Slide:
    """Open the slide that the user gave for a result.

    Raises:
        SlideError: it can't be opened.
        OptionError: it is another slide.
    """
    reader, series = _choose_reader(run)
    slide = open_slide(path, reader, series=series)
    try:
        same = _is_same(slide, facts)
    except BaseException:
        slide.close()
        raise
    if not same:
        slide.close()
        raise OptionError(
            f"{slide.path}: isn't the slide of the result, which is {facts.name!r} with other "
            "content; give that one as `slide`, or leave it out",
            option="slide",
        )
    return slide


def find_slide(store: ByteStore, facts: SlideFacts, runs: Sequence[ViewedRun]) -> Slide | None:
    """Open the slide of a result where its run found it, or beside the result.

    What a result says isn't trusted: only a slide with the content that the result is about is
    shown, and a result on a disk can't make us ask an object store.

    Returns:
        None if there is none there, or only another one.
    """
    for run in runs:
        places = [run.slide_path] if run.slide_path is not None else []
        if not store.location.is_url and facts.name and "/" not in facts.name:
            places.append(str(store.location.parent / facts.name))
        for place in places:
            slide = _open_trusted(place, store, facts, run)
            if slide is not None:
                return slide
    return None


def _open_trusted(place: str, store: ByteStore, facts: SlideFacts, run: ViewedRun) -> Slide | None:
    """Open the slide that a result names; None if there is none, or another one."""
    reader, series = _choose_reader(run)
    try:
        location = Location.parse(place)
        if location.is_url and not store.location.is_url:
            return None
        slide = open_slide(location, reader, series=series)
    except InputError:
        return None
    try:
        same = _is_same(slide, facts)
    except SlideError:
        same = False
    if not same:
        slide.close()
        return None
    return slide


def _choose_reader(run: ViewedRun | None) -> tuple[str, str | None]:
    reader, series = run.reader if run is not None else ("auto", None)
    return (reader if reader in READERS else "auto"), series


def _is_same(slide: Slide, facts: SlideFacts) -> bool:
    if facts.shape is not None and slide.shape != tuple(facts.shape):
        return False
    return slide.fingerprint() == facts.fingerprint
