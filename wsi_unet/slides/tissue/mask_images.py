"""Masks that are images of any size, reduced while they are read so that no tissue is lost.

A mask is stretched over the slide, so one as large as the slide says more than a run can use. A
mask of H rows is reduced to R rows, where row r is tissue if any row of the full mask is that
overlaps it: rows floor(r·H/R) to ceil((r+1)·H/R) - 1. The same holds for columns. So a pixel of
the slide whose centre lies in tissue of the full mask lies in tissue of the reduced one too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_unet.errors import MaskError, first_line
from wsi_unet.geometry import Shape
from wsi_unet.image_files import MALFORMED, PNG_HEAD, TIFF_HEADS, open_image
from wsi_unet.slides.library_messages import capture_library_messages
from wsi_unet.slides.tissue.mask import TissueMask

MAX_CELLS = 8192
"""Cells along the longer side of a mask."""
MAX_PIXELS = 1 << 36
"""Pixels that a TIFF mask may have: more than any slide has."""
QUICK_PIXELS = 1 << 30
"""Pixels that are decoded within seconds; of larger pyramids a coarse level is read."""
MAX_DECODED = 1 << 29
"""Pixels of an image, or bytes of a TIFF's tile or strip, that may be decoded in one go."""
PIECE_PIXELS = 1 << 24
"""Pixels that are reduced at once."""
_ADVICE = f"save it as a tiled TIFF, or smaller: {MAX_CELLS} px along its longer side are enough"


