"""Weights of the background between objects, and gaps between objects that touch.

Both look only at a pixel's neighbourhood, so a box read with its halo gives to the last bit what
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
"""Largest d1 + d2 with a weight, in σ; beyond, where the formula gives w0 · 6.3e-5, it is 0."""

STRIP = (64, 512)
"""Sides (rows, columns) of the boxes that are computed at a time, px: they fit the cache."""

Keys = NDArray[np.signedinteger[Any]]
"""Squared distances to objects, px², shifted left by the bits that hold the object's number."""


def separation_halo(sigma: float) -> int:
    """Return the halo that a box needs for exact separation weights, px."""
    return math.ceil(REACH * sigma)


def gap_halo(gap: int) -> int:
    """Return the halo that a box needs for exact gaps, px."""
    return 3 * gap


def separation_weights(
    instances: NDArray[Any], w0: float, sigma: float, box: Box | None = None
) -> NDArray[np.float32]:
    """Return w0 · exp(−(d1 + d2)² / 2σ²) of the background between objects.

    d1 and d2 are the Euclidean distances to the nearest pixel of the nearest and of the second
    nearest object (Ronneberger et al. 2015, equation 2). The weight keeps objects apart, so it is 0
    inside them; and it is 0 where d1 + d2 > 4.4 σ, so that it depends only on the neighbourhood.
    Where objects touch, there is no background to weigh: separate them first.

    >>> separation_weights(np.array([[1, 0, 2]]), 10.0, 5.0).astype(int).tolist()
    [[0, 9, 0]]

    Args:
        instances: (h, w), a number above 0 for each object, 0 elsewhere.
        w0: largest weight.
        sigma: σ, px.
        box: box of `instances` whose weights are wanted; None: all. They are those of a larger map
            if `instances` has `separation_halo(sigma)` px around the box.

    Returns:
        (h, w) weights of the box.
    """
    whole = Box(0, 0, *instances.shape)
    box = box or whole
    reach = separation_halo(sigma)
    grown = box.grow(reach, reach)
    known = grown.intersection(whole)
    numbers, bits = _as_keys(instances[known.slices()], reach)
    padded = np.zeros(grown.shape, numbers.dtype)
    padded[known.relative_to(grown).slices()] = numbers
    weights = np.zeros(box.shape, np.float32)
    for y in range(0, box.shape[0], STRIP[0]):
        for x in range(0, box.shape[1], STRIP[1]):
            strip = weights[y : y + STRIP[0], x : x + STRIP[1]]
            rows, columns = strip.shape
            nearby = padded[y : y + rows + 2 * reach, x : x + columns + 2 * reach]
            present = nearby[nearby > 0]
            if present.size and present.min() != present.max():
                strip[...] = _weights(nearby, bits, reach, w0, sigma)
    return weights


