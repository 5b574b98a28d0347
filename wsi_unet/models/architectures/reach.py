"""How far back a piece of a network's output reaches into its input: interval arithmetic.

An interval is (first, last) index along one axis of a map, both included. Each function takes an
interval of a layer's output and returns the interval of the layer's input that it depends on.
"""

from __future__ import annotations

from wsi_unet.geometry import Border, round_up

Interval = tuple[int, int]


def trace_convolution(wanted: Interval, kernel: int, stride: int = 1, padding: int = 0) -> Interval:
    """Go back through a convolution or a pooling.

    >>> trace_convolution((0, 0), 3, stride=2, padding=1)
    (-1, 1)
    """
    first, last = wanted
    return first * stride - padding, last * stride - padding + kernel - 1


def trace_transposed_convolution(
    wanted: Interval, kernel: int, stride: int, padding: int
) -> Interval:
    """Go back through a transposed convolution.

    Its input pixel i reaches the output pixels i·stride − padding + 0 … kernel − 1.

    >>> trace_transposed_convolution((0, 1), 3, stride=2, padding=1)
    (0, 1)
    """
    first, last = wanted
    return -(-(first + padding - kernel + 1) // stride), (last + padding) // stride


def trace_repetition(wanted: Interval) -> Interval:
    """Go back through doubling by repetition (nearest-neighbour upsampling)."""
    first, last = wanted
    return first // 2, last // 2


def join(one: Interval, other: Interval) -> Interval:
    """Return the interval that covers both."""
    return min(one[0], other[0]), max(one[1], other[1])


def border_reached(reached: Interval, period: int) -> Border:
    """Return the border of a same-padding network.

    Args:
        reached: the interval of the image that a core of one period, (0, period − 1), depends on.
        period: the network's period, px.
    """
    first, last = reached
    return Border(
        before=round_up(-first, period),
        after=round_up(last - period + 1, period),
        shrink=0,
        period=period,
        edge="clip",
    )
