"""Areas of convex hulls of objects, whose pixels are squares: exact, and of all objects at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PASSES = 32
"""Passes over all chains, after which those that aren't convex yet are finished one by one."""


def find_hull_areas(
    owner: NDArray[np.int64],
    y: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the areas (n,) of the convex hulls of objects, px².

    Args:
        owner: (m,) index of the object of each row of pixels, ascending.
        y: (m,) the row; an object has all from its first to its last, in order.
        left: (m,) its first column.
        right: (m,) the column after its last.
    """
    # The right sides are looked at in a mirror: then hulls lie to the right of all chains.
    chains = _Chains.of_rows(
        np.append(owner, owner + owner[-1] + 1), np.append(y, y), np.append(left, -right)
    )
    for _ in range(MOST_PASSES):
        hollow = chains.find_hollow()
        if not hollow.any():
            break
        chains = chains.select(~hollow)
    else:
        chains = _finish(chains)
    twice = np.append(np.diff(chains.y) * (chains.x[1:] + chains.x[:-1]), 0)
    starts = np.flatnonzero(~chains.inner)[::2]
    twice[starts[1:] - 1] = 0  # from one chain to the next
    sides = np.add.reduceat(twice, starts).reshape(2, -1)
    return np.asarray(-sides.sum(axis=0) / 2)


@dataclass(frozen=True, eq=False)
class _Chains:
    """Points of several chains, one chain of at least two after another; y ascends along each.

    Attributes:
        y: rows.
        x: columns.
        inner: whether each lies between two points of its chain.
    """

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    inner: NDArray[np.bool_]

    @classmethod
    def of_rows(
        cls, owner: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]
    ) -> _Chains:
        """Return the first vertex on each line between rows of pixels, a chain per object."""
        begins = np.append(True, owner[1:] != owner[:-1])
        first = np.minimum(x, np.append(x[:1], x[:-1]), where=~begins, out=x.copy())
        behind = np.append(np.flatnonzero(begins)[1:], len(x))
        return cls(
            np.insert(y, behind, y[behind - 1] + 1),
            np.insert(first, behind, x[behind - 1]),
            np.insert(~begins, behind, False),
        )

    def select(self, kept: NDArray[np.bool_]) -> _Chains:
        """Return the points for which `kept` is true; the ends of chains must be among them."""
        return _Chains(self.y[kept], self.x[kept], self.inner[kept])

    def find_hollow(self) -> NDArray[np.bool_]:
        """Return which points lie on or to the right of the line between those beside them."""
        dy, dx = np.diff(self.y), np.diff(self.x)
        hollow = np.zeros(len(self.y), np.bool_)
        hollow[1:-1] = dx[:-1] * dy[1:] >= dx[1:] * dy[:-1]
        return hollow & self.inner


def _finish(chains: _Chains) -> _Chains:
    """Return chains without their points that aren't on their hulls, chain by chain."""
    kept = np.ones(len(chains.y), np.bool_)
    ends = np.flatnonzero(~chains.inner)
    hollow = np.flatnonzero(chains.find_hollow())
    for chain in np.unique(np.searchsorted(ends[::2], hollow, side="right") - 1).tolist():
        start, last = ends[2 * chain : 2 * chain + 2].tolist()
        hull: list[int] = []
        points = list(
            zip(
                chains.y[start : last + 1].tolist(),
                chains.x[start : last + 1].tolist(),
                strict=True,
            )
        )
        for number, (y, x) in enumerate(points):
            while len(hull) > 1:
                (y0, x0), (y1, x1) = points[hull[-2]], points[hull[-1]]
                if (x1 - x0) * (y - y1) < (x - x1) * (y1 - y0):
                    break
                hull.pop()
            hull.append(number)
        kept[start : last + 1] = False
        kept[[start + number for number in hull]] = True
    return chains.select(kept)