def _as_keys(instances: NDArray[Any], reach: int) -> tuple[Keys, int]:
    """Return the objects' numbers, in a type with room for distances, and the bits that they take.

    Objects are renumbered if their numbers leave no room.
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
    """Return the weights (h, w) of a box, given its `numbers` (h + 2 reach, w + 2 reach)."""
    rows, columns = (side - 2 * reach for side in numbers.shape)
    far = (2 * reach * reach + 1) << bits
    at_objects = np.where(numbers > 0, numbers, numbers.dtype.type(far))
    nowhere = np.broadcast_to(numbers.dtype.type(far), numbers.shape)
    nearest, second = _two_nearest(at_objects, nowhere, bits, reach)
    nearest, second = (keys.T for keys in _two_nearest(nearest.T, second.T, bits, reach))
    background = numbers[reach : reach + rows, reach : reach + columns] == 0
    near = background & (second < far)
    distance = np.sqrt(nearest[near] >> bits) + np.sqrt(second[near] >> bits)
    near_weights = np.where(
        distance <= REACH * sigma, w0 * np.exp(-(distance**2) / (2 * sigma**2)), 0
    )
    weights = np.zeros((rows, columns), np.float32)
    weights[near] = near_weights
    return weights


def _two_nearest(first: Keys, second: Keys, bits: int, reach: int) -> tuple[Keys, Keys]:
    """Return the keys of the nearest two objects, looking `reach` px up and down the columns.

    A squared distance is a sum over the two axes, so the axes are done one after the other, as in
    Felzenszwalb and Huttenlocher 2012. For each pixel its two nearest objects suffice: for any
    pixel on the other axis, a third object is farther away than both.

    Args:
        first: (h + 2 reach, w), for each pixel the key of the nearest object found so far.
        second: of the same shape, the key of the nearest other object.
        bits: bits of a key that hold the number.
        reach: how far to look, px.

    Returns:
        `first` and `second` after this axis, each (h, w).
    """
    rows = first.shape[0] - 2 * reach
    mask = (1 << bits) - 1
    steps = [((i - reach) ** 2 << bits, slice(i, i + rows)) for i in range(2 * reach + 1)]
    nearest = first[:rows] + steps[0][0]
    for step, moved in steps[1:]:
        np.minimum(nearest, first[moved] + step, out=nearest)
    owners, owner = first & mask, nearest & mask
    other = np.full_like(nearest, np.iinfo(nearest.dtype).max)
    for step, moved in steps:
        candidate = np.where(owners[moved] == owner, second[moved], first[moved])
        candidate += step
        np.minimum(other, candidate, out=other)
    return nearest, other


def separate_touching(instances: NDArray[Any], gap: int) -> NDArray[Any]:
    """Return the objects with at least `gap` px of background between any two of them.

    Objects lose pixels to the background where they touch, or where the gap is narrower, and only
    there. Distances are Chebyshev distances, so diagonal neighbours touch. Of two pixels of
    different objects that are too near, the one that is nearer to other objects is removed; of
    equals, the later one in reading order: so both objects lose about the same, whatever their
    numbers. An object thinner than half of `gap` may vanish.

    >>> separate_touching(np.array([[1, 1, 1, 2, 2, 2]]), 2).tolist()
    [[1, 1, 0, 0, 2, 2]]

    Args:
        instances: (h, w), a number above 0 for each object, 0 elsewhere.
        gap: width of the gap, px; 0 returns the objects as they are. A box with `gap_halo(gap)` px
            around it gives what the whole map gives.
    """
    if gap == 0 or instances.size == 0:
        return instances
    padded = np.pad(instances, gap)
    distances = _distances(padded, gap).ravel()
    numbers, columns = padded.ravel(), padded.shape[1]
    close = np.flatnonzero(distances <= gap)
    removed = np.zeros(close.size, np.bool_)
    for dy, dx in _offsets(gap):
        neighbours = close + (dy * columns + dx)
        foreign = (numbers[neighbours] != numbers[close]) & (numbers[neighbours] > 0)
        removed |= foreign & (distances[close] < distances[neighbours])
        if (dy == 0 and dx < 0) or (dx == 0 and dy < 0):
            removed |= foreign & (distances[close] == distances[neighbours])
    numbers[close[removed]] = 0
    # Pairs that are still too near lie diagonally. Were they handled together with those along an
    # axis, a straight seam of odd width would lose a row too many.
    close = close[~removed]
    removed = np.zeros(close.size, np.bool_)
    for dy, dx in _offsets(gap):
        if (dy, dx) < (0, 0):
            neighbours = numbers[close + (dy * columns + dx)]
            removed |= (neighbours != numbers[close]) & (neighbours > 0)
    numbers[close[removed]] = 0
    return numbers.reshape(padded.shape)[gap:-gap, gap:-gap].copy()


def find_boundaries(instances: NDArray[Any], reach: int, rim: int) -> NDArray[np.bool_]:
    """Return the pixels between objects, and along the edges of objects.

    Distances are Chebyshev distances. Beyond the map there is nothing, so an object that its edge
    cuts has no rim there.

    >>> find_boundaries(np.array([[0, 0, 1, 1, 1, 2, 2, 2]]), reach=1, rim=0).astype(int).tolist()
    [[0, 0, 0, 0, 1, 1, 0, 0]]
    >>> find_boundaries(np.array([[0, 0, 1, 1, 1, 2, 2, 2]]), reach=0, rim=1).astype(int).tolist()
    [[0, 0, 1, 0, 1, 1, 0, 0]]

    Args:
        instances: (h, w), a number above 0 for each object, 0 elsewhere.
        reach: pixels that are at most this far from two objects are between them, px.
        rim: pixels of an object that are at most this far from what isn't the object are along its
            edge, px. A box with the larger of both around it gives what the whole map gives.
    """
    found = np.zeros(instances.shape, np.bool_)
    beyond = np.iinfo(instances.dtype).max
    largest, least = instances, instances
    least_object = np.where(instances > 0, instances, beyond)
    for distance in range(1, max(reach, rim) + 1):
        largest = _filter_3x3(np.maximum, largest)
        if distance <= rim:
            least = _filter_3x3(np.minimum, least)
        if distance <= reach:
            least_object = _filter_3x3(np.minimum, least_object)
        if distance == rim:
            found |= (instances > 0) & (largest != least)
        if distance == reach:
            found |= (largest > 0) & (largest != least_object)
    return found


def _offsets(reach: int) -> list[tuple[int, int]]:
    """Return all (dy, dx) within `reach` px."""
    side = range(-reach, reach + 1)
    return list(product(side, side))


def _distances(numbers: NDArray[Any], most: int) -> NDArray[np.uint8]:
    """Return the Chebyshev distance of each object pixel from the nearest other object, px.

    It is most + 1 where it is larger than `most`, and in the background.
    """
    beyond = np.iinfo(numbers.dtype).max
    largest, least = numbers, np.where(numbers > 0, numbers, beyond)
    distances = np.full(numbers.shape, most + 1, np.uint8)
    for distance in range(1, most + 1):
        largest = _filter_3x3(np.maximum, largest)
        least = _filter_3x3(np.minimum, least)
        reached = ((largest != numbers) | (least != numbers)) & (numbers > 0)
        distances[reached & (distances > distance)] = distance
    return distances


def _filter_3x3(choose: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
    """Return the largest, or least, value of each pixel and its eight neighbours."""
    chosen = values.copy()
    choose(chosen[1:], values[:-1], out=chosen[1:])
    choose(chosen[:-1], values[1:], out=chosen[:-1])
    values = chosen.copy()
    choose(chosen[:, 1:], values[:, :-1], out=chosen[:, 1:])
    choose(chosen[:, :-1], values[:, 1:], out=chosen[:, :-1])
    return chosen
