"""Where the boxes of a pair are counted: in threads of this process, or on a cluster; by Dask."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import dask.threaded
import xarray as xr

from wsi_unet import locations
from wsi_unet.errors import ClusterError, OptionError
from wsi_unet.evaluation.pairs import Pair, Question, open_pair
from wsi_unet.evaluation.sources import Labels
from wsi_unet.geometry import BlockIndex

if TYPE_CHECKING:
    from distributed import Client

    from wsi_unet.clusters.cluster import ClusterArguments

MERGED_AT_ONCE = 16
"""Results that are added up in one go, as soon as they are there."""

Result = TypeVar("Result")


class Compute(Protocol):
    """Runs a count on every box and adds up the results."""

    def __call__(
        self,
        count: Callable[[BlockIndex], Result],
        blocks: Iterable[BlockIndex],
        merge: Callable[[Sequence[Result]], Result],
    ) -> Result:
        """Return what all boxes give together.

        Args:
            count: of one box; whatever it raises ends the whole.
            blocks: the boxes, at least one.
            merge: adds up results; in which order they come makes no difference.
        """


def in_threads(
    count: Callable[[BlockIndex], Result],
    blocks: Iterable[BlockIndex],
    merge: Callable[[Sequence[Result]], Result],
) -> Result:
    """Compute in this process; see `Compute`."""
    graph: dict[Any, Any] = {("count", *index): (count, index) for index in blocks}
    keys: list[Any] = list(graph)
    for level in itertools.count():
        above = [("merge", level, start) for start in range(0, len(keys), MERGED_AT_ONCE)]
        graph |= {key: (merge, keys[key[2] : key[2] + MERGED_AT_ONCE]) for key in above}
        keys = above
        if len(keys) == 1:
            break
    result: Result = dask.threaded.get(graph, keys[0])
    return result


@dataclass(frozen=True)
class OnCluster:
    """Computes on a cluster; see `Compute`.

    Attributes:
        client: of it.
        retries: how often a box is tried again.
    """

    client: Client
    retries: int

    def __call__(
        self,
        count: Callable[[BlockIndex], Result],
        blocks: Iterable[BlockIndex],
        merge: Callable[[Sequence[Result]], Result],
    ) -> Result:
        """Return what all boxes give together."""
        name = uuid.uuid4().hex  # a cluster takes equal keys for the same task, whoever asks
        indices = list(blocks)
        parts = self.client.map(
            _Named(count, name),
            indices,
            key=[f"count-{name}-{y}-{x}" for y, x in indices],
            retries=self.retries,
        )
        for level in itertools.count():
            # Of a merged result the parts are forgotten, by this process and so by the cluster.
            parts = [
                self.client.submit(
                    merge,
                    parts[start : start + MERGED_AT_ONCE],
                    key=f"merge-{name}-{level}-{start}",
                )
                for start in range(0, len(parts), MERGED_AT_ONCE)
            ]
            if len(parts) == 1:
                break
        result: Result = parts[0].result()
        return result


@dataclass(frozen=True, eq=False)
class _Named(Generic[Result]):
    """A count that Dask needn't look into for a name: that would open all of it once more."""

    count: Callable[[BlockIndex], Result]
    name: str

    def __call__(self, index: BlockIndex) -> Result:
        return self.count(index)

    def __dask_tokenize__(self) -> str:
        return self.name


def is_wanted(cluster: ClusterArguments) -> bool:
    """Whether a cluster is asked for, or anything that is of use with one only."""
    given = {name: value for name, value in cluster.items() if name != "max_retries"}
    return any(value is not None for value in given.values())


@contextmanager
def computing(question: Question, cluster: ClusterArguments) -> Iterator[tuple[Pair, Compute]]:
    """Open what is compared, and yield how to compute on it.

    Raises:
        OptionError: the cluster can't be used, or can't see the files, or the labels aren't files.
        ClusterError: it can't be started, or went away.
        WsiUnetError: see `open_pair`.
    """
    if is_wanted(cluster):
        with _on_cluster(_for_others(question), cluster) as found:
            yield found
    else:
        yield open_pair(question), in_threads


@contextmanager
def _on_cluster(question: Question, cluster: ClusterArguments) -> Iterator[tuple[Pair, Compute]]:
    # Imported here since they, and torch, take seconds that most comparisons don't need.
    from distributed import KilledWorker

    from wsi_unet.clusters.cluster import ClusterOptions, check_paths, open_client

    options = ClusterOptions(**cluster)
    pair = open_pair(question)
    files = (question.prediction, question.truth, question.within)
    with open_client(options) as client:
        check_paths(client, readable=[str(file) for file in files if file is not None])
        try:
            yield pair, OnCluster(client, options.max_retries)
        except KilledWorker as error:
            raise ClusterError(
                f"{error.last_worker.address} and workers before it died while they compared "
                "(out of memory?); give them more memory, or start fewer per machine"
            ) from error
        except CancelledError as error:
            raise ClusterError("the scheduler went away; nothing was compared") from error


def _for_others(question: Question) -> Question:
    """Return the question in words that mean the same to any process.

    Raises:
        OptionError: labels that are open in this process can't be sent.
    """
    return replace(
        question,
        prediction=_place(question.prediction),
        truth=_place(question.truth),
        within=None if question.within is None else question.within.absolute(),
    )


def _place(labels: Labels) -> str:
    if isinstance(labels, xr.DataArray):
        raise OptionError(
            "labels that are open can't be sent to other processes; give the path that they were "
            "opened from, or leave workers and scheduler out"
        )
    location = locations.resolve(os.fspath(labels))
    return location if locations.is_url(location) else str(Path(location).absolute())
