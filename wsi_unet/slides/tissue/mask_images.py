"""Masks that are images of any size, reduced while they are read so that no tissue is lost.

What isn't black is tissue. Where programs would disagree about that, the mask is refused.

A mask is stretched over the slide, so one as large as the slide says more than a run can use. A
mask of H rows is reduced to R rows, where row r is tissue if any row of the full mask is that
overlaps it: rows floor(r·H/R) to ceil((r+1)·H/R) - 1. The same holds for columns. So a pixel of
the slide whose centre lies in tissue of the full mask lies in tissue of the reduced one too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsi_unet.errors import MaskError, foreign_errors_as
from wsi_unet.geometry import Shape
from wsi_unet.image_files import TIFF_HEADS, check_size, open_image
from wsi_unet.regular_files import open_regular
from wsi_unet.samples import (
    PALETTE,
    TRANSPOSED,
    UnclearSamplesError,
    page_orientation,
    turn_upright,
)
from wsi_unet.slides.planes import (
    GREY_MODES,
    check_palette,
    check_photometric,
    decoded_orientation,
    find_largest,
    map_pixels,
    open_tiff,
    plane_shape,
)
from wsi_unet.slides.tissue.mask import TissueMask
from wsi_unet.slides.tissue.mask_shapes import check_shape
from wsi_unet.wording import write_size

MAX_CELLS = 8192
"""Cells along the longer side of a mask."""
MAX_PIXELS = 1 << 36
"""Pixels that a TIFF mask may have: more than any slide has."""
QUICK_PIXELS = 1 << 30
"""Pixels that are decoded within seconds; of larger pyramids a coarse level is read."""
MAX_DECODED = 1 << 29
"""Bytes of a TIFF's tile or strip that may be decoded in one go."""
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

    def add_box(self, y: int, x: int, height: int, width: int) -> None:
        """Add a box that is marked throughout."""
        corners = ((y, y + height), (x, x + width))
        rows, columns = (
            slice(start * cells // side, -(-stop * cells // side))
            for (start, stop), side, cells in zip(
                corners, self._shape, self.mask.shape, strict=True
            )
        )
        self.mask[rows, columns] = True


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


def read_mask_image(path: Path, head: bytes, slide: Shape) -> TissueMask:
    """Read a mask that is an image: whatever isn't black is tissue.

    Args:
        path: a TIFF, a PNG, or anything else that Pillow reads.
        head: the first bytes of the file.
        slide: (rows, columns) of the slide that it is stretched over, px.

    Returns:
        (rows, columns) bool with at most `MAX_CELLS` per side. Of a pyramidal TIFF of more than
        a gigapixel a coarser level is read, as its writer reduced it.

    Raises:
        MaskError: it isn't an image, can't be decoded, has several planes, is too large or of
            another shape than the slide, or it is unclear what it marks.
    """
    with foreign_errors_as(MaskError, f"{path}: the mask can't be decoded"):
        try:
            if head.startswith(TIFF_HEADS):
                return _read_tiff(path, slide)
            return _read_image(path, head, slide)
        except UnclearSamplesError as error:
            raise MaskError(f"{path}: the mask {error}") from error
        except UnidentifiedImageError as error:
            raise MaskError(
                f"{path}: the mask is neither an image (PNG, TIFF) nor annotations (GeoJSON, "
                "ASAP XML); check the file"
            ) from error
        except Image.DecompressionBombError as error:
            raise MaskError(f"{path}: the mask is too large ({error}); {_ADVICE}") from error


def _read_image(path: Path, head: bytes, slide: Shape) -> TissueMask:
    with open_regular(path) as file, open_image(file, head) as image:
        shape = image.height, image.width
        if getattr(image, "n_frames", 1) > 1 or "mp" in image.info:  # the index of a JPEG's images
            raise UnclearSamplesError("holds several images; save the one that is meant alone")
        _check_decodable(path, shape)
        orientation = decoded_orientation(image, path)
        check_shape(path, shape[::-1] if orientation >= TRANSPOSED else shape, slide)
        reduced = ReducedMask(shape)
        rows = max(1, PIECE_PIXELS // shape[1])
        for y in range(0, shape[0], rows):
            strip = image.crop((0, y, shape[1], min(shape[0], y + rows)))
            reduced.add(_marked_in(strip), y, 0)
    return np.ascontiguousarray(turn_upright(reduced.mask, orientation))


def _check_decodable(path: Path, shape: Shape) -> None:
    try:
        check_size(shape, shape)
    except ValueError as error:
        raise MaskError(
            f"{path}: the mask is too large: {error}; {MAX_CELLS} px along its longer side are "
            "enough"
        ) from error


def _marked_in(image: Image.Image) -> NDArray[np.bool_]:
    if image.mode == "P":
        shown = _marked_in(image.convert("RGBA"))
        check_palette(shown, np.asarray(image))
        return shown
    # In other colour spaces (CMYK, YCbCr, Lab), black isn't zero.
    plain = image.mode in GREY_MODES or image.mode in ("RGB", "RGBA", "LA")
    pixels = np.asarray(image if plain else image.convert("RGBA"))
    # An alpha channel says where the image has content; by itself it marks nothing.
    alpha = pixels.shape[2] in (2, 4) if pixels.ndim == 3 else False
    return _marked(pixels[..., :-1]) & (pixels[..., -1] > 0) if alpha else _marked(pixels)


def _marked(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels aren't 0.

    Raises:
        UnclearSamplesError: some are below 0, infinite or no numbers.
    """
    if pixels.dtype.kind in "if" and pixels.size:
        least = pixels.min()
        if not (least >= 0 and np.isfinite(pixels.max())):
            held = least if not least >= 0 else pixels.max()
            raise UnclearSamplesError(
                f"holds {held}, and it is unclear whether that is tissue; save it with 0 where "
                "there is none, and 1 where there is"
            )
    elif pixels.dtype.kind not in "biuf":
        raise UnclearSamplesError(f"holds {pixels.dtype} numbers; save it as whole numbers from 0")
    return np.asarray(pixels != 0 if pixels.ndim == 2 else pixels.any(axis=2))


def _read_tiff(path: Path, slide: Shape) -> TissueMask:
    with open_tiff(path, MaskError) as tiff:
        series = find_largest(tiff)
        levels = [] if series is None else series.levels
        level = _choose_level(path, levels)
        page, shape = level.keyframe, _shape(level)
        check_photometric(page)
        orientation = page_orientation(page)
        whole = _shape(levels[0])
        check_shape(path, whole[::-1] if orientation >= TRANSPOSED else whole, slide)
        reduced = ReducedMask(shape)
        for pixels, y, x in _tiff_pieces(path, level):
            reduced.add(_marked_of(page, pixels), y, x)
        for y, x, height, width in _missing_pieces(level.pages[0], page):
            reduced.add_box(y, x, height, width)
    return np.ascontiguousarray(turn_upright(reduced.mask, orientation))


def _marked_of(page: Any, pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pixels of a TIFF's page aren't black."""
    if page.photometric == PALETTE:
        shown: NDArray[np.bool_] = (np.asarray(page.colormap).max(axis=0) > 0)[pixels]
        check_palette(shown, pixels)
        return shown
    return _marked(pixels)


def _shape(level: Any) -> Shape:
    """Return (rows, columns) of a level of a TIFF."""
    return int(level.keyframe.imagelength), int(level.keyframe.imagewidth)


def _choose_level(path: Path, levels: Sequence[Any]) -> Any:
    """Return the finest level that is read quickly, else the coarsest that is fine enough."""
    for level in levels:
        if plane_shape(level, samples=(1, 3)) is None:
            raise MaskError(f"{path}: a mask has one plane of pixels, not shape {level.shape}")
    if not levels:
        raise MaskError(f"{path}: a mask has one plane of pixels; this TIFF has none")
    fine = [level for level in levels if level is levels[0] or max(_shape(level)) >= MAX_CELLS]
    areas = [math.prod(_shape(level)) for level in fine]
    chosen = next((number for number, area in enumerate(areas) if area <= QUICK_PIXELS), -1)
    if areas[chosen] > MAX_PIXELS:
        raise MaskError(
            f"{path}: the mask, {write_size(_shape(fine[chosen]))}, is larger than any slide; "
            "check the file"
        )
    return fine[chosen]


def _tiff_pieces(path: Path, level: Any) -> Iterator[tuple[NDArray[Any], int, int]]:
    """Yield the stored pieces: (h, w) or (h, w, 3), and their first row and column, px."""
    page, frame = level.pages[0], level.keyframe
    rows, columns = int(frame.imagelength), int(frame.imagewidth)
    if frame.is_final:  # the pixels lie in the file as they are
        pixels = map_pixels(path, level)
        step = max(1, PIECE_PIXELS // columns)
        for y in range(0, rows, step):
            yield pixels[y : y + step], y, 0
        return
    segment = math.prod(frame.chunks) * frame.dtype.itemsize
    if segment > MAX_DECODED:
        raise MaskError(
            f"{path}: the mask is stored in pieces of {segment >> 20} MiB, too large; {_ADVICE}"
        )
    # Encoded bytes are read ahead, and each tile or strip is decoded by itself.
    for data, index, shape in page.segments(maxworkers=1, buffersize=1 << 24):
        if data is not None:
            y, x = index[2], index[3]
            height, width = min(shape[1], rows - y), min(shape[2], columns - x)
            pixels = data[0, :height, :width]
            yield pixels[..., 0] if pixels.shape[-1] == 1 else pixels, y, x


def _missing_pieces(page: Any, frame: Any) -> Iterator[tuple[int, int, int, int]]:
    """Yield first row and column, height and width of pieces that aren't stored, but marked."""
    fill = np.asarray(frame.nodata if frame.nodata is not None else 0, frame.dtype)
    if frame.is_final or not _marked_of(frame, fill.reshape(1, 1)).any():
        return
    rows, columns = int(frame.imagelength), int(frame.imagewidth)
    height, width = frame.chunks[:2]
    across = -(-columns // width)
    for number, length in enumerate(page.databytecounts):
        if not length:
            y, x = number // across * height, number % across * width
            yield y, x, min(height, rows - y), min(width, columns - x)
