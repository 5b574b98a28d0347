"""The series of a TIFF: which of them can be a slide, and of which pages their levels consist."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsi_unet.colour import WHITE
from wsi_unet.geometry import Shape
from wsi_unet.samples import (
    BLACK_IS_ZERO,
    JPEG,
    RGB,
    YCBCR,
    SampleMeaning,
    UnclearSamplesError,
    sample_meaning,
)
from wsi_unet.slides.readers.tiff_ome import OmeImage, match_image
from wsi_unet.slides.series import Series, is_associated
from wsi_unet.wording import count

JPEG2000 = frozenset({33003, 33004, 33005, 34712})
"""Values of Compression that are JPEG 2000."""
_COLOUR_CONVERTING = JPEG | JPEG2000 | {50001, 50002, 52546}
"""Compressions whose decoders convert YCbCr to RGB themselves."""
SEPARATE = 2
"""PlanarConfiguration of colours that lie in separate planes."""


@dataclass(frozen=True)
class SeriesPixels:
    """How the pixels of a series are read.

    Attributes:
        number: which series it is.
        series: tifffile's series.
        meaning: what the samples of a pixel mean, of all planes together.
        planes: which pages hold red, green and blue, if they are pages of their own.
        ome: what the OME-XML says about it; None if there is none.
    """

    number: int
    series: Any
    meaning: SampleMeaning
    planes: tuple[int, ...]
    ome: OmeImage | None


def describe_series(tiff: Any, images: Sequence[OmeImage]) -> list[Series]:
    """Return the images of a TIFF and why some can't be a slide."""
    return [_describe(series, number, images) for number, series in enumerate(tiff.series)]


def _describe(series: Any, number: int, images: Sequence[OmeImage]) -> Series:
    frame = series.keyframe
    refusal = None
    try:
        read_pixels(series, number, images)
    except UnclearSamplesError as error:
        refusal = str(error)
    name = str(series.name or "")
    associated = is_associated(name) or bool(frame.is_reduced)
    return Series(name, _shape(frame), len(series.levels), associated, refusal)


def _shape(frame: Any) -> Shape:
    return int(frame.imagelength), int(frame.imagewidth)


def read_pixels(series: Any, number: int, images: Sequence[OmeImage]) -> SeriesPixels:
    """Return how the pixels of a series are read.

    Args:
        series: tifffile's series.
        number: which it is.
        images: the images of the file's OME-XML; none if it has none.

    Raises:
        UnclearSamplesError: they aren't 8-bit grey or RGB in one plane; the message says what they
            are.
    """
    ome = match_image(images, number, _shape(series.keyframe))
    colours = ome.colours if ome is not None else ()
    meanings = {_level_meaning(level, series.axes, colours) for level in series.levels}
    if len(meanings) > 1:
        raise UnclearSamplesError("has levels of different kinds of pixels; the file is damaged")
    return SeriesPixels(number, series, *meanings.pop(), ome)


def _level_meaning(
    level: Any, axes: str, colours: tuple[int, ...]
) -> tuple[SampleMeaning, tuple[int, ...]]:
    frame = level.keyframe
    if frame.dtype != np.uint8 or frame.bitspersample != 8:
        bits = count(frame.bitspersample, "bit")
        raise UnclearSamplesError(
            f"has pixels of {bits} per sample ({frame.dtype}); only 8 bits are "
            "supported, so convert it to 8-bit RGB first"
        )
    photometric = int(frame.photometric)
    if photometric == YCBCR and int(frame.compression) not in _COLOUR_CONVERTING:
        raise UnclearSamplesError(
            "stores colours as YCBCR without JPEG, which isn't supported; convert it to RGB first"
        )
    samples = int(frame.samplesperpixel)
    pages = len(level.pages)
    single = math.prod(level.shape) == math.prod(frame.shape)
    if pages == 1 and single and int(frame.imagedepth) == 1:
        meaning = sample_meaning(photometric, samples, frame.extrasamples)
        if samples > 1 and int(frame.planarconfig) == SEPARATE and samples != meaning.colours:
            raise UnclearSamplesError("has alpha in a plane of its own; convert it to RGB first")
        return meaning, ()
    if pages == 3 and samples == 1 and photometric == BLACK_IS_ZERO and len(colours) == 3:
        return sample_meaning(RGB, 3, ()), colours
    raise UnclearSamplesError(
        f"has axes {axes} of {tuple(level.shape)}: multi-channel fluorescence, a stack, or several "
        "images of one size; only single planes of grey or RGB are supported, so export one first"
    )


def fill_gaps(series: Any, meaning: SampleMeaning) -> None:
    """Make tiles that the file leaves out white if it is in colour: they weren't scanned."""
    if meaning.colours == 3:
        for level in series.levels:
            level.keyframe.nodata = WHITE
