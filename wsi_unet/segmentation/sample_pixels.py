"""Pixels to try a model on: of a slide's tissue, or made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsi_unet.geometry import BlockGrid, Box
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import choose_resampling, open_raster, read_mirrored
from wsi_unet.slides.tissue.detection import find_tissue
from wsi_unet.slides.tissue.mask import mask_in_box

if TYPE_CHECKING:
    from wsi_unet.models.spec import ModelSpec

SCALES = (0.0, 1.5, 4.0, 12.0)
"""Deviations of the blur of each of the layers that made-up tissue is the sum of, px."""


def read_tissue_sample(path: str, spec: ModelSpec, side: int) -> NDArray[np.uint8]:
    """Return the part of a slide with the most tissue, on the model's pixel grid.

    Args:
        path: path or URL of a slide.
        spec: the model's; where the slide's pixel size isn't known, its pixels are taken as they
            are.
        side: of the part, px; beyond the slide it is mirrored.

    Returns:
        uint8 (side, side, 3), RGB.

    Raises:
        SlideError: if the slide can't be opened or read.
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
        whole = Box.of_shape(raster.shape)
        tissue = [
            mask_in_box(mask, inside, raster.shape).mean() * inside.area
            for inside in (box.intersection(whole) for box in boxes)
        ]
        return read_mirrored(raster, boxes[int(np.argmax(tissue))])


def make_tissue_sample(side: int) -> NDArray[np.uint8]:
    """Return uint8 (side, side, 3) with structure at several scales, in the colours of H&E."""
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
