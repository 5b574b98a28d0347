"""What finding objects will cost, from how long it took elsewhere: nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass

PIXELS_PER_SECOND = 5e6
"""Label pixels per second in which one process finds the objects of tissue full of nuclei (see
`benchmarks/objects.py`): what is sparser takes less."""

BYTES_PER_PIXEL = 0.3
"""Bytes of the table per label pixel of such tissue."""


@dataclass(frozen=True)
class ObjectCosts:
    """What finding the objects of a run needs.

    Attributes:
        seconds: estimated time.
        expected_bytes: what the tables of real slides stay below.
    """

    seconds: float
    expected_bytes: int

    @classmethod
    def estimate(cls, pixels: int, groups: int, processes: int) -> ObjectCosts:
        """Return the costs for labels in which so many pixels are predicted.

        Args:
            pixels: predicted pixels.
            groups: number of label groups.
            processes: number of worker processes.
        """
        total = pixels * groups
        return cls(total / (PIXELS_PER_SECOND * processes), int(total * BYTES_PER_PIXEL))
