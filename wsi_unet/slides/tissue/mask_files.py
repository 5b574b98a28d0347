"""Loading tissue masks from files: images (`mask_images`), or outlines that are drawn here."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from wsi_unet.annotations.drawing import PolygonEdges, check_drawable, draw_union
from wsi_unet.annotations.polygons import Polygon
from wsi_unet.annotations.reading import HEAD_BYTES, looks_like_annotations, read_annotations
from wsi_unet.errors import AnnotationError, MaskError, os_errors_as
from wsi_unet.geometry import Box, Shape
from wsi_unet.locations import Location
from wsi_unet.logs import warn
from wsi_unet.regular_files import open_regular
from wsi_unet.slides.slide import Slide
from wsi_unet.slides.tissue.mask import TissueMask
from wsi_unet.slides.tissue.mask_images import MAX_CELLS, read_mask_image
from wsi_unet.wording import write_size


def load_mask(path: str | os.PathLike[str] | Location, slide: Slide) -> TissueMask:
    """Load a tissue mask from a file.

    Args:
        path: a file on a disk: an image that covers the slide's extent (whatever isn't black is
            tissue), or GeoJSON or ASAP XML with polygons in level-0 px.
        slide: the slide that it belongs to.

    Returns:
        (rows, columns) bool, stretched over the slide.

    Raises:
        MaskError: it can't be read, has another shape than the slide, holds no polygon, or lies
            beside the slide.
    """
    location = Location.parse(path)
    if location.is_url:
        raise MaskError(f"{location}: a mask must be a file on a disk; copy it there")
    return read_mask(location.path, slide.shape)


def read_mask(path: Path, shape: Shape) -> TissueMask:
    """Read a mask that is an image or outlines; the format is detected from the content.

    Outlines that cover nothing are left out, with a warning.

    Args:
        path: an image, GeoJSON or ASAP XML.
        shape: (rows, columns) of the slide's level 0, px.

    Returns:
        (rows, columns) bool, at most `MAX_CELLS` per side, stretched over the slide.

    Raises:
        MaskError: it can't be read, is of neither kind, has another shape than the slide, or marks
            nothing of it.
    """
    with os_errors_as(MaskError, path), open_regular(path) as file:
        head = file.read(HEAD_BYTES)
    if not looks_like_annotations(head):
        return read_mask_image(path, head, shape)
    try:
        read = read_annotations(path)
        polygons = [polygon for annotation in read.annotations for polygon in annotation.polygons]
        mask = draw_mask(polygons, shape, path)
    except AnnotationError as error:
        raise MaskError(str(error)) from error
    if read.left_out:
        warn(f"{path}: {read.left_out}")
    return mask


def draw_mask(polygons: Sequence[Polygon], shape: Shape, path: Path) -> TissueMask:
    """Draw a mask: the cells whose centre lies in any of the polygons.

    Args:
        polygons: the rings of each, (y, x) in level-0 px; holes by the even-odd rule.
        shape: (rows, columns) of the slide's level 0, px.
        path: the file they come from, for the message.

    Raises:
        MaskError: the polygons mark nothing of the slide.
        AnnotationError: they are too intricate to be drawn.
    """
    cell = max(1, math.ceil(max(shape) / MAX_CELLS))
    size = -(-shape[0] // cell), -(-shape[1] // cell)
    scale = size[0] / shape[0], size[1] / shape[1]
    box = Box.from_shape(size)
    edges = PolygonEdges.from_polygons(
        [tuple(ring * scale for ring in polygon) for polygon in polygons]
    )
    check_drawable(path, edges, box)
    mask = draw_union(edges, box)
    if not mask.any():
        raise MaskError(
            f"{path}: no polygon covers any of the slide ({write_size(shape)}); coordinates "
            "must be (x, y) pixels of level 0, not µm and not of another level"
        )
    return mask
