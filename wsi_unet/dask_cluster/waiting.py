"""Waiting for results and workers of a cluster, for a limited time where there are no workers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from time import monotonic
from typing import TypeVar

from distributed import Client, Future, wait

from wsi_unet import logs
from wsi_unet.dask_cluster.scheduler import scheduler_lost_error
from wsi_unet.dask_cluster.workers import count_workers, is_cluster_alive
from wsi_unet.errors import ClusterError

LOOK_SECONDS = 5.0
"""How often to check that there are still a scheduler and workers."""

NO_WORKERS_SECONDS = 300.0
"""How long there may be no workers: new ones may be starting."""

T = TypeVar("T")


class WorkerWatch:
    """Warns when a cluster has lost all workers, and ends the wait for new ones.

    Args:
        kept: whether finished blocks are stored.
        clock: seconds that only go up.
    """

    def __init__(self, *, kept: bool, clock: Callable[[], float] = monotonic) -> None:
        self._kept = kept
        self._clock = clock
        self._since: float | None = None

    def observe(self, processes: int) -> None:
        """Take note of how many worker processes there are now.

        Raises:
            ClusterError: there have been none for too long.
        """
        if processes:
            self._since = None
        elif self._since is None:
            self._since = self._clock()
            logs.warn(
                "the Dask cluster has no workers any more; waiting for new ones, for at most "
                f"{NO_WORKERS_SECONDS:.0f} s"
            )
        elif self._clock() - self._since >= NO_WORKERS_SECONDS:
            done = "finished blocks are kept: " if self._kept else ""
            raise ClusterError(
                f"the Dask cluster has had no workers for {NO_WORKERS_SECONDS:.0f} s; {done}start "
                "some with `dask worker` and run the same command"
            )


def wait_for_result(client: Client, future: Future[T]) -> T:
    """Return what a task returned, or raise what it raised.

    Raises:
        ClusterError: the scheduler went away, or there have been no workers for too long.
    """
    watch = WorkerWatch(kept=False)
    while True:
        try:
            wait([future], timeout=LOOK_SECONDS)
        except TimeoutError:
            if not is_cluster_alive(client):
                raise scheduler_lost_error(client, kept=False) from None
            watch.observe(count_workers(client).processes)
            continue
        except CancelledError:
            pass  # `result` raises it again
        try:
            return future.result()
        except CancelledError as error:
            if client.status != "running":  # it may still try to reach the scheduler
                raise scheduler_lost_error(client, kept=False) from error
            raise ClusterError(f"the Dask cluster dropped a task ({error})") from error
