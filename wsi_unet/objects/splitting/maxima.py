"""h-maxima of the distance from outside, by the basins of its maxima and the saddles between them.

h-maxima are the regional maxima of the reconstruction of (distance − h) under the distance (Soille,
Morphological Image Analysis, 2003, 6.3.4): around each maximum that rises by more than h above the
saddles towards higher ones, the pixels that are at most h lower, as far as they are connected.

From each pixel one steps to its highest neighbour, until a maximum is reached; pixels with the same
maximum are a basin. Then whether pixels are joined by others above a level is told by the highest
saddles between basins, of which there are few: most nuclei are a single basin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Squares = NDArray[np.signedinteger]
"""(h, w): squares of distances, whole numbers; 0 outside of components, as along the border."""


@dataclass(frozen=True, eq=False)
class Seeds:
    """The seeds of those components that have several.

    Attributes:
        members: (s,) the component of each seed.
        pixels: (k,) their pixels; indices into the rows of the window, one after another.
        numbers: (k,) the seed of each of these pixels, 1 … s.
    """

    members: NDArray[np.int64]
    pixels: NDArray[np.int64]
    numbers: NDArray[np.int64]


def find_seeds(
    squares: Squares,
    pixels: NDArray[np.int64],
    member: NDArray[np.int64],
    heights: NDArray[np.float64],
) -> Seeds:
    """Return the h-maxima of components, but for those of components that have only one.

    Args:
        squares: squares of distances.
        pixels: (k,) the pixels of components; indices into the rows of `squares`, one after
            another.
        member: (k,) the component of each pixel.
        heights: (n,) the height h of each component.
    """
    upward = _find_highest_neighbours(squares)[pixels]
    several = np.bincount(member[upward == pixels], minlength=len(heights)) > 1
    maybe = several[member]
    pixels, member = pixels[maybe], member[maybe]
    basin, tops = _find_basins(squares.size, pixels, upward[maybe])
    distance = np.sqrt(squares.ravel()[pixels])
    level = distance[tops] - heights[member[tops]]
    leader, path = _join(distance[tops], level, *_find_saddles(squares, pixels, basin))
    leads = leader == np.arange(len(leader))
    several = np.bincount(member[tops[leads]], minlength=len(heights)) > 1
    seeds = np.flatnonzero(leads & several[member[tops]])
    number = np.zeros(len(tops), np.int64)
    number[seeds] = np.arange(len(seeds)) + 1
    # A seed's pixels are in basins that can be reached from it without falling below its level.
    number, level = np.where(path >= level[leader], number[leader], 0), level[leader]
    numbers = np.where(distance >= level[basin], number[basin], 0)
    own = numbers > 0
    return Seeds(member[tops[seeds]], pixels[own], numbers[own])


def _find_highest_neighbours(squares: Squares) -> NDArray[np.int64]:
    """Return which is the highest of each pixel and its 8 neighbours (h · w,).

    Of equally high ones the last in raster order counts as higher, so no two are equal.
    """
    bits = squares.size.bit_length()
    if int(squares.max(initial=0)).bit_length() + bits > 63:
        squares = np.unique(squares, return_inverse=True)[1].reshape(squares.shape)
    ranks = squares.astype(np.int64) << bits
    ranks |= np.arange(squares.size).reshape(squares.shape)
    in_row = ranks.copy()
    np.maximum(in_row[:, 1:], ranks[:, :-1], out=in_row[:, 1:])
    np.maximum(in_row[:, :-1], ranks[:, 1:], out=in_row[:, :-1])
    ranks[:] = in_row
    np.maximum(ranks[1:], in_row[:-1], out=ranks[1:])
    np.maximum(ranks[:-1], in_row[1:], out=ranks[:-1])
    return ranks.ravel() & ((1 << bits) - 1)


def _find_basins(
    size: int, pixels: NDArray[np.int64], upward: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the basin of each pixel (k,), and the maximum of each basin, an index of pixels.

    Args:
        size: number of pixels of the window.
        pixels: (k,) the pixels.
        upward: (k,) their highest neighbours, or themselves.
    """
    index = np.empty(size, np.int64)
    index[pixels] = np.arange(len(pixels))
    top = follow(index[upward])
    tops = np.flatnonzero(top == np.arange(len(top)))
    basin = np.empty(len(top), np.int64)
    basin[tops] = np.arange(len(tops))
    return basin[top], tops


def _find_saddles(
    squares: Squares, pixels: NDArray[np.int64], basin: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs of basins that touch (e, 2), and the distance (e,) of a saddle between them.

    Pairs may come several times, with other saddles. They are in order of rising saddles.

    Args:
        squares: squares of distances.
        pixels: (k,) pixels.
        basin: (k,) the basin of each.
    """
    flat, width, numbers = squares.ravel(), squares.shape[1], basin + 1
    drawn = np.zeros(squares.size, np.int64)
    drawn[pixels] = numbers
    pairs, saddles = [], []
    for shift in (1, width - 1, width, width + 1):
        other = drawn[pixels + shift]
        at = np.flatnonzero((other != numbers) & (other > 0))
        here = pixels[at]
        pairs.append(np.stack([basin[at], other[at] - 1], axis=1))
        saddles.append(np.minimum(flat[here], flat[here + shift]))
    found = np.concatenate(saddles)
    order = np.argsort(found, kind="stable")
    return np.concatenate(pairs)[order], np.sqrt(found[order])


def _join(
    top: NDArray[np.float64],
    level: NDArray[np.float64],
    pairs: NDArray[np.int64],
    saddles: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Join basins with higher ones until those that are left are the seeds' own.

    In each round, every group of basins joins the one beyond its highest saddle, if that saddle
    isn't below its level and the other group is higher. All other ways out are lower, so the two
    can be taken for one basin from then on. While any group isn't a seed, the lowest of these can
    join: a lower group beyond its highest saddle would be a seed, whose saddles are all below its
    level, and that is below the level of the first.

    Args:
        top: (b,) the distance of each basin's maximum.
        level: (b,) that less the height h.
        pairs: (e, 2) neighbouring basins, in order of rising saddles.
        saddles: (e,) the distance of their saddles.

    Returns:
        The basin (b,) with the highest maximum of each one's group, and the lowest distance on the
        way to it.
    """
    rank = np.empty(len(top), np.int64)
    rank[np.argsort(top, kind="stable")] = np.arange(len(top))
    towards, path = np.arange(len(top)), np.full(len(top), np.inf)
    while True:
        highest = np.full(len(top), -1)
        highest[pairs.ravel()] = np.repeat(np.arange(len(pairs)), 2)  # the last assignment stays
        basin = np.flatnonzero(highest >= 0)
        saddle = highest[basin]
        beyond = pairs[saddle].sum(axis=1) - basin
        joins = (saddles[saddle] >= level[basin]) & (rank[beyond] > rank[basin])
        if not joins.any():
            break
        towards[basin[joins]], path[basin[joins]] = beyond[joins], saddles[saddle[joins]]
        pairs = follow(towards)[pairs]
        apart = pairs[:, 0] != pairs[:, 1]
        pairs, saddles = pairs[apart], saddles[apart]
    while not (towards == (further := towards[towards])).all():
        path = np.minimum(path, path[towards])
        towards = further
    return towards, path


def follow(onward: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where one arrives by going onward from each index until one that leads to itself."""
    while not (onward == (further := onward[onward])).all():
        onward = further
    return onward
