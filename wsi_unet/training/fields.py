"""Fields: images or slides with their ground truth, on a grid of the training's pixel size.

The loop and the augmentation know fields by this protocol alone; `wsi_unet.training.dataset` reads
them from files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box, Shape

IGNORED = 255
"""Label of ignored pixels: their class is unknown, or the recipe ignores it."""

NOTHING = 254
"""Label of pixels known to be of no class, if there is no background class."""


@dataclass(frozen=True, eq=False)
class FieldWindow:
    """A window of a field.

    Attributes:
        image: (h, w, 3) RGB.
        labels: (h, w) index of the class in the recipe, `IGNORED` or `NOTHING`.
        separation: (h, w) extra weight of pixels between objects; zeros if the recipe wants none.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    separation: NDArray[np.float32]


class TrainingField(Protocol):
    """An image or slide with its ground truth, read in windows."""

    @property
    def name(self) -> str:
        """Name for messages and the model card: the image's path."""

    @property
    def patient(self) -> str:
        """Patient that the image is of; all fields of a patient are on one side of a split."""

    @property
    def source(self) -> int:
        """Number of the data source in the recipe."""

    @property
    def shape(self) -> Shape:
        """(rows, columns) of the grid, px."""

    @property
    def amounts(self) -> Mapping[int, float]:
        """Number of pixels of each class, by index; estimated for large slides."""

    @property
    def areas(self) -> Sequence[Box]:
        """Boxes of at most 2048 px per side that cover all pixels with known labels."""

    def read(self, window: Box) -> FieldWindow:
        """Return a window; beyond the field's edges, the field is mirrored.

        Raises:
            SlideError: the image can't be read there.
        """

    def point(self, index: int | None, rng: np.random.Generator) -> tuple[int, int]:
        """Return a random pixel (y, x) of a class; None: of all pixels with known labels."""
