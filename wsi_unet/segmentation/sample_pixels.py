"""Pixels to try a model on: a slide's own tissue, or synthetic tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_unet.geometry import BlockGrid, Box
from wsi_unet.models.paths import AnyPath
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import choose_resampling, open_raster, read_mirrored
from wsi_unet.slides.tissue.detection import find_tissue
from wsi_unet.slides.tissue.mask import mask_in_box

if TYPE_CHECKING:
    from wsi_unet.models.spec import ModelSpec

SCALES = (0.0, 1.5, 4.0, 12.0)
"""Standard deviations, px, by which the layers of noise are blurred that make synthetic tissue."""


def read_tissue_sample(path: AnyPath, spec: ModelSpec, side: int) -> NDArray[np.uint8]:
    """Return the square of a slide with the most tissue, on the model's pixel grid.

    Args:
        path: path or URL of a slide.
        spec: the model's description; if a pixel size isn't known, the slide isn't resampled.
        side: side of the square, px; beyond the slide's edge it is mirrored.

    Returns:
        RGB, uint8 (side, side, 3).

    Raises:
        SlideError: the slide can't be opened or read.
    """
    with open_slide(path) as slide:
        ratio = (1.0, 1.0)
        if spec.mpp is not None and slide.mpp is not None:
            ratio = (spec.mpp / slide.mpp.y, spec.mpp / slide.mpp.x)
        raster = open_raster(slide, choose_resampling(slide, ratio))
        mask = find_tissue(slide)
        grid = BlockGrid(raster.shape, side)
        corners = (grid.core(index) for index in grid)
        boxes = [Box(box.y0, box.x0, box.y0 + side, box.x0 + side) for box in corners]
        whole = Box.from_shape(raster.shape)
        tissue = [
            mask_in_box(mask, inside, raster.shape).mean() * inside.area
            for inside in (box.intersection(whole) for box in boxes)
        ]
        return read_mirrored(raster, boxes[int(np.argmax(tissue))])


def make_tissue_sample(side: int) -> NDArray[np.uint8]:
    """Return synthetic tissue: noise at several scales in the colours of an H&E stain.

    Args:
        side: side of the image, px.

    Returns:
        RGB, uint8 (side, side, 3), the same at every call.
    """
    random = np.random.default_rng(0)
    texture = np.zeros((side, side, 3))
    for scale in SCALES:
        layer = random.normal(size=(side, side, 3))
        if scale:
            layer = ndimage.gaussian_filter(layer, (scale, scale, 0), mode="wrap")
        texture += layer / layer.std()
    colours = np.array([190, 140, 185]) + texture / len(SCALES) * np.array([60, 70, 50])
    pixels: NDArray[np.uint8] = colours.clip(0, 255).round().astype(np.uint8)
    return pixels
