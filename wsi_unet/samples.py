"""What the samples of an image mean: which are colours, which is alpha, and how it is turned.

Decided here for slides, and for whatever else reads TIFFs, by what the file states
(PhotometricInterpretation, ExtraSamples, Orientation; TIFF 6.0 and its supplement). What states
nothing isn't guessed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.geometry import Box, Shape

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
"""Values of PhotometricInterpretation."""
_COLOUR_SPACES = {PALETTE: "PALETTE", 4: "a transparency mask", 5: "CMYK", YCBCR: "YCBCR"}
_COLOUR_SPACES |= {8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "CFA", 32844: "LOGL"}
"""Names of those that aren't read everywhere."""
PREMULTIPLIED, STRAIGHT = 1, 2
"""Values of ExtraSamples; 0 is unspecified."""
ORIENTATION = 274
"""The tag, in TIFF and in EXIF, that says how an image is turned: 1, upright, to 8."""
JPEG = frozenset({6, 7, 33007, 34892})
"""Values of Compression that are JPEG, old and new: it changes the numbers of pixels."""
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value, by its type in a TIFF or EXIF directory."""
UPRIGHT = 1
TRANSPOSED = 5
"""The first orientation whose rows are the upright image's columns."""

_STEPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1)}
_STEPS |= {5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
"""Steps along rows and columns that make an image upright, after transposing it from 5 on."""

_COLOUR_NAME = re.compile(
    r"(r|g|b|a|red|green|blue|alpha|rgba?|bf|bright[ _-]?field)?[ _:#-]*"
    r"(channel|chan|ch|c|band|component|sample|s)?[ _:#-]*(\d+[ _:#-]*)*",
    re.IGNORECASE,
)
"""Names of channels that are colours, or that say nothing: "Red", "Channel 0", "C:1"."""

Alpha = Literal["none", "straight", "premultiplied"]
T = TypeVar("T", bound=np.generic)


class UnclearSamplesError(ValueError):
    """What samples mean isn't stated, or isn't supported; the message says why and what to do."""


@dataclass(frozen=True)
class SampleMeaning:
    """What the samples of a pixel mean.

    Attributes:
        colours: 1 for grey, 3 for red, green and blue: the first samples.
        alpha: whether the next one is alpha, and whether colours are multiplied by it already.
        ignored: how many samples follow that aren't stated to be anything.
    """

    colours: Literal[1, 3]
    alpha: Alpha = "none"
    ignored: int = 0


def sample_meaning(photometric: int, samples: int, extra: Sequence[int]) -> SampleMeaning:
    """Return what the samples of a TIFF's pixel mean.

    Args:
        photometric: PhotometricInterpretation, where decoders have made YCbCr RGB.
        samples: number of samples per pixel.
        extra: ExtraSamples; empty if the file states none.

    Raises:
        UnclearSamplesError: they are neither grey nor RGB, nor one of them with alpha.
    """
    if photometric not in (BLACK_IS_ZERO, RGB, YCBCR):
        raise UnclearSamplesError(describe_colours(photometric))
    colours: Literal[1, 3] = 1 if photometric == BLACK_IS_ZERO else 3
    beside = samples - colours
    stated = extra[0] if extra else None
    if beside == 0:
        return SampleMeaning(colours)
    if beside == 1 and stated == PREMULTIPLIED:
        return SampleMeaning(colours, "premultiplied")
    if beside == 1 and (stated == STRAIGHT or (stated is None and colours == 3)):
        return SampleMeaning(colours, "straight")
    if beside == 1 and colours == 3:
        return SampleMeaning(colours, ignored=1)
    raise UnclearSamplesError(
        f"has {samples} channels that aren't stated to be colours: multi-channel fluorescence? "
        "Only grey and RGB are supported, so make an RGB image of it first"
    )


def describe_colours(photometric: int) -> str:
    """Return why colours that are neither grey nor RGB aren't read, and what to do."""
    if photometric == WHITE_IS_ZERO:
        return (
            "stores white as zero (MINISWHITE), which programs read in two ways; save it with "
            "black as zero (in tifffile photometric='minisblack')"
        )
    name = _COLOUR_SPACES.get(photometric, f"PhotometricInterpretation {photometric}")
    return f"stores colours as {name}, which isn't supported; convert it to RGB first"


def find_other_names(names: Sequence[str]) -> list[str]:
    """Return the names of channels that say that they are something else than colours.

    >>> find_other_names(["Red", "Channel 1", "", "DAPI", "Texas Red"])
    ['DAPI', 'Texas Red']
    """
    return [name for name in names if not _COLOUR_NAME.fullmatch(name.strip())]


def known_orientation(value: Any) -> int:
    """Return an orientation as a tag states it, upright if it states none that exists."""
    return value if isinstance(value, int) and value in _STEPS else UPRIGHT


def page_orientation(page: Any) -> int:
    """Return how a page of a TIFF, as tifffile describes it, is turned, from 1, upright, to 8."""
    tag = page.tags.get(ORIENTATION)
    return known_orientation(None if tag is None else tag.value)


def image_orientation(image: Image.Image) -> int | None:
    """Return how an image that Pillow opened is turned, from 1 to 8; None if its EXIF is damaged.

    A PNG may state it after its pixels. That counts only if these are decoded already: Pillow's own
    method for PNGs would decode them to find out.
    """
    try:
        if image.info.get("exif"):  # not of a JPEG, whose damaged EXIF Pillow drops
            Image.Exif().load(image.info["exif"])
        exif: Any = Image.Image.getexif(image)
        value = exif.get(ORIENTATION)
    except Exception:  # whatever Pillow raises on damaged EXIF
        return None
    if value is None and image.format != "TIFF" and hasattr(exif, "fp"):
        return UPRIGHT if _is_whole(exif.fp.getvalue()) else None
    return known_orientation(value)


def _is_whole(exif: bytes) -> bool:
    """Return whether all that the first directory of EXIF lists lies in it; Pillow only warns."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (tags,) = struct.unpack_from(f"{order}H", exif, start)
        entries = [
            struct.unpack_from(f"{order}HHII", exif, start + 2 + 12 * number)
            for number in range(tags)
        ]
        struct.unpack_from(f"{order}I", exif, start + 2 + 12 * tags)  # the next directory
    except struct.error:
        return False
    sizes = ((_TYPE_BYTES.get(kind, 0) * count, place) for _, kind, count, place in entries)
    return all(size <= 4 or place + size <= len(exif) for size, place in sizes)


def turn_upright(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """Return an image as it is shown, a view.

    Args:
        pixels: (h, w) or (h, w, samples) as stored.
        orientation: the tag's value.
    """
    rows, columns = _STEPS[orientation]
    turned = pixels.swapaxes(0, 1) if orientation >= TRANSPOSED else pixels
    return turned[::rows, ::columns]


def stored_box(box: Box, shape: Shape, orientation: int) -> Box:
    """Return where a box of an upright image lies in the stored one.

    Args:
        box: px of the upright image.
        shape: (rows, columns) of the upright image, px.
        orientation: the tag's value.
    """
    y0, x0, y1, x1 = box.y0, box.x0, box.y1, box.x1
    rows, columns = _STEPS[orientation]
    if rows < 0:
        y0, y1 = shape[0] - y1, shape[0] - y0
    if columns < 0:
        x0, x1 = shape[1] - x1, shape[1] - x0
    return Box(x0, y0, x1, y1) if orientation >= TRANSPOSED else Box(y0, x0, y1, x1)
