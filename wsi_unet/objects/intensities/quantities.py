"""What is measured of the pixels of objects, and its mean and deviation from exact sums.

Values are whole numbers, so that their sums are exact: the same in any order, whatever the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Measured = Literal["intensity", "stain"]
"""What is measured on the slide."""

EXACT = 1 << 17
"""Most pixels of an object whose deviation is surely found in 64 bits: values are below 2^22."""


@dataclass(frozen=True)
class Quantity:
    """A number that every pixel of an object has.

    Attributes:
        name: its name, in those of columns.
        unit: what 1 of the whole numbers means.
        deviation: whether the standard deviation is measured beside the mean.
    """

    name: str
    unit: float = 1.0
    deviation: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that it gives."""
        if not self.deviation:
            return (self.name,)
        return f"mean_{self.name}", f"sd_{self.name}"


PROBABILITY = Quantity("probability", 1 / 255, deviation=False)
"""The probability of the object's own class, as it is stored: 0 to 255 for 0 to 1."""


def finish_values(
    pixels: NDArray[Any], sums: NDArray[Any], quantities: Sequence[Quantity]
) -> dict[str, NDArray[np.float64]]:
    """Return means and standard deviations (n,) of objects, by column.

    Deviations are those of the pixels themselves, divided by their number ("population").

    Args:
        pixels: (n,) number of pixels of each object.
        sums: (n, 2k) sums of k values, and then of their squares.
        quantities: the k quantities.
    """
    totals, squares = np.hsplit(sums, 2)
    if pixels.dtype == object or pixels.max(initial=0) > EXACT:
        pixels, totals, squares = (each.astype(object) for each in (pixels, totals, squares))
    columns = {}
    for number, quantity in enumerate(quantities):
        total, square = totals[:, number], squares[:, number]
        columns[quantity.columns[0]] = _divide(total, pixels) * quantity.unit
        if quantity.deviation:
            columns[quantity.columns[1]] = _find_deviation(pixels, total, square) * quantity.unit
    return columns


def _find_deviation(
    pixels: NDArray[Any], total: NDArray[Any], square: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the standard deviations of whole numbers from their exact sums.

    They are taken about the whole number next to the mean, so that hardly anything cancels out.
    """
    near = (2 * total + pixels) // (2 * pixels)
    rest = total - near * pixels
    about = square - 2 * near * total + pixels * near * near
    variance = about.astype(np.float64) - _divide(rest * rest, pixels)
    return np.asarray(np.sqrt(np.maximum(variance / pixels.astype(np.float64), 0.0)))


def _divide(numerator: NDArray[Any], pixels: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(numerator.astype(np.float64) / pixels.astype(np.float64))
