"""Where the boxes of a pair are counted: in threads of this process, or on a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import dask.threaded

from wsi_unet.errors import OptionError
from wsi_unet.evaluation.pairs import Pair, Question, open_pair
from wsi_unet.geometry import BlockIndex

if TYPE_CHECKING:
    from wsi_unet.clusters.cluster import ClusterArguments

MERGED_AT_ONCE = 16
"""Results that are added up in one go, as soon as they are there."""

Result = TypeVar("Result")


class Compute(Protocol):
    """Runs a count on every box of a pair and adds up the results."""

    def __call__(
        self,
        count: Callable[[Pair, BlockIndex], Result],
        blocks: Iterable[BlockIndex],
        merge: Callable[[Sequence[Result]], Result],
    ) -> Result:
        """Return what all boxes give together.

        Args:
            count: of one box, of the pair as it is given, which another process has opened for
                itself; whatever it raises ends the whole.
            blocks: the boxes, at least one.
            merge: adds up results; in which order they come makes no difference.
        """


@dataclass(frozen=True, eq=False)
class InThreads:
    """Computes in this process, by Dask; see `Compute`."""

    pair: Pair

    def __call__(
        self,
        count: Callable[[Pair, BlockIndex], Result],
        blocks: Iterable[BlockIndex],
        merge: Callable[[Sequence[Result]], Result],
    ) -> Result:
        """Return what all boxes give together."""
        graph: dict[Any, Any] = {("count", *index): (count, self.pair, index) for index in blocks}
        keys: list[Any] = list(graph)
        for level in itertools.count():
            above = [("merge", level, start) for start in range(0, len(keys), MERGED_AT_ONCE)]
            graph |= {key: (merge, keys[key[2] : key[2] + MERGED_AT_ONCE]) for key in above}
            keys = above
            if len(keys) == 1:
                break
        result: Result = dask.threaded.get(graph, keys[0])
        return result


def is_wanted(cluster: ClusterArguments) -> bool:
    """Whether other processes are asked for; "auto" means GPUs, which have nothing to do here.

    Raises:
        OptionError: a report is asked for that only a cluster gives.
    """
    names = ("scheduler", "tls_ca", "tls_cert", "tls_key")
    wanted = isinstance(cluster.get("workers"), int) or any(cluster.get(name) for name in names)
    if cluster.get("performance_report") is not None and not wanted:
        raise OptionError("performance_report: it is a cluster's; give workers or a scheduler, too")
    return wanted


@contextmanager
def computing(question: Question, cluster: ClusterArguments) -> Iterator[tuple[Pair, Compute]]:
    """Open what is compared, and yield how to compute on it.

    Raises:
        OptionError: the cluster can't be used, or can't see the files, or the labels aren't files.
        ClusterError: it can't be started, or went away.
        WsiUnetError: see `open_pair`.
    """
    if not is_wanted(cluster):
        pair = open_pair(question)
        yield pair, InThreads(pair)
        return
    # Dask's cluster, and torch, take seconds to import that most comparisons don't need.
    from wsi_unet.evaluation.on_cluster import computing_on_cluster

    with computing_on_cluster(question, cluster) as found:
        yield found