class ReducedMask:
    """A mask of at most `MAX_CELLS` cells per side, filled piece by piece."""

    def __init__(self, shape: Shape) -> None:
        """Start with an empty mask.

        Args:
            shape: (rows, columns) of the mask as it is stored, px.
        """
        side = math.ceil(max(shape) / MAX_CELLS)
        self._shape = shape
        self.mask = np.zeros((-(-shape[0] // side), -(-shape[1] // side)), np.bool_)

    def add(self, marked: NDArray[np.bool_], y: int, x: int) -> None:
        """Add a piece (h, w) whose first pixel is (y, x) of the stored mask."""
        if not marked.any():
            return
        top, rows = _any_rows(marked, y, self._shape[0], self.mask.shape[0])
        left, columns = _any_rows(
            np.ascontiguousarray(rows.T), x, self._shape[1], self.mask.shape[1]
        )
        height, width = columns.shape[::-1]
        self.mask[top : top + height, left : left + width] |= columns.T


def _any_rows(
    marked: NDArray[np.bool_], start: int, side: int, cells: int
) -> tuple[int, NDArray[np.bool_]]:
    """Reduce rows from `start` on, of `side` rows, to the cells of `cells` that overlap them.

    Returns:
        The first cell, and (number of cells, columns) bool.
    """
    if cells == side:
        return start, marked
    index = np.arange(start, start + len(marked))
    first, last = index * cells // side, -(-(index + 1) * cells // side) - 1
    reduced = np.zeros((last[-1] - first[0] + 1, marked.shape[1]), np.bool_)
    begins = np.flatnonzero(np.diff(first, prepend=-1))
    reduced[first[begins] - first[0]] = np.logical_or.reduceat(marked, begins, axis=0)
    # A row that lies across the edge of two cells marks both; no edge lies in two rows.
    across = last > first
    reduced[last[across] - first[0]] |= marked[across]
    return int(first[0]), reduced


def read_mask_image(path: Path, head: bytes) -> TissueMask:
    """Read a mask that is an image: whatever isn't zero is tissue.

    Args:
        path: a TIFF, a PNG, or anything else that Pillow reads.
        head: the first bytes of the file.

    Returns:
        (rows, columns) bool with at most `MAX_CELLS` per side. Of a pyramidal TIFF of more than
        a gigapixel a coarser level is read, as its writer reduced it.

    Raises:
        MaskError: it isn't an image, can't be decoded, has several planes or is too large.
    """
    return (
        _read_tiff(path)
        if head.startswith(TIFF_HEADS)
        else _read_image(path, head.startswith(PNG_HEAD))
    )


def _read_image(path: Path, is_png: bool) -> NDArray[np.bool_]:
    try:
        with open_image(path, png=is_png) as image:
            shape = image.height, image.width
            if math.prod(shape) > MAX_DECODED:
                raise MaskError(f"{path}: the mask, {_size(shape)}, is too large; {_ADVICE}")
            reduced = ReducedMask(shape)
            rows = max(1, PIECE_PIXELS // shape[1])
            for y in range(0, shape[0], rows):
                strip = image.crop((0, y, shape[1], min(shape[0], y + rows)))
                reduced.add(_marked_in(strip), y, 0)
    except UnidentifiedImageError as error:
        raise MaskError(
            f"{path}: the mask is neither an image (PNG, TIFF) nor annotations (GeoJSON, "
            "ASAP XML); check the file"
        ) from error
    except Image.DecompressionBombError as error:
        raise MaskError(f"{path}: the mask is too large ({error}); {_ADVICE}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise MaskError(f"{path}: the mask can't be decoded ({error})") from error
    return reduced.mask


def _marked_in(image: Image.Image) -> NDArray[np.bool_]:
    pixels = np.asarray(image.convert("RGBA") if image.mode == "P" else image)
    # An alpha channel says where the image has content; by itself it marks nothing.
    alpha = pixels.shape[2] in (2, 4) if pixels.ndim == 3 else False
    return _marked(pixels[..., :-1]) & (pixels[..., -1] > 0) if alpha else _marked(pixels)


def _marked(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(pixels != 0 if pixels.ndim == 2 else pixels.any(axis=2))


def _size(shape: Shape) -> str:
    return f"{shape[1]} x {shape[0]} px"


def _read_tiff(path: Path) -> NDArray[np.bool_]:
    import tifffile

    try:
        with capture_library_messages(), tifffile.TiffFile(path) as tiff:
            level = _choose_level(path, tiff)
            reduced = ReducedMask(level.shape[:2])
            for marked, y, x in _tiff_pieces(path, level.pages[0], level.keyframe):
                reduced.add(marked, y, x)
    except MaskError:
        raise
    except MALFORMED as error:
        reason = first_line(error)
        raise MaskError(f"{path}: the mask can't be decoded ({reason})") from error
    return reduced.mask


def _choose_level(path: Path, tiff: Any) -> Any:
    """Return the finest level that is read quickly, else the coarsest that is fine enough."""
    levels = tiff.series[0].levels if tiff.series else []
    for level in levels:
        shape, pages = level.shape, level.pages
        flat = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
        if not flat or len(pages) != 1 or pages[0] is None or 0 in shape:
            raise MaskError(f"{path}: a mask has one plane of pixels, not shape {shape}")
    if not levels:
        raise MaskError(f"{path}: a mask has one plane of pixels; this TIFF has none")
    fine = [level for level in levels if level is levels[0] or max(level.shape[:2]) >= MAX_CELLS]
    areas = [math.prod(level.shape[:2]) for level in fine]
    chosen = next((number for number, area in enumerate(areas) if area <= QUICK_PIXELS), -1)
    if areas[chosen] > MAX_PIXELS:
        raise MaskError(
            f"{path}: the mask, {_size(fine[chosen].shape[:2])}, is larger than any slide; check "
            "the file"
        )
    return fine[chosen]


def _tiff_pieces(path: Path, page: Any, frame: Any) -> Iterator[tuple[NDArray[np.bool_], int, int]]:
    """Yield pieces of the mask: (h, w) bool, and their first row and column, px."""
    rows, columns = int(frame.imagelength), int(frame.imagewidth)
    if frame.is_final:  # the pixels lie in the file as they are
        stored = frame.dtype.newbyteorder(frame.parent.byteorder)
        pixels = np.memmap(path, stored, "r", page.dataoffsets[0], frame.shape)
        step = max(1, PIECE_PIXELS // columns)
        for y in range(0, rows, step):
            yield _marked(pixels[y : y + step]), y, 0
        return
    segment = math.prod(frame.chunks) * frame.dtype.itemsize
    if segment > MAX_DECODED:
        raise MaskError(
            f"{path}: the mask is stored in pieces of {segment >> 20} MiB, too large; {_ADVICE}"
        )
    # Encoded bytes are read ahead, and each tile or strip is decoded by itself.
    for data, index, shape in page.segments(maxworkers=1, buffersize=1 << 24):
        y, x = index[2], index[3]
        height, width = min(shape[1], rows - y), min(shape[2], columns - x)
        if data is not None:
            yield _marked(data[0, :height, :width]), y, x
        elif frame.nodata:
            yield np.ones((height, width), np.bool_), y, x
