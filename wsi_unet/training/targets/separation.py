"""What the background between objects weighs more, and the parting of objects that touch.

Both look only at what is near, so a piece of a map, taken with its halo, gives to the last bit what
the whole map gives; and neither depends on how the objects are numbered.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.geometry import Box

REACH = 4.4
"""The term is 0 where d1 + d2 is more than so many σ; the formula gives w0 · 6.3e-5 there."""

PART = (64, 512)
"""Sides (rows, columns) of the parts that are worked on at a time, px: they stay in the cache."""

Keys = NDArray[np.signedinteger[Any]]
"""Squared distances to objects, px², shifted left by some bits that hold the object's number."""


def halo(sigma: float) -> int:
    """Return how far around a box objects matter to its weights, px."""
    return math.ceil(REACH * sigma)


def parting_halo(px: int) -> int:
    """Return how far around a box objects matter to how they are parted in it, px."""
    return 3 * px


def separation_weights(
    instances: NDArray[Any], w0: float, sigma: float, box: Box | None = None
) -> NDArray[np.float32]:
    """Return w0 · exp(−(d1 + d2)² / 2σ²) of the background between objects.

    d1 and d2 are the Euclidean distances to the nearest pixel of the nearest and of the second
    nearest object (Ronneberger et al. 2015, equation 2). The term is there to keep objects apart,
    so it is 0 inside of them; and it is 0 where d1 + d2 > 4.4 σ, so that it depends only on what is
    near. Where objects touch there is no background to weigh: part them first.

    >>> separation_weights(np.array([[1, 0, 2]]), 10.0, 5.0).astype(int).tolist()
    [[0, 9, 0]]

    Args:
        instances: (h, w), a number above 0 for each object, 0 elsewhere.
        w0: the term's largest value.
        sigma: σ, px.
        box: the part of `instances` that is wanted; None: all. It gets what it would get in a
            larger map if `halo(sigma)` px around it are there, too.

    Returns:
        (h, w) of the box.
    """
    whole = Box(0, 0, *instances.shape)
    box = box or whole
    reach = halo(sigma)
    around = box.grow(reach, reach)
    known = around.intersection(whole)
    numbers, bits = _as_keys(instances[known.slices()], reach)
    padded = np.zeros(around.shape, numbers.dtype)
    padded[known.relative_to(around).slices()] = numbers
    weights = np.zeros(box.shape, np.float32)
    for y in range(0, box.shape[0], PART[0]):
        for x in range(0, box.shape[1], PART[1]):
            here = weights[y : y + PART[0], x : x + PART[1]]
            rows, columns = here.shape
            part = padded[y : y + rows + 2 * reach, x : x + columns + 2 * reach]
            found = part[part > 0]
            if found.size and found.min() != found.max():
                here[...] = _weights(part, bits, reach, w0, sigma)
    return weights


def _as_keys(instances: NDArray[Any], reach: int) -> tuple[Keys, int]:
    """Return the objects' numbers, in a type with room for distances, and how many bits they take.

    Numbers that leave no room are replaced by others.
    """
    distance_bits = (4 * reach * reach + 1).bit_length()
    if int(instances.max(initial=0)).bit_length() + distance_bits > 63:
        instances = np.unique(np.append(0, instances), return_inverse=True)[1][1:].reshape(
            instances.shape
        )
    bits = int(instances.max(initial=0)).bit_length()
    dtype = np.int32 if bits + distance_bits <= 31 else np.int64
    return instances.astype(dtype, copy=False), bits


def _weights(numbers: Keys, bits: int, reach: int, w0: float, sigma: float) -> NDArray[np.float32]:
    """Return the term of a part (h, w) whose `numbers` (h + 2 reach, w + 2 reach) are given."""
    rows, columns = (side - 2 * reach for side in numbers.shape)
    far = (2 * reach * reach + 1) << bits
    at_objects = np.where(numbers > 0, numbers, numbers.dtype.type(far))
    nowhere = np.broadcast_to(numbers.dtype.type(far), numbers.shape)
    nearest, second = _two_nearest(at_objects, nowhere, bits, reach)
    nearest, second = (keys.T for keys in _two_nearest(nearest.T, second.T, bits, reach))
    background = numbers[reach : reach + rows, reach : reach + columns] == 0
    near = background & (second < far)
    distance = np.sqrt(nearest[near] >> bits) + np.sqrt(second[near] >> bits)
    term = np.where(distance <= REACH * sigma, w0 * np.exp(-(distance**2) / (2 * sigma**2)), 0)
    weights = np.zeros((rows, columns), np.float32)
    weights[near] = term
    return weights


