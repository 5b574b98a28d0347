"""Label images: PNGs and TIFFs whose values are classes, or numbers of objects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import EvaluationError, first_line
from wsi_unet.geometry import Box, Shape
from wsi_unet.image_files import MALFORMED, PNG_HEAD, TIFF_HEADS, open_image
from wsi_unet.slides.library_messages import capture_library_messages

MAX_WHOLE_PIXELS = 1 << 29
"""Largest image, in pixels, that is decoded as a whole."""
MAX_TILE_PIXELS = 1 << 26
"""Largest tile or strip, in pixels, of a TIFF that is larger than that."""


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
        self._path = path
        self._shape = int(page.imagelength), int(page.imagewidth)
        self._decode = page.decode
        self._dtype = page.dtype
        tile = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, 1 << 62)
        self._tile = min(int(tile[0]), self._shape[0]), min(int(tile[1]), self._shape[1])
        self._across = -(-self._shape[1] // self._tile[1])
        self._segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        self._fill = page.nodata
        if math.prod(self._tile) > MAX_TILE_PIXELS:
            raise EvaluationError(
                f"{path}: is too large to be decoded as a whole, and not tiled; save it as a tiled "
                "TIFF"
            )

    def read(self, box: Box) -> NDArray[np.integer[Any]]:
        """Return the values (h, w) of a box inside the image.

        Raises:
            EvaluationError: a tile can't be decoded.
        """
        rows, columns = self._tile
        result = np.full(box.shape, self._fill, self._dtype)
        with self._path.open("rb") as file:
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
        try:
            decoded, _, _ = self._decode(data, number)
        except MALFORMED as error:
            raise EvaluationError(f"{self._path}: tile {number} can't be decoded") from error
        return np.asarray(decoded)[0, :, :, 0]


def open_image_pixels(path: Path) -> tuple[WholePixels | TiledPixels, Shape]:
    """Open a label image, which is one plane of whole numbers.

    Returns:
        Its values, and its (rows, columns).

    Raises:
        EvaluationError: it can't be read, or is something else.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise EvaluationError(f"{path}: can't be read: {error.strerror or error}") from error
    if not head.startswith((PNG_HEAD, *TIFF_HEADS)):
        raise EvaluationError(
            f"{path}: is neither a label OME-Zarr nor a PNG or TIFF; labels can't be read from "
            "anything else"
        )
    try:
        pixels = _open_png(path) if head.startswith(PNG_HEAD) else _open_tiff(path)
    except MALFORMED as error:
        reason = first_line(error)
        raise EvaluationError(f"{path}: can't be decoded ({reason})") from error
    return pixels


def _open_png(path: Path) -> tuple[WholePixels, Shape]:
    with open_image(path, png=True) as image:
        shape = image.height, image.width
        if math.prod(shape) > MAX_WHOLE_PIXELS:
            raise EvaluationError(
                f"{path}: {shape[1]} x {shape[0]} px are too many to be decoded as a whole; save "
                "it as a tiled TIFF"
            )
        # A palette gives classes their colours: the indices are the values.
        values = np.asarray(image)
    return WholePixels(_check_values(path, values)), shape


def _open_tiff(path: Path) -> tuple[WholePixels | TiledPixels, Shape]:
    import tifffile

    with capture_library_messages(), tifffile.TiffFile(path) as tiff:
        level: Any = tiff.series[0].levels[0] if tiff.series else None
        page: Any = level.pages[0] if level is not None else None
        if page is None or len(level.pages) != 1 or len(level.shape) != 2:
            planes = "none" if level is None else f"shape {level.shape}"
            raise EvaluationError(f"{path}: labels are one plane of pixels, not {planes}")
        shape = int(level.shape[0]), int(level.shape[1])
        _check_dtype(path, np.dtype(page.dtype))
        if page.is_final:  # uncompressed: can be mapped into memory
            stored = page.dtype.newbyteorder(tiff.byteorder)
            return WholePixels(np.memmap(path, stored, "r", page.dataoffsets[0], shape)), shape
        if math.prod(shape) > MAX_WHOLE_PIXELS:
            return TiledPixels(path, page), shape
        return WholePixels(_check_values(path, level.asarray())), shape


def _check_values(path: Path, values: NDArray[Any]) -> NDArray[np.integer[Any]]:
    if values.ndim != 2:
        raise EvaluationError(
            f"{path}: has {values.shape[-1]} channels, and labels have one, the number of the "
            "class or of the object; convert the colours to numbers first"
        )
    _check_dtype(path, values.dtype)
    # Pillow's booleans are bytes of 255.
    return (values.view(np.uint8) > 0).astype(np.uint8) if values.dtype == np.bool_ else values


def _check_dtype(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biu":
        raise EvaluationError(f"{path}: its pixels are {dtype}; labels are whole numbers")
