"""Counting the boxes of a pair with Dask, and adding up the counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from dask.delayed import Delayed, delayed

from wsi_unet.evaluation.pairs import Pair
from wsi_unet.geometry import BlockIndex

MERGED_AT_ONCE = 16
"""Number of results that one task adds up, as soon as they are there."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class MapReduce:
    """Runs a function on every box of a pair and merges the results.

    Attributes:
        get_pair: returns the pair as the calling process has opened it.
        compute: computes a task and those it depends on, in threads or on a cluster.
    """

    get_pair: Callable[[], Pair]
    compute: Callable[[Delayed], Any]

    def __call__(
        self,
        count: Callable[[Pair, BlockIndex], Result],
        boxes: Iterable[BlockIndex],
        merge: Callable[[Sequence[Result]], Result],
    ) -> Result:
        """Return the merged results of all boxes.

        Args:
            count: counts one box; an exception ends the whole computation.
            boxes: (row, column) of each box; at least one.
            merge: merges results, given in any order.
        """
        count_box = delayed(partial(_count_box, self.get_pair, count), pure=False)
        results = [count_box(index) for index in boxes]
        merge_results = delayed(merge, pure=False)
        while True:
            starts = range(0, len(results), MERGED_AT_ONCE)
            results = [merge_results(results[start : start + MERGED_AT_ONCE]) for start in starts]
            if len(results) == 1:
                break
        merged: Result = self.compute(results[0])
        return merged


def _count_box(
    get_pair: Callable[[], Pair], count: Callable[[Pair, BlockIndex], Result], index: BlockIndex
) -> Result:
    return count(get_pair(), index)
