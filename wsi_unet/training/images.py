"""Images and slides on the grid of the training's pixel size, read exactly as `segment` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsi_unet.errors import RecipeError, SlideError
from wsi_unet.geometry import Shape
from wsi_unet.ground_truth.grids import Grid, PixelCentres
from wsi_unet.slides.levels import PixelSize, check_mpp, format_mpp
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import Raster, Resampling, choose_resampling, open_raster
from wsi_unet.slides.slide import Slide

OPEN_SLIDE = 32 << 20
"""Memory of an open slide, bytes: its tile index, and windows being read."""


@dataclass(frozen=True)
class TrainingImage:
    """An image or slide, not open, and how it is read at the training's pixel size.

    Attributes:
        path: path of the image or slide.
        resampling: how its grid is read.
        slide_shape: (rows, columns) of level 0, px.
        fingerprint: fingerprint of the slide.
        cost: estimated memory while it is open, bytes.
    """

    path: Path
    resampling: Resampling
    slide_shape: Shape
    fingerprint: str
    cost: int

    @classmethod
    def from_slide(cls, path: Path, slide: Slide, downsample: tuple[float, float]) -> TrainingImage:
        """Choose how an open image is read.

        Args:
            path: path of the image.
            slide: the image, open.
            downsample: (y, x) level-0 px per px of the training's grid.
        """
        height, width = slide.shape
        return cls(
            path=path,
            resampling=choose_resampling(slide, downsample),
            slide_shape=slide.shape,
            fingerprint=slide.fingerprint(),
            cost=3 * height * width if slide.reader == "image" else OPEN_SLIDE,
        )

    @property
    def shape(self) -> Shape:
        """(rows, columns) of the grid, px."""
        return self.resampling.shape

    def open(self) -> Raster:
        """Open the image; its file is closed when the raster is garbage-collected.

        Raises:
            SlideError: it can't be opened any more.
        """
        return open_raster(open_slide(self.path), self.resampling)

    def grid(self, stride: int = 1) -> Grid:
        """Return the grid, or a coarser one, in the frame of the slide.

        Args:
            stride: px of the grid per px of the coarser one; each coarse pixel stands for the
                square of `stride` px per side that it is the centre of.
        """
        steps = tuple(factor * stride for factor in self.resampling.downsample)
        step = (steps[0], steps[1])
        return Grid(
            shape=(-(-self.shape[0] // stride), -(-self.shape[1] // stride)),
            pixels=PixelCentres(((step[0] - 1) / 2, (step[1] - 1) / 2), step),
            slide=self.fingerprint,
            slide_shape=self.slide_shape,
        )


def downsample_to(
    slide: Slide, wanted: float | None, given: float | None, key: str
) -> tuple[float, float]:
    """Return (y, x) level-0 px per px of the training's grid.

    Args:
        slide: the image.
        wanted: µm per pixel to train at; None: pixels as they are.
        given: µm per level-0 pixel, instead of what the slide says; None: what the slide says.
        key: key of the source in the recipe, for messages.

    Raises:
        RecipeError: the image's pixel size is needed, but unknown or implausible.
    """
    if wanted is None:
        return 1.0, 1.0
    mpp = slide.mpp if given is None else PixelSize(given, given)
    if mpp is None:
        raise RecipeError(
            f"{slide.path}: has no pixel size, which is needed to train at {format_mpp(wanted)} "
            f"µm; give {key}.mpp, or {key}.object_diameter if it isn't known"
        )
    try:
        check_mpp(mpp)
    except SlideError as error:
        raise RecipeError(
            f"{slide.path}: {str(error).partition(';')[0]}; give the true pixel size as {key}.mpp"
        ) from error
    return wanted / mpp.y, wanted / mpp.x
