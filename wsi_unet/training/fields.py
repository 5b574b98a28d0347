"""A field: one image or slide with what is true of it, on a grid of the pixel size to train at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape

IGNORED = 255
"""Label of pixels that count for nothing: unknown, or told to be ignored."""

NOTHING = 254
"""Label of pixels known to be of no class, where there is no background class."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A window of a field.

    Attributes:
        image: (h, w, 3) RGB.
        labels: (h, w), the class's index among the recipe's, `IGNORED` or `NOTHING`.
        separation: (h, w), what a pixel between two objects weighs more; zeros where the recipe
            wants none.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    separation: NDArray[np.float32]


class Field(Protocol):
    """One image or slide with what is true of it."""

    @property
    def name(self) -> str:
        """For messages and the card: the file."""

    @property
    def patient(self) -> str:
        """Whose it is; what is of one patient is never parted by a split."""

    @property
    def source(self) -> int:
        """The number of its source in the recipe."""

    @property
    def shape(self) -> Shape:
        """(rows, columns) of the grid, px."""

    @property
    def amounts(self) -> Mapping[int, float]:
        """Pixels of each class, by index; of slides, about."""

    @property
    def areas(self) -> Sequence[Box]:
        """What is known of it, in boxes of at most 2048 px per side, px of the grid."""

    def read(self, window: Box) -> Piece:
        """Return a window, which may reach beyond the field: it is mirrored there.

        Raises:
            SlideError: the image can't be read there.
        """

    def point(self, index: int | None, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random pixel (y, x) of a class; None: of all that is known."""
