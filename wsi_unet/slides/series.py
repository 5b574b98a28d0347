"""The images of one file, of which one is the slide: the others are macros, labels, thumbnails."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Shape
from wsi_unet.wording import write_size

SIMILAR = 0.5
"""Images with at least this share of the largest one's pixels might be the slide as well."""
OVERVIEW = 1 / 4
"""With less than this share an image is only an overview of the largest, which can't be read."""
MENTIONED = 1 / 16
"""Share of the slide's pixels from which another image is mentioned: thumbnails are smaller."""
_ASSOCIATED = re.compile(
    r"(label|macro|thumbnail|thumb|overview|preview|map)([ _-]?image)?", re.IGNORECASE
)


@dataclass(frozen=True)
class Series:
    """One of the images of a file.

    Attributes:
        name: what the file calls it; "" if it has no name.
        shape: (rows, columns) of its finest level, px.
        levels: number of its levels.
        associated: whether the file says that it is no slide but a macro, a label or a thumbnail.
        refusal: why its pixels can't be those of a slide; None if they can.
    """

    name: str
    shape: Shape
    levels: int
    associated: bool = False
    refusal: str | None = None

    @property
    def area(self) -> int:
        """Pixels of the finest level."""
        return self.shape[0] * self.shape[1]


def is_associated(name: str) -> bool:
    """Return whether an image with this name is a macro, a label or a thumbnail."""
    return _ASSOCIATED.fullmatch(name.strip()) is not None


def largest_series(listed: Sequence[Series]) -> int:
    """Return the number of the largest image, an associated one only if there is no other."""
    return max(
        range(len(listed)), key=lambda number: (not listed[number].associated, listed[number].area)
    )


def choose_series(listed: Sequence[Series], wanted: str | None) -> int:
    """Return the number of the image that is the slide: the largest, if none is named.

    Args:
        listed: the file's images.
        wanted: the number or the name of one of them; None for the largest.

    Raises:
        SlideError: there is no such image, its pixels can't be a slide's, or several are of about
            the same size; the message lists them.
    """
    if not listed:
        raise SlideError("holds no image")
    if wanted is not None:
        number = _find(listed, wanted)
        refusal = listed[number].refusal
        if refusal is not None:
            raise SlideError(f"series {number} {refusal}")
        return number
    largest = listed[largest_series(listed)]
    usable = [
        number
        for number, series in enumerate(listed)
        if series.refusal is None and series.associated == largest.associated
    ]
    most = max((listed[number].area for number in usable), default=0)
    if most < OVERVIEW * largest.area:
        others = f"; its images are {list_series(listed)}" if len(listed) > 1 else ""
        raise SlideError(f"{largest.refusal}{others}")
    alike = [number for number in usable if listed[number].area >= SIMILAR * most]
    if len(alike) > 1:
        raise SlideError(
            f"holds {len(alike)} images of about the same size, {list_series(listed, alike)}; "
            "choose one with `series`"
        )
    return alike[0]


def mention_others(listed: Sequence[Series], chosen: int) -> tuple[str, ...]:
    """Return a line about the images that aren't read, if one is too large for a macro."""
    most = MENTIONED * listed[chosen].area
    others = [
        number
        for number, series in enumerate(listed)
        if number != chosen and series.area >= most and not series.associated
    ]
    if not others:
        return ()
    read = list_series(listed, [chosen])
    return (f"read {read}, not {list_series(listed, others)}; `series` chooses",)


def list_series(listed: Sequence[Series], numbers: Sequence[int] | None = None) -> str:
    """Return numbers, names and sizes of images, for a message."""
    return ", ".join(
        f"{number}{f' {listed[number].name!r}' if listed[number].name else ''} "
        f"({write_size(listed[number].shape)})"
        for number in (range(len(listed)) if numbers is None else numbers)
    )


def _find(listed: Sequence[Series], wanted: str) -> int:
    # Numbers first: every image has one of its own, and may be called by that of another.
    if wanted.isascii() and wanted.isdigit() and int(wanted) < len(listed):
        return int(wanted)
    named = [number for number, series in enumerate(listed) if series.name == wanted]
    if len(named) == 1:
        return named[0]
    problem = "several images have the name" if named else "there is no series"
    raise SlideError(f"{problem} {wanted!r}; its images are {list_series(listed)}")
