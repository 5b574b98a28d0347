"""Slides: one facade over the readers of all formats.

Coordinates of `read` are (y, x) pixels of the level that is read, origin at the top left.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import SlideError, foreign_errors_as
from wsi_unet.geometry import Box, Shape
from wsi_unet.locations import Location
from wsi_unet.slides.levels import Level, PixelSize, check_levels
from wsi_unet.slides.resample import read_thumbnail
from wsi_unet.slides.series import Series
from wsi_unet.wording import count, write_size


class UnknownLayoutError(SlideError):
    """A reader can't read a file that another reader might."""


class Reader(Protocol):
    """An open file of some format, for a `Slide` to read; several threads may read at once.

    Attributes:
        name: the reader's name, as in `open_slide(path, reader=name)`.
        vendor: who made the file, in lower case, if it says so.
        compression: how level 0 is compressed, if it says so.
        levels: the pyramid, finest level first.
        mpp: µm per level-0 px as the file states it.
        properties: everything else that the file says about itself.
        series: the images of the file, of which one is read; () if it can't hold several.
        warnings: what was lost, or is doubtful, one line each.
        orientation: how `levels` and `read` are turned, from 1 (upright) to 8 (TIFF 6.0).
        colours: 3 for red, green and blue; 1 for grey, which `read` repeats.
        origin: (y, x) level-0 px at which the area begins that the file says was scanned
            (OpenSlide's bounds): where viewers that show only that area begin to count.
    """

    name: str
    vendor: str | None
    compression: str | None
    levels: tuple[Level, ...]
    mpp: PixelSize | None
    properties: Mapping[str, str]
    series: tuple[Series, ...] = ()
    warnings: tuple[str, ...] = ()
    orientation: int = 1
    colours: Literal[1, 3] = 3
    origin: tuple[int, int] = (0, 0)

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box that lies inside an existing level.

        Raises:
            SlideError: the file can't be read or decoded there.
        """

    def fingerprint(self) -> str:
        """Return a hexadecimal hash that changes with the content, not with path or time.

        Raises:
            SlideError: the file can't be read.
        """

    def close(self) -> None:
        """Release files and threads."""


class Slide:
    """A slide that is open for reading; several threads may read at once.

    Slides hold files and threads, so they can't be pickled: send the path instead.

    Attributes:
        path: where the slide is, an absolute path or a URL.
        name: the last part of the path.
    """

    def __init__(self, path: str | os.PathLike[str] | Location, reader: Reader) -> None:
        """Wrap an open reader, which the slide owns from here on.

        Raises:
            SlideError: what the reader found can't be a slide.
            OptionError: an environment variable that limits slides can't be understood.
        """
        location = Location.parse(path)
        self.path = str(location)
        self.name = location.name
        self._reader = reader
        try:
            check_levels(reader.levels)
        except SlideError as error:
            reader.close()
            raise SlideError(f"{self.path}: {error}") from error
        except BaseException:
            reader.close()
            raise
        self._idle = threading.Condition()
        self._reading = 0
        self._closed = False

    @property
    def reader(self) -> str:
        """Name of the reader in use."""
        return self._reader.name

    @property
    def vendor(self) -> str | None:
        """Who made the file, if it says so."""
        return self._reader.vendor

    @property
    def compression(self) -> str | None:
        """How level 0 is compressed, if the file says so."""
        return self._reader.compression

    @property
    def colours(self) -> Literal[1, 3]:
        """3 for red, green and blue; 1 for grey, which is read as RGB all the same."""
        return self._reader.colours

    @property
    def origin(self) -> tuple[int, int]:
        """(y, x) level-0 px at which the area that was scanned begins, if the file says so."""
        return self._reader.origin

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, finest level first."""
        return self._reader.levels

    @property
    def shape(self) -> Shape:
        """(rows, columns) of level 0, px."""
        return self._reader.levels[0].shape

    @property
    def mpp(self) -> PixelSize | None:
        """µm per level-0 px as the file states it, however absurd; None if it doesn't."""
        return self._reader.mpp

    @property
    def properties(self) -> Mapping[str, str]:
        """Everything else that the file says about itself."""
        return self._reader.properties

    @property
    def series(self) -> tuple[Series, ...]:
        """The images of the file, of which one is read; () if it can't hold several."""
        return self._reader.series

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was lost or is doubtful about the file, one line each."""
        return self._reader.warnings

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return the pixels of a box.

        Args:
            level: index into `levels`.
            box: px of that level; not empty and inside the level.

        Returns:
            RGB (h, w, 3) uint8, owned by the caller.

        Raises:
            ValueError: no such level, or the box is empty or reaches beyond the level.
            SlideError: the file can't be read or decoded there, or the slide is closed.
        """
        if not 0 <= level < len(self.levels):
            raise ValueError(
                f"{self.name} has no level {level}; its levels are 0 to {len(self.levels) - 1}"
            )
        if not box.area:
            raise ValueError(f"nothing to read: {box} is empty")
        if not Box.from_shape(self.levels[level].shape).contains(box):
            raise ValueError(
                f"{box} reaches beyond level {level} of {self.name}, which has (rows, "
                f"columns) {self.levels[level].shape}; read_mirrored continues a slide outside"
            )
        with self._in_use(f"{box} of level {level}"):
            return self._reader.read(level, box)

    def thumbnail(self, max_side: int) -> NDArray[np.uint8]:
        """Return the whole slide, reduced (never enlarged) to at most `max_side` px per side.

        Returns:
            RGB (h, w, 3) uint8.

        Raises:
            ValueError: `max_side` is less than 1.
            SlideError: the slide can't be read.
        """
        return read_thumbnail(self, max_side)

    def fingerprint(self) -> str:
        """Return a hexadecimal hash of the slide's content, independent of path and time.

        Raises:
            SlideError: the file can't be read, or the slide is closed.
        """
        with self._in_use("what identifies it"):
            return self._reader.fingerprint()

    def close(self) -> None:
        """Wait for reads in progress, then release files and threads. May be called again."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            # A read that is still running might find its file descriptor reused for another file.
            self._idle.wait_for(lambda: self._reading == 0)
        with foreign_errors_as(SlideError, f"{self.path}: the slide can't be closed"):
            self._reader.close()

    @contextmanager
    def _in_use(self, what: str) -> Iterator[None]:
        """Keep the slide open meanwhile; whatever the reader's library raises is a SlideError."""
        with self._idle:
            if self._closed:
                raise SlideError(f"{self.path}: the slide is closed; open it again to read it")
            self._reading += 1
        try:
            with foreign_errors_as(SlideError, f"{self.path}: {what} can't be read"):
                yield
        finally:
            with self._idle:
                self._reading -= 1
                self._idle.notify_all()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Slide can't be pickled: send its path and open it where it is needed")

    def __repr__(self) -> str:
        return (
            f"<Slide {self.name}: {write_size(self.shape)}, {count(len(self.levels), 'level')}, "
            f"reader {self.reader}>"
        )
