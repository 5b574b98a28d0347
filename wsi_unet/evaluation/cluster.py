"""Counting the boxes of a pair on a Dask cluster.

Workers are sent the comparison and open prediction and truth themselves, in the task that needs
them: a scheduler opens nothing, and what goes wrong is the task's error.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import xarray as xr
from dask.delayed import Delayed
from distributed import Client, KilledWorker

from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.file_visibility import check_paths
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.scheduler import scheduler_lost_error
from wsi_unet.dask_cluster.waiting import wait_for_result
from wsi_unet.errors import ClusterError, OptionError
from wsi_unet.evaluation.map_reduce import MapReduce
from wsi_unet.evaluation.pairs import Comparison, Pair, open_pair
from wsi_unet.ground_truth.label_rasters import LabelsLike
from wsi_unet.locations import Location
from wsi_unet.process_cache import ProcessCache

KEPT_OPEN = 2
"""Number of pairs that a worker process keeps open, for as many comparisons at once."""


@contextmanager
def open_on_cluster(
    comparison: Comparison, cluster: ClusterOptions
) -> Iterator[tuple[Pair, MapReduce]]:
    """Open a pair in this process, and yield it with what counts its boxes on the cluster.

    Raises:
        OptionError: the cluster can't be used, or can't see the files, or the labels aren't files.
        ClusterError: it can't be started, or went away.
        WsiUnetError: see `open_pair`.
    """
    prediction, truth = _find_file(comparison.prediction), _find_file(comparison.truth)
    comparison = replace(comparison, prediction=prediction, truth=truth)
    pair = open_pair(comparison)
    files = (prediction, truth, comparison.within)
    with open_client(cluster) as client:
        check_paths(client, readable=[file for file in files if file is not None])
        compute = partial(_compute, client, cluster.max_retries)
        yield pair, MapReduce(partial(_get_pair, comparison), compute)
        with suppress(OSError, RuntimeError, CancelledError):
            client.run(_close_pair, comparison.number, on_error="ignore")


def _find_file(labels: LabelsLike) -> Location:
    """Return the location of labels, which means the same to any process.

    Raises:
        OptionError: labels that are open in this process can't be sent.
    """
    if isinstance(labels, xr.DataArray):
        raise OptionError(
            "labels that are open can't be sent to other processes; give the path that they were "
            "opened from, or leave out `workers` and `scheduler`"
        )
    return Location.parse(labels)


def _compute(client: Client, retries: int, task: Delayed) -> Any:
    """Return a task's result.

    Raises:
        ClusterError: there is no scheduler or no worker any more, or the task killed workers.
    """
    try:
        future = client.compute(task, retries=retries)
    except (OSError, RuntimeError) as error:  # the client has closed itself
        raise scheduler_lost_error(client, kept=False) from error
    try:
        return wait_for_result(client, future)
    except KilledWorker as error:
        raise ClusterError(
            f"{error.last_worker.address} and workers before it died while they compared "
            "(out of memory?); give them more memory, or start fewer per machine"
        ) from error


_PAIRS = ProcessCache[Pair](KEPT_OPEN)


def _get_pair(comparison: Comparison) -> Pair:
    """Return the pair as this process has opened it, once for all boxes."""
    return _PAIRS.get(comparison.number, lambda: open_pair(comparison))


def _close_pair(number: str) -> None:
    _PAIRS.release(number)
