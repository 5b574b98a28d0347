"""Loading tissue masks from files: images (`mask_images`), or outlines that are drawn here."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from wsi_unet.annotations.polygons import Ring, rasterise
from wsi_unet.annotations.reading import HEAD_BYTES, looks_like_annotations, read_annotations
from wsi_unet.errors import AnnotationError, MaskError, os_errors_as
from wsi_unet.geometry import Box, Shape
from wsi_unet.locations import Location
from wsi_unet.slides.slide import Slide
from wsi_unet.slides.tissue.mask import TissueMask
from wsi_unet.slides.tissue.mask_images import MAX_CELLS, read_mask_image


def load_mask(path: str | os.PathLike[str] | Location, slide: Slide) -> TissueMask:
    """Load a tissue mask from a file.

    Args:
        path: a file on a disk: a PNG or TIFF that covers the slide's extent (non-zero is tissue),
            or GeoJSON or ASAP XML with polygons in level-0 px.
        slide: the slide that it belongs to.

    Returns:
        (rows, columns) bool, stretched over the slide.

    Raises:
        MaskError: it can't be read, holds no polygon, or lies beside the slide.
    """
    location = Location.parse(path)
    if location.is_url:
        raise MaskError(f"{location}: a mask must be a file on a disk; copy it there")
    return read_mask(location.path, slide.shape)


def read_mask(path: Path, shape: Shape) -> TissueMask:
    """Read a mask that is an image or outlines; the format is detected from the content.

    Args:
        path: an image, GeoJSON or ASAP XML.
        shape: (rows, columns) of the slide's level 0, px.

    Returns:
        (rows, columns) bool, at most `MAX_CELLS` per side, stretched over the slide.

    Raises:
        MaskError: it can't be read, is of neither kind, or marks nothing of the slide.
    """
    with os_errors_as(MaskError, path), path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not looks_like_annotations(head):
        return read_mask_image(path, head)
    try:
        annotations = read_annotations(path)
    except AnnotationError as error:
        raise MaskError(str(error)) from error
    polygons = (polygon for annotation in annotations for polygon in annotation.polygons)
    return draw_mask(polygons, shape, path)


def draw_mask(polygons: Iterable[Sequence[Ring]], shape: Shape, path: Path) -> TissueMask:
    """Draw a mask: the cells whose centre lies in any of the polygons.

    Args:
        polygons: the rings of each, (y, x) in level-0 px; holes by the even-odd rule.
        shape: (rows, columns) of the slide's level 0, px.
        path: the file they come from, for the message.

    Raises:
        MaskError: the polygons mark nothing of the slide.
    """
    cell = max(1, math.ceil(max(shape) / MAX_CELLS))
    size = -(-shape[0] // cell), -(-shape[1] // cell)
    scale = size[0] / shape[0], size[1] / shape[1]
    mask = np.zeros(size, np.bool_)
    for rings in polygons:
        drawn = rasterise([ring * scale for ring in rings], Box.from_shape(size))
        if drawn is not None:
            box, inside = drawn
            mask[box.slices()] |= inside
    if not mask.any():
        raise MaskError(
            f"{path}: no polygon covers any of the slide ({shape[1]} x {shape[0]} px); coordinates "
            "must be (x, y) pixels of level 0, not µm and not of another level"
        )
    return mask
