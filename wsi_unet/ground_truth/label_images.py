"""Label images: PNGs and TIFFs whose values are classes, or numbers of objects.

A palette gives classes their colours, so the values are its indices, in PNGs and TIFFs alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import EvaluationError, foreign_errors_as, os_errors_as
from wsi_unet.geometry import Box, Shape
from wsi_unet.image_files import PNG_HEAD, TIFF_HEADS, check_size, open_image
from wsi_unet.regular_files import open_regular
from wsi_unet.samples import (
    UPRIGHT,
    UnclearSamplesError,
    page_orientation,
    turn_upright,
)
from wsi_unet.slides.planes import (
    GREY_MODES,
    check_kept_numbers,
    check_photometric,
    decoded_orientation,
    find_largest,
    map_pixels,
    open_tiff,
    plane_shape,
)

MAX_WHOLE_BYTES = 1 << 29
"""Largest TIFF, in bytes of its pixels, that is decoded as a whole."""
MAX_TILE_BYTES = 1 << 26
"""Largest tile or strip, in bytes of its pixels, of a TIFF that is larger than that."""
_ONE_CHANNEL = (*GREY_MODES, "P")
"""Pillow's names of images with one number per pixel."""


@dataclass(frozen=True, eq=False)
class WholePixels:
    """The values of an image in memory, or mapped into it."""

    values: NDArray[np.integer[Any]]

    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        """Return the values (h, w) of a box inside the image."""
        return np.asarray(self.values[box.slices()])


class TiledPixels:
    """The values of a TIFF too large to decode as a whole: tiles are decoded when needed."""

    def __init__(self, path: Path, page: Any) -> None:
        """Note where the tiles of a page lie.

        Args:
            path: the file, which is opened again for each box.
            page: tifffile's page; its decode function works after the file was closed.
        """
        from wsi_unet.slides.readers.tiff_pages import tile_shape

        self._path = path
        self._shape = int(page.imagelength), int(page.imagewidth)
        self._decode = page.decode
        self._dtype = page.dtype
        self._tile = tile_shape(page)
        self._across = -(-self._shape[1] // self._tile[1])
        self._segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        self._fill = page.nodata
        if math.prod(self._tile) * self._dtype.itemsize > MAX_TILE_BYTES:
            raise EvaluationError(
                f"{path}: is too large to be decoded as a whole, and not tiled; save it as a tiled "
                "TIFF"
            )

    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        """Return the values (h, w) of a box inside the image.

        Raises:
            EvaluationError: a tile can't be decoded.
        """
        with foreign_errors_as(EvaluationError, f"{self._path}: can't be read"):
            return _as_numbers(self._read(box))

    def _read(self, box: Box) -> NDArray[Any]:
        rows, columns = self._tile
        result = np.full(box.shape, self._fill, self._dtype)
        with open_regular(self._path) as file:
            for i in range(box.y0 // rows, -(-box.y1 // rows)):
                for j in range(box.x0 // columns, -(-box.x1 // columns)):
                    number = i * self._across + j
                    offset, length = self._segments[number]
                    if not length:
                        continue
                    file.seek(offset)
                    tile = Box(i * rows, j * columns, (i + 1) * rows, (j + 1) * columns)
                    common = tile.intersection(box)
                    pixels = self._decode_tile(file.read(length), number)
                    result[common.relative_to(box).slices()] = pixels[
                        common.relative_to(tile).slices()
                    ]
        return result

    def _decode_tile(self, data: bytes, number: int) -> NDArray[Any]:
        with foreign_errors_as(EvaluationError, f"{self._path}: tile {number} can't be decoded"):
            decoded, _, _ = self._decode(data, number)
        return np.asarray(decoded)[0, :, :, 0]


def open_image_pixels(path: Path) -> tuple[WholePixels | TiledPixels, Shape]:
    """Open a label image, which is one plane of whole numbers.

    Returns:
        Its values, and its (rows, columns).

    Raises:
        EvaluationError: it can't be read, or is something else.
    """
    with os_errors_as(EvaluationError, path), open_regular(path) as file:
        head = file.read(8)
    if not head.startswith((PNG_HEAD, *TIFF_HEADS)):
        raise EvaluationError(
            f"{path}: is neither a label OME-Zarr nor a PNG or TIFF; labels can't be read from "
            "anything else"
        )
    with foreign_errors_as(EvaluationError, f"{path}: can't be decoded"):
        try:
            return _open_png(path, head) if head.startswith(PNG_HEAD) else _open_tiff(path)
        except UnclearSamplesError as error:
            raise EvaluationError(f"{path}: {error}") from error


def _open_png(path: Path, head: bytes) -> tuple[WholePixels, Shape]:
    with open_regular(path) as file, open_image(file, head) as image:
        if image.mode not in _ONE_CHANNEL:
            raise _refuse_channels(path, len(image.getbands()))
        check_size((image.height, image.width), (image.height, image.width))
        values = turn_upright(np.asarray(image), decoded_orientation(image, path))
    return _whole(path, values)


def _open_tiff(path: Path) -> tuple[WholePixels | TiledPixels, Shape]:
    with open_tiff(path, EvaluationError) as tiff:
        series = find_largest(tiff)
        level: Any = None if series is None else series.levels[0]
        shape = None if level is None else plane_shape(level)
        if shape is None:
            planes = "none" if level is None else f"shape {level.shape}"
            raise EvaluationError(f"{path}: labels are one plane of pixels, not {planes}")
        page: Any = level.pages[0]
        _check_dtype(path, np.dtype(page.dtype))
        check_photometric(page)
        check_kept_numbers(page)
        orientation = page_orientation(page)
        if page.is_final:  # uncompressed: can be mapped into memory
            return _whole(path, turn_upright(map_pixels(path, level), orientation))
        if math.prod(shape) * page.dtype.itemsize <= MAX_WHOLE_BYTES:
            return _whole(path, turn_upright(level.asarray().reshape(shape), orientation))
        if orientation != UPRIGHT:
            raise UnclearSamplesError(
                f"is stored turned (orientation {orientation}), and too large to be decoded as a "
                "whole; save it upright"
            )
        return TiledPixels(path, page), shape


def _whole(path: Path, values: NDArray[Any]) -> tuple[WholePixels, Shape]:
    checked = _check_values(path, values)
    return WholePixels(checked), (checked.shape[0], checked.shape[1])


def _refuse_channels(path: Path, channels: int) -> EvaluationError:
    return EvaluationError(
        f"{path}: has {channels} channels, and labels have one, the number of the class or of the "
        "object; convert the colours to numbers first"
    )


def _check_values(path: Path, values: NDArray[Any]) -> NDArray[np.integer[Any]]:
    if values.ndim != 2:
        raise _refuse_channels(path, values.shape[-1])
    _check_dtype(path, values.dtype)
    return _as_numbers(values)


def _as_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Return booleans as 0 and 1; Pillow's are bytes of 255."""
    return (values.view(np.uint8) > 0).astype(np.uint8) if values.dtype == np.bool_ else values


def _check_dtype(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biu":
        raise EvaluationError(f"{path}: its pixels are {dtype}; labels are whole numbers")
