"""The values of pixels that are summed over objects, read from where they are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Box
from wsi_unet.objects.intensities.probabilities import StoredProbabilities
from wsi_unet.objects.intensities.quantities import PROBABILITY, Measured, Quantity
from wsi_unet.objects.intensities.slide_pixels import SlideGrid, SlidePixels
from wsi_unet.objects.intensities.stains import STAINS, unmix


@dataclass(frozen=True, eq=False)
class StoredValues:
    """Values of the pixels of some labels; several threads may read at once.

    Attributes:
        measure: what is measured on the slide: "intensity", "stain".
        slide: the open slide; None if nothing is.
        probabilities: the stored probabilities; None if there are none.
    """

    measure: tuple[Measured, ...]
    slide: SlidePixels | None
    probabilities: StoredProbabilities | None

    @classmethod
    def open(
        cls,
        measure: Collection[Measured],
        grid: SlideGrid,
        probabilities: StoredProbabilities | None,
    ) -> Self | None:
        """Open what is needed, for the caller to close; None if nothing is.

        Args:
            measure: what is measured on the slide.
            grid: the slide.
            probabilities: the stored probabilities, which are always measured.

        Raises:
            SlideError: the slide can't be opened.
            OutputError: it isn't the same any more.
            OptionError: it has no colours, so no stains.
        """
        if not measure and probabilities is None:
            return None
        slide = SlidePixels.open(grid) if measure else None
        if slide is not None and "stain" in measure and len(slide.channels) != 3:
            slide.close()
            raise OptionError(
                f"{slide.slide.path} is grey, so its stains can't be told apart; leave 'stain' out "
                "of `measure`",
                option="measure",
            )
        return cls(tuple(measure), slide, probabilities)

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is read of every pixel."""
        found: tuple[Quantity, ...] = () if self.probabilities is None else (PROBABILITY,)
        if self.slide is not None and "intensity" in self.measure:
            found += tuple(map(Quantity, self.slide.channels))
        return found + (STAINS if "stain" in self.measure else ())

    def identify(self) -> dict[str, Any]:
        """Return what decides the values but for the slide's content, as JSON-able values."""
        columns = [name for each in self.quantities for name in each.columns]
        slide = {} if self.slide is None else {"slide": self.slide.grid.identify()}
        return {"columns": columns, **slide}

    def read(
        self, box: Box, at: NDArray[np.int64], classes: NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """Return the values of pixels; see `PixelValues`."""
        values = np.empty((len(at), len(self.quantities)), np.int64)
        first = 0
        if self.probabilities is not None:
            values[:, 0] = self.probabilities.read(box, at, classes)
            first = 1
        if self.slide is not None:
            rgb = self.slide.read(box).reshape(-1, 3)[at]
            if "intensity" in self.measure:
                channels = len(self.slide.channels)
                values[:, first : first + channels] = rgb[:, :channels]
            if "stain" in self.measure:
                values[:, -len(STAINS) :] = unmix(rgb)
        return values

    def close(self) -> None:
        """Close the slide."""
        if self.slide is not None:
            self.slide.close()
