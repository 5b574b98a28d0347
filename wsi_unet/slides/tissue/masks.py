"""Masks that somebody made: outlines, drawn here, and images (`mask_rasters`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.polygons import Ring, inside
from wsi_unet.annotations.reading import HEAD, begins_like_annotations, read_annotations
from wsi_unet.errors import AnnotationError, MaskError
from wsi_unet.geometry import Box, Shape
from wsi_unet.slides.tissue.mask_rasters import MOST_CELLS, read_raster


def read_mask(path: Path, shape: Shape) -> NDArray[np.bool_]:
    """Read a mask; what it is follows from its content.

    Args:
        path: a raster, GeoJSON or ASAP XML.
        shape: (rows, columns) of the slide's level 0, px.

    Returns:
        (rows, columns) bool, at most `MOST_CELLS` per side, stretched over the slide.

    Raises:
        MaskError: it can't be read, is neither, or marks nothing of the slide.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise MaskError(f"{path}: the mask can't be read: {error.strerror or error}") from error
    if not begins_like_annotations(head):
        return read_raster(path, head)
    try:
        annotations = read_annotations(path)
    except AnnotationError as error:
        raise MaskError(str(error)) from error
    return draw((polygon for one in annotations for polygon in one.polygons), shape, path)


def draw(polygons: Iterable[Sequence[Ring]], shape: Shape, path: Path) -> NDArray[np.bool_]:
    """Return a mask of the cells whose centre lies in any of the polygons.

    Args:
        polygons: for each its rings, (y, x) in level-0 px; holes by the even-odd rule.
        shape: (rows, columns) of the slide's level 0, px.
        path: for the message.

    Raises:
        MaskError: the polygons mark nothing of the slide.
    """
    cell = max(1, math.ceil(max(shape) / MOST_CELLS))
    size = -(-shape[0] // cell), -(-shape[1] // cell)
    scale = size[0] / shape[0], size[1] / shape[1]
    mask = np.zeros(size, np.bool_)
    for rings in polygons:
        found = inside([ring * scale for ring in rings], Box.of_shape(size))
        if found is not None:
            mask[found[0].slices()] |= found[1]
    if not mask.any():
        raise MaskError(
            f"{path}: no polygon covers any of the slide ({shape[1]} x {shape[0]} px); coordinates "
            "must be (x, y) pixels of level 0, not µm and not of another level"
        )
    return mask
