"""Counting the boxes of a pair on a Dask cluster.

Workers are sent the question and open prediction and truth by themselves, in the task that needs
them: nothing is opened by a scheduler, and what goes wrong is the task's error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

import xarray as xr
from dask.delayed import Delayed
from distributed import Client, KilledWorker, wait

from wsi_unet import locations, logs
from wsi_unet.dask_cluster.cluster import check_paths, cluster_alive, count_workers, open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.scheduler import went_away
from wsi_unet.errors import ClusterError, OptionError
from wsi_unet.evaluation.compute import Compute
from wsi_unet.evaluation.pairs import Comparison, Pair, open_pair
from wsi_unet.ground_truth.sources import Labels
from wsi_unet.process_cache import ProcessCache

LOOK_SECONDS = 5.0
"""How often it is looked whether there still are workers."""

LONELY_SECONDS = 120.0
"""How long none may be there: a new one may be starting."""

KEPT_OPEN = 2
"""Pairs that a worker process keeps open: of as many comparisons at once."""


@contextmanager
def computing_on_cluster(
    question: Comparison, cluster: ClusterOptions
) -> Iterator[tuple[Pair, Compute]]:
    """Open what is compared here, too, and yield how to compute on the cluster.

    Raises:
        OptionError: the cluster can't be used, or can't see the files, or the labels aren't files.
        ClusterError: it can't be started, or went away.
        WsiUnetError: see `open_pair`.
    """
    question = replace(
        question, prediction=_place(question.prediction), truth=_place(question.truth)
    )
    pair = open_pair(question)
    files = (question.prediction, question.truth, question.within)
    with open_client(cluster) as client:
        check_paths(client, readable=[str(file) for file in files if file is not None])
        yield pair, Compute(partial(_opened, question), partial(_run, client, cluster.max_retries))
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


def _run(client: Client, retries: int, task: Delayed) -> Any:
    """Return a task's result.

    Raises:
        ClusterError: there is no scheduler or no worker any more, or workers died of it.
    """
    try:
        future = client.compute(task, retries=retries)
    except (OSError, RuntimeError) as error:  # the client has closed itself
        raise went_away(client, kept=False) from error
    lonely = None
    while True:
        try:
            wait([future], timeout=LOOK_SECONDS)
            return future.result()
        except TimeoutError:
            lonely = _lonely_since(client, lonely)
        except KilledWorker as error:
            raise ClusterError(
                f"{error.last_worker.address} and workers before it died while they compared "
                "(out of memory?); give them more memory, or start fewer per machine"
            ) from error
        except CancelledError as error:
            if client.status != "running":  # it may still try to reach the scheduler
                raise went_away(client, kept=False) from error
            raise ClusterError(f"the cluster dropped the comparison ({error})") from error


def _lonely_since(client: Client, before: float | None) -> float | None:
    """Return since when there have been no workers, None if there are some.

    Args:
        client: of the cluster.
        before: the answer of the last look.

    Raises:
        ClusterError: for too long, or there is no scheduler.
    """
    if not cluster_alive(client):
        raise went_away(client, kept=False)
    if count_workers(client).processes:
        return None
    if before is None:
        logs.log.warning("the cluster has no workers any more; waiting for new ones")
        return monotonic()
    if monotonic() - before > LONELY_SECONDS:
        raise ClusterError(
            f"the cluster has had no workers for {LONELY_SECONDS:.0f} s; start some and run the "
            "same command again"
        )
    return before


_PAIRS = ProcessCache[Pair](KEPT_OPEN)


def _opened(question: Comparison) -> Pair:
    """Return the pair as it is open in this process: every box needs it."""
    return _PAIRS.get(question.number, lambda: open_pair(question))


def _close(number: str) -> None:
    _PAIRS.release(number)
