"""Groups of different sizes, one after another in an array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spread(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `counts` whole numbers from each of `starts` on.

    >>> spread(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(counts) - counts
    numbers: NDArray[np.int64] = np.repeat(starts - before, counts)
    numbers += np.arange(len(numbers))
    return numbers


def take_groups(counts: NDArray[np.int64], which: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of the members of some groups, given how many each group has.

    >>> take_groups(np.array([2, 1, 3]), np.array([2, 0])).tolist()
    [3, 4, 5, 0, 1]
    """
    return spread((np.cumsum(counts) - counts)[which], counts[which])


def sum_groups(values: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sums of groups of values, given how many each group has: at least one.

    >>> sum_groups(np.array([1, 2, 3]), np.array([2, 1])).tolist()
    [3, 3]
    """
    return np.asarray(np.add.reduceat(values, np.cumsum(counts) - counts))
