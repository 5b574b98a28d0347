"""The slide that labels are of, read on their pixel grid: the pixels that the network saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wsi_unet.errors import OutputError, SlideError
from wsi_unet.geometry import Box, Shape
from wsi_unet.labels.documents import Count, Positive, Side, StoredDocument, Text
from wsi_unet.labels.pyramid import MOST_LEVELS
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import Raster, Resampling, open_raster
from wsi_unet.slides.slide import Slide

WITHOUT = "or measure shapes alone, which need no slide"


class SlideReference(StoredDocument):
    """Where a run found its slide, how it is opened, and what identifies it.

    Attributes:
        path: path or URL of the slide.
        reader: the reader that opens it.
        fingerprint: hash of its content.
        series: the image of the file that was asked for; None if it was the largest.
        origin: (y, x) level-0 px at which the area that was scanned begins; None in earlier runs,
            which don't say it.
    """

    path: str
    reader: Text
    fingerprint: Text
    series: Text | None = None
    origin: tuple[Count, Count] | None = None


class Sampling(StoredDocument):
    """How the labels' pixel grid is read from the slide; see `Resampling`."""

    downsample: tuple[Positive, Positive] = (1.0, 1.0)
    level: Annotated[int, Field(ge=0, lt=MOST_LEVELS)] = 0
    ratio: tuple[Positive, Positive] = (1.0, 1.0)
    shape: tuple[Side, Side] | None = None


@dataclass(frozen=True)
class SlideGrid:
    """The slide of some labels, and their pixel grid on it.

    Attributes:
        reference: the slide; None where the run doesn't say it.
        sampling: how the grid is read from it.
        shape: (rows, columns) of the labels, px.
    """

    reference: SlideReference | None
    sampling: Sampling
    shape: Shape

    def identify(self) -> dict[str, Any]:
        """Return what decides the pixels beside the slide's content, as JSON-able values."""
        return {
            "reader": None if self.reference is None else self.reference.reader,
            "series": None if self.reference is None else self.reference.series,
            "sampling": [self.sampling.level, *self.sampling.ratio],
        }


@dataclass(frozen=True, eq=False)
class SlidePixels:
    """An open slide on a pixel grid; several threads may read at once.

    Attributes:
        grid: the grid.
        slide: the slide.
        raster: its pixels on the grid.
    """

    grid: SlideGrid
    slide: Slide
    raster: Raster

    @classmethod
    def open(cls, grid: SlideGrid) -> Self:
        """Open the slide that a run was about.

        Raises:
            SlideError: it can't be opened.
            OutputError: nothing says where it is, or it isn't the same any more.
        """
        reference = grid.reference
        if reference is None:
            raise OutputError(
                "nothing says which slide the labels are of, so intensities can't be measured; "
                f"segment it again, {WITHOUT}"
            )
        path = reference.path
        try:
            slide = open_slide(path, reader=reference.reader, series=reference.series)
        except SlideError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise SlideError(
                f"{path}: the slide, which intensities are measured on, can't be opened "
                f"({reason}); put it back, {WITHOUT}"
            ) from error
        try:
            return cls(grid, slide, cls._open_raster(slide, reference, grid))
        except BaseException:
            slide.close()
            raise

    @staticmethod
    def _open_raster(slide: Slide, reference: SlideReference, grid: SlideGrid) -> Raster:
        sampling, changed = grid.sampling, slide.fingerprint() != reference.fingerprint
        try:
            raster = open_raster(
                slide,
                Resampling(sampling.level, sampling.ratio, grid.shape, sampling.downsample),
            )
            changed |= raster.shape != grid.shape or sampling.shape not in (None, grid.shape)
        except ValueError:
            changed = True
        if changed:
            raise OutputError(
                f"{reference.path} isn't the slide that was segmented, so its intensities aren't "
                f"those of the labels; put that slide there, {WITHOUT}"
            )
        return raster

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of its channels."""
        return ("red", "green", "blue") if self.slide.colours == 3 else ("grey",)

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box inside the grid; grey is repeated.

        Raises:
            SlideError: the slide can't be read there.
        """
        return self.raster.read(box)

    def close(self) -> None:
        """Close the slide, once reads in progress have ended."""
        self.slide.close()
