"""Counting the boxes of a pair on a Dask cluster.

Workers are sent the question and open prediction and truth by themselves, in the task that needs
them: nothing is opened by a scheduler, and what goes wrong is the task's error.
"""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Generic, TypeVar

import xarray as xr
from distributed import Client, Future, KilledWorker, wait

from wsi_unet import locations, logs
from wsi_unet.clusters.cluster import (
    ClusterArguments,
    ClusterOptions,
    check_paths,
    cluster_alive,
    count_workers,
    open_client,
)
from wsi_unet.clusters.scheduler import went_away
from wsi_unet.errors import ClusterError, OptionError
from wsi_unet.evaluation.computing import MERGED_AT_ONCE, Compute
from wsi_unet.evaluation.pairs import Pair, Question, open_pair
from wsi_unet.evaluation.sources import Labels
from wsi_unet.geometry import BlockIndex

LOOK_SECONDS = 5.0
"""How often it is looked whether there still are workers."""

LONELY_SECONDS = 120.0
"""How long none may be there: a new one may be starting."""

KEPT_OPEN = 2
"""Pairs that a worker process keeps open: of as many comparisons at once."""

Result = TypeVar("Result")


@contextmanager
def computing_on_cluster(
    question: Question, cluster: ClusterArguments
) -> Iterator[tuple[Pair, Compute]]:
    """Open what is compared here, too, and yield how to compute on the cluster.

    Raises:
        OptionError: the cluster can't be used, or can't see the files, or the labels aren't files.
        ClusterError: it can't be started, or went away.
        WsiUnetError: see `open_pair`.
    """
    options = ClusterOptions(**cluster)
    question = replace(
        question, prediction=_place(question.prediction), truth=_place(question.truth)
    )
    pair = open_pair(question)
    files = (question.prediction, question.truth, question.within)
    with open_client(options) as client:
        check_paths(client, readable=[str(file) for file in files if file is not None])
        yield pair, _OnCluster(question, client, options.max_retries)
        with suppress(OSError, RuntimeError, CancelledError):
            client.run(_close, question.number, on_error="ignore")


def _place(labels: Labels) -> str:
    """Return where labels are, in words that mean the same to any process.

    Raises:
        OptionError: labels that are open in this process can't be sent.
    """
    if isinstance(labels, xr.DataArray):
        raise OptionError(
            "labels that are open can't be sent to other processes; give the path that they were "
            "opened from, or leave workers and scheduler out"
        )
    return locations.resolve(os.fspath(labels))


@dataclass(frozen=True, eq=False)
class _OnCluster:
    """Computes on a cluster; see `Compute`.

    Attributes:
        question: what is compared.
        client: of the cluster.
        retries: how often a box is tried again.
    """

    question: Question
    client: Client
    retries: int

    def __call__(
        self,
        count: Callable[[Pair, BlockIndex], Result],
        blocks: Iterable[BlockIndex],
        merge: Callable[[Sequence[Result]], Result],
    ) -> Result:
        """Return what all boxes give together."""
        name = uuid.uuid4().hex  # a cluster takes equal keys for the same task, whoever asks
        indices = list(blocks)
        try:
            parts = self.client.map(
                _Count(self.question, count, name),
                indices,
                key=[f"count-{name}-{y}-{x}" for y, x in indices],
                retries=self.retries,
            )
            for level in itertools.count():
                # Of a merged result the parts are forgotten here, and so by the cluster.
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
        except (OSError, RuntimeError) as error:  # the client has closed itself
            raise went_away(self.client, kept=False) from error
        return self._result(parts[0])

    def _result(self, future: Future[Result]) -> Result:
        lonely = None
        while True:
            try:
                wait([future], timeout=LOOK_SECONDS)
                return future.result()
            except TimeoutError:
                lonely = self._look(lonely)
            except KilledWorker as error:
                raise ClusterError(
                    f"{error.last_worker.address} and workers before it died while they compared "
                    "(out of memory?); give them more memory, or start fewer per machine"
                ) from error
            except CancelledError as error:
                if self.client.status != "running":  # it may still try to reach the scheduler
                    raise went_away(self.client, kept=False) from error
                raise ClusterError(f"the cluster dropped the comparison ({error})") from error

    def _look(self, lonely: float | None) -> float | None:
        """Return since when there have been no workers, None if there are some.

        Raises:
            ClusterError: for too long, or there is no scheduler.
        """
        if not cluster_alive(self.client):
            raise went_away(self.client, kept=False)
        if count_workers(self.client).processes:
            return None
        if lonely is None:
            logs.log.warning("the cluster has no workers any more; waiting for new ones")
            return monotonic()
        if monotonic() - lonely > LONELY_SECONDS:
            raise ClusterError(
                f"the cluster has had no workers for {LONELY_SECONDS:.0f} s; start some and run "
                "the same command again"
            )
        return lonely


@dataclass(frozen=True, eq=False)
class _Count(Generic[Result]):
    """A count as it is sent to workers, with a name: else Dask would make one of all it holds."""

    question: Question
    count: Callable[[Pair, BlockIndex], Result]
    name: str

    def __call__(self, index: BlockIndex) -> Result:
        return self.count(_opened(self.question), index)

    def __dask_tokenize__(self) -> str:
        return self.name


_OPEN: dict[str, Pair] = {}
_LOCK = threading.Lock()


def _opened(question: Question) -> Pair:
    """Return what this process opens once: every box asks for it."""
    with _LOCK:
        pair = _OPEN.pop(question.number, None) or open_pair(question)
        _OPEN[question.number] = pair  # the last one used is the last one to go
        while len(_OPEN) > KEPT_OPEN:
            _OPEN.pop(next(iter(_OPEN)))
        return pair


def _close(number: str) -> Any:
    with _LOCK:
        _OPEN.pop(number, None)