def _two_nearest(first: Keys, second: Keys, bits: int, reach: int) -> tuple[Keys, Keys]:
    """Return the keys of the nearest two objects, looking `reach` px up and down the columns.

    A squared distance is a sum over the two axes, so one axis is done after the other, as in
    Felzenszwalb and Huttenlocher 2012. Of a pixel no more is needed than its two nearest objects:
    a third one is farther away, for whoever looks along the other axis, than both.

    Args:
        first: (h + 2 reach, w), of each pixel the key of the nearest object found so far.
        second: of the same shape, of the nearest of the other objects.
        bits: of a key that hold the number.
        reach: px.

    Returns:
        The same after this axis, each (h, w).
    """
    rows = first.shape[0] - 2 * reach
    mask = (1 << bits) - 1
    steps = [((i - reach) ** 2 << bits, slice(i, i + rows)) for i in range(2 * reach + 1)]
    nearest = first[:rows] + steps[0][0]
    for step, part in steps[1:]:
        np.minimum(nearest, first[part] + step, out=nearest)
    owners, owner = first & mask, nearest & mask
    other = np.full_like(nearest, np.iinfo(nearest.dtype).max)
    for step, part in steps:
        candidate = np.where(owners[part] == owner, second[part], first[part])
        candidate += step
        np.minimum(other, candidate, out=other)
    return nearest, other


def part_touching(instances: NDArray[Any], px: int) -> NDArray[Any]:
    """Return the objects with at least `px` px of background between any two of them.

    Objects lose pixels to the background where they touch or are nearer to each other than that,
    and only there. Distances are Chebyshev's, so diagonal neighbours touch. Of two pixels of
    different objects that are too near, the one goes that is nearer to objects not its own, and of
    equals the later one in reading order: so both objects lose about the same, whatever their
    numbers. An object thinner than half of `px` may vanish.

    >>> part_touching(np.array([[1, 1, 1, 2, 2, 2]]), 2).tolist()
    [[1, 1, 0, 0, 2, 2]]

    Args:
        instances: (h, w), a number above 0 for each object, 0 elsewhere.
        px: the gap; 0 gives the objects as they are. With `parting_halo(px)` px around it a piece
            of a map gives what the whole gives.
    """
    if px == 0 or instances.size == 0:
        return instances
    padded = np.pad(instances, px)
    gaps = _gaps(padded, px).ravel()
    numbers, columns = padded.ravel(), padded.shape[1]
    close = np.flatnonzero(gaps <= px)
    goes = np.zeros(close.size, np.bool_)
    for dy, dx in _offsets(px):
        there = close + (dy * columns + dx)
        foreign = (numbers[there] != numbers[close]) & (numbers[there] > 0)
        goes |= foreign & (gaps[close] < gaps[there])
        if (dy == 0 and dx < 0) or (dx == 0 and dy < 0):
            goes |= foreign & (gaps[close] == gaps[there])
    numbers[close[goes]] = 0
    # What is still too near lies askew. Had such pairs been looked at in the same go as those along
    # an axis, a straight seam of odd width would have lost a row too many.
    close = close[~goes]
    goes = np.zeros(close.size, np.bool_)
    for dy, dx in _offsets(px):
        if (dy, dx) < (0, 0):
            other = numbers[close + (dy * columns + dx)]
            goes |= (other != numbers[close]) & (other > 0)
    numbers[close[goes]] = 0
    return numbers.reshape(padded.shape)[px:-px, px:-px].copy()


def _offsets(px: int) -> list[tuple[int, int]]:
    """Return all (dy, dx) within `px` px."""
    side = range(-px, px + 1)
    return list(product(side, side))


def _gaps(numbers: NDArray[Any], px: int) -> NDArray[np.uint8]:
    """Return how far each object's pixels are from the nearest other object, px.

    It is px + 1 where that is farther than px, and in the background.
    """
    beyond = np.iinfo(numbers.dtype).max
    most, least = numbers, np.where(numbers > 0, numbers, beyond)
    gaps = np.full(numbers.shape, px + 1, np.uint8)
    for gap in range(1, px + 1):
        most, least = _of_neighbours(np.maximum, most), _of_neighbours(np.minimum, least)
        found = ((most != numbers) | (least != numbers)) & (numbers > 0) & (gaps > gap)
        gaps[found] = gap
    return gaps


def _of_neighbours(choose: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
    """Return the largest, or least, of each pixel and its eight neighbours."""
    chosen = values.copy()
    choose(chosen[1:], values[:-1], out=chosen[1:])
    choose(chosen[:-1], values[1:], out=chosen[:-1])
    values = chosen.copy()
    choose(chosen[:, 1:], values[:, :-1], out=chosen[:, 1:])
    choose(chosen[:, :-1], values[:, 1:], out=chosen[:, :-1])
    return chosen
