"""What a server shows: one slide, one result, or a folder of results, each with a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from wsi_unet.cohorts.places import is_inside, resolve_links
from wsi_unet.cohorts.status import OutputStatus, is_cohort, read_cohort_status
from wsi_unet.errors import InputError, OutputError
from wsi_unet.labels.documents import DamagedError, read_group_attributes
from wsi_unet.locations import Location
from wsi_unet.process_cache import ProcessCache
from wsi_unet.storage.opening import open_store
from wsi_unet.viewer.viewed import ViewedSlide

MOST_OPEN = 8
"""Slides that are kept open at once."""


@dataclass(frozen=True)
class Entry:
    """A slide that can be shown.

    Attributes:
        name: what the page calls it.
        open: opens it.
        place: where its result is; None of a slide without one.
    """

    name: str
    open: Callable[[], ViewedSlide]
    place: Location | None


class Library:
    """The slides that are shown; threads may share it.

    Attributes:
        entries: the slides, by number.
        folder: the folder that they are from; None of a single slide or result.
    """

    def __init__(self, entries: Sequence[Entry], folder: Location | None = None) -> None:
        self.entries = tuple(entries)
        self.folder = folder
        self._renewed = [0] * len(entries)
        self._opened: ProcessCache[ViewedSlide] = ProcessCache(MOST_OPEN, ViewedSlide.close)

    @contextmanager
    def use(self, number: int) -> Iterator[ViewedSlide]:
        """Yield a slide, which stays open meanwhile.

        Raises:
            WsiUnetError: it can't be opened.
        """
        key = number, self._renewed[number]
        with self._opened.use(key, self.entries[number].open) as viewed:
            yield viewed

    def renew(self, number: int) -> None:
        """Open a slide anew when it is used next."""
        self._renewed[number] += 1

    def read_statuses(self) -> Iterator[OutputStatus]:
        """Yield how far the results of a folder are, in the order of their numbers.

        Raises:
            OutputError: something can't be read.
        """
        if self.folder is None:
            return
        numbers = {str(entry.place) for entry in self.entries}
        for status in read_cohort_status(self.folder):
            if status.output in numbers:
                yield status

    def close(self) -> None:
        """Close all slides."""
        for number, generation in enumerate(self._renewed):
            for each in range(generation + 1):
                viewed = self._opened.release((number, each))
                if viewed is not None:
                    viewed.close()


def open_library(target: str, slide: str | None = None, series: str | None = None) -> Library:
    """Find out what is to be shown: a result, a folder of results, or a slide.

    Args:
        target: path or URL.
        slide: the slide of a result; None looks where the run found it, and beside the result.
        series: number or name of one of several images in the file of a slide; a result knows its
            own.

    Raises:
        OutputError: there is nothing, or it is damaged.
        InputError: a slide can't be opened, isn't the result's, or was given for a folder.
    """
    location = Location.parse(target)
    if _is_result(location):
        entry = Entry(location.name, partial(ViewedSlide.open_result, location, slide), location)
        return _check(Library([entry]))
    if slide is not None:
        raise InputError(f"{target}: there is no result here that {slide} could be the slide of")
    if _is_folder(location) and is_cohort(location):
        return _list_folder(location)
    entry = Entry(location.name, partial(ViewedSlide.open_slide, target, series), None)
    return _check(Library([entry]))


def _check(library: Library) -> Library:
    """Open the only slide of a library, so that what is wrong with it is said at once."""
    with library.use(0):
        return library


def _is_folder(location: Location) -> bool:
    return location.is_url or location.path.is_dir()


def _is_result(location: Location) -> bool:
    """Return whether a result of ours is at a location; an OME-Zarr of others is a slide."""
    if not _is_folder(location):
        return False
    try:
        attributes = read_group_attributes(open_store(location), "")
    except DamagedError:
        return False
    return attributes is not None and "wsi_unet" in attributes


def _list_folder(folder: Location) -> Library:
    """Return the results of a folder that exist by now."""
    entries = []
    for status in read_cohort_status(folder):
        place = Location.parse(status.output) if status.output else None
        if place is None or status.state in ("waiting", "failed"):
            continue
        if not is_inside(resolve_links(place).text, resolve_links(folder).text):
            continue  # whoever wrote the report may have named any output
        entries.append(Entry(place.name, partial(ViewedSlide.open_result, place), place))
    if not entries:
        raise OutputError(f"{folder}: no result is here yet; segment slides to make some")
    return Library(entries, folder)
