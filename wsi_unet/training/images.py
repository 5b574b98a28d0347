"""Images and slides on the grid that a network is trained at, exactly as `segment` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsi_unet.errors import RecipeError, SlideError
from wsi_unet.geometry import Shape
from wsi_unet.ground_truth.grids import Grid, Steps
from wsi_unet.slides.levels import PixelSize, check_mpp
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import Raster, Resampling, choose_resampling, open_raster
from wsi_unet.slides.slide import Slide

OPEN_SLIDE = 32 << 20
"""Bytes that a slide takes while it is open: its tile index, and windows being read."""


@dataclass(frozen=True)
class TrainingImage:
    """How an image is read at the pixel size to train at.

    Attributes:
        path: of the image or slide.
        sampling: how its grid is read.
        slide_shape: (rows, columns) of level 0, px.
        fingerprint: of the slide.
        cost: bytes that it takes while it is open, about.
    """

    path: Path
    resampling: Resampling
    slide_shape: Shape
    fingerprint: str
    cost: int

    @classmethod
    def of(cls, path: Path, slide: Slide, downsample: tuple[float, float]) -> TrainingImage:
        """Choose how an open image is read.

        Args:
            path: of the image.
            slide: the same, open.
            downsample: (y, x) level-0 px per px to train at.
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
        """Open the image; its file is closed when the raster is forgotten.

        Raises:
            SlideError: it can't be opened any more.
        """
        return open_raster(open_slide(self.path), self.resampling)

    def grid(self, stride: int = 1) -> Grid:
        """Return where pixels of the grid lie on the slide, every one or every so manieth.

        Args:
            stride: px of the grid; the pixels of the answer are as large, and lie in the middle
                of what they cover.
        """
        steps = tuple(factor * stride for factor in self.resampling.downsample)
        step = (steps[0], steps[1])
        return Grid(
            shape=(-(-self.shape[0] // stride), -(-self.shape[1] // stride)),
            pixels=Steps(((step[0] - 1) / 2, (step[1] - 1) / 2), step),
            slide=self.fingerprint,
            slide_shape=self.slide_shape,
        )


def downsample_to(
    slide: Slide, wanted: float | None, given: float | None, key: str
) -> tuple[float, float]:
    """Return (y, x) level-0 px per px to train at.

    Args:
        slide: the image.
        wanted: µm per pixel to train at; None: pixels as they are.
        given: µm per level-0 pixel, which goes before what the slide says; None: what it says.
        key: of the source in the recipe, for messages.

    Raises:
        RecipeError: the image's pixel size is needed, and unknown or absurd.
    """
    if wanted is None:
        return 1.0, 1.0
    mpp = slide.mpp if given is None else PixelSize(given, given)
    if mpp is None:
        raise RecipeError(
            f"{slide.path}: doesn't say how large its pixels are, and the recipe trains at "
            f"{wanted:g} µm; give {key}.mpp, or {key}.object_diameter if it isn't known"
        )
    try:
        check_mpp(mpp)
    except SlideError as error:
        raise RecipeError(
            f"{slide.path}: {str(error).partition(';')[0]}; give the true one with {key}.mpp"
        ) from error
    return wanted / mpp.y, wanted / mpp.x
