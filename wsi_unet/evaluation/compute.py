"""Where the boxes of a pair are counted: in threads of this process, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dask.delayed import Delayed, delayed

from wsi_unet.evaluation.pairs import Pair
from wsi_unet.geometry import BlockIndex

if TYPE_CHECKING:
    pass

MERGED_AT_ONCE = 16
"""Results that are added up in one go, as soon as they are there."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Compute:
    """Runs a count on every box of a pair and adds up the results, by Dask.

    Attributes:
        pair: returns the pair as the process that asks has opened it.
        run: computes a task and those that it needs; where, is its affair.
    """

    pair: Callable[[], Pair]
    run: Callable[[Delayed], Any]

    def __call__(
        self,
        count: Callable[[Pair, BlockIndex], Result],
        blocks: Iterable[BlockIndex],
        merge: Callable[[Sequence[Result]], Result],
    ) -> Result:
        """Return what all boxes give together.

        Args:
            count: of one box; whatever it raises ends the whole.
            blocks: the boxes, at least one.
            merge: adds up results; in which order they come makes no difference.
        """
        of_box = delayed(partial(_count_box, self.pair, count), pure=False)
        parts = [of_box(index) for index in blocks]
        merged = delayed(merge, pure=False)
        while True:
            starts = range(0, len(parts), MERGED_AT_ONCE)
            parts = [merged(parts[start : start + MERGED_AT_ONCE]) for start in starts]
            if len(parts) == 1:
                break
        result: Result = self.run(parts[0])
        return result


def _count_box(
    pair: Callable[[], Pair], count: Callable[[Pair, BlockIndex], Result], index: BlockIndex
) -> Result:
    return count(pair(), index)
