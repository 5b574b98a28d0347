"""What shifting an image, and cutting it, changes in the output of an unknown network."""

from __future__ import annotations

from wsi_unet.models.probing.accepted_sides import LARGEST_PERIOD, AcceptedSides
from wsi_unet.models.probing.probed_network import ProbedNetwork, measure_range

ROOM = 32
"""Rows and columns that are compared at least, px."""

PERIODS = tuple(2**power for power in range(LARGEST_PERIOD.bit_length()))

ABOVE_FLOOR = 4.0
"""How much more than the largest period a shift by a smaller one may change: rounding varies."""


class ShiftComparison:
    """Compares outputs of an image and of the same image shifted.

    Args:
        subject: the network.
        sides: images that it takes.
        before: context above and left of what is compared, px of the input.
        after: the same below and right of it. Of both there is less where the only image that
            the network takes has no room for them.
    """

    def __init__(
        self, subject: ProbedNetwork, sides: AcceptedSides, before: int, after: int
    ) -> None:
        self._subject = subject
        self._side = sides.at_least(before + LARGEST_PERIOD + ROOM + after)
        self._image = subject.image(self._side + LARGEST_PERIOD)
        self.output = subject.run(self._image[:, :, : self._side, : self._side])
        self._spread = float(measure_range(self.output))
        # In px of the output.
        spare = max(0, self.output.shape[1] - LARGEST_PERIOD - ROOM)
        self._before = min(before - sides.shrink, spare // 2)
        self._after = min(after - sides.shrink, spare // 2)

    def period(self) -> tuple[int, float]:
        """Return the smallest period, px, and its deviation; of several bad ones a good one.

        What a shift by the largest changes is the floor: a bottleneck of little weight changes
        less than the tolerance, but more than that.
        """
        found = {PERIODS[-1]: self.deviation(PERIODS[-1])}
        floor = found[PERIODS[-1]]
        if floor <= self._subject.tolerance:
            limit = max(ABOVE_FLOOR * floor, self._subject.rounding)
            low, high = 0, len(PERIODS) - 1
            while low < high:
                middle = (low + high) // 2
                found[PERIODS[middle]] = self.deviation(PERIODS[middle])
                exact = found[PERIODS[middle]] <= limit
                low, high = (low, middle) if exact else (middle + 1, high)
            return PERIODS[high], found[PERIODS[high]]
        found |= {period: self.deviation(period) for period in PERIODS[:-1]}
        return choose_best(found), found[choose_best(found)]

    def deviation(self, shift: int) -> float:
        """Return what a shift by so many px, down and right, changes; and each way alone."""
        return max(self._shifted(shift, shift), self._shifted(shift, 0))

    def _shifted(self, down: int, right: int) -> float:
        side = self._side
        part = self._image[:, :, down : down + side, right : right + side]
        moved = self._subject.run(part)
        end, first = moved.shape[1] - self._after, self._before
        ours = self.output[:, first + down : end, first + right : end]
        theirs = moved[:, first : end - down, first : end - right]
        return float((ours - theirs).abs().max()) / self._spread


def choose_best(deviations: dict[int, float]) -> int:
    """Return, of periods that all change something, the smallest that changes about the least."""
    least = min(deviations.values())
    return min(period for period, found in deviations.items() if found <= 2 * least)


def compare_sizes(
    subject: ProbedNetwork, sides: AcceptedSides, before: int, after: int, period: int
) -> float:
    """Return what cutting the image changes in what has all its context.

    The smaller part is as long as a window with an odd number of periods in it; where the network
    doesn't take that, infinity is returned.
    """
    if sides.only:
        return 0.0
    side = before + (ROOM // period | 1) * period + after
    image = subject.image(sides.at_least(side + period))
    large = subject.run(image)
    try:
        small = subject.run(image[:, :, :side, :side])
    except Exception:  # of whatever type: other people's networks
        return float("inf")
    if small.shape[1:] != (side - 2 * sides.shrink,) * 2:
        return float("inf")
    kept = small.shape[1] - (after - sides.shrink)
    difference = (large[:, :kept, :kept] - small[:, :kept, :kept]).abs().max()
    return float(difference / measure_range(large))
