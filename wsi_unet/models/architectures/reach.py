"""How far back a piece of a network's output reaches into its input: interval arithmetic.

An interval is (first, last) index along one axis of a map, both included; a function takes the
wanted interval of a layer's output and returns the interval of its input that this depends on.
"""

from __future__ import annotations

from wsi_unet.geometry import Border, round_up

Interval = tuple[int, int]


def convolution(wanted: Interval, kernel: int, stride: int = 1, padding: int = 0) -> Interval:
    """Go back through a convolution or a pooling.

    >>> convolution((0, 0), 3, stride=2, padding=1)
    (-1, 1)
    """
    first, last = wanted
    return first * stride - padding, last * stride - padding + kernel - 1


def transposed(wanted: Interval, kernel: int, stride: int, padding: int) -> Interval:
    """Go back through a transposed convolution: input i reaches i·stride − padding + 0 … kernel−1.

    >>> transposed((0, 1), 3, stride=2, padding=1)
    (0, 1)
    """
    first, last = wanted
    return -(-(first + padding - kernel + 1) // stride), (last + padding) // stride


def nearest(wanted: Interval) -> Interval:
    """Go back through doubling by repetition."""
    first, last = wanted
    return first // 2, last // 2


def union(one: Interval, other: Interval) -> Interval:
    """Return the interval that covers both."""
    return min(one[0], other[0]), max(one[1], other[1])


def clipped_border(reached: Interval, period: int) -> Border:
    """Return the border of a same-padding network, from what a core of one period reaches."""
    first, last = reached
    return Border(
        before=round_up(-first, period),
        after=round_up(last - period + 1, period),
        shrink=0,
        period=period,
        edge="clip",
    )
