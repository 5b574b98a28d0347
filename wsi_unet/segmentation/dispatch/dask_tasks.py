"""Submitting tasks to Dask and fetching results: all that `BlocksInFlight` needs of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from distributed import Client, Future

from wsi_unet import logs
from wsi_unet.dask_cluster.scheduler import (
    broken_handshakes_as_closed,
    make_task_forgetter,
    scheduler_lost_error,
)
from wsi_unet.dask_cluster.waiting import WorkerWatch
from wsi_unet.dask_cluster.workers import WorkerCounts, count_workers
from wsi_unet.errors import ClusterError
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.worker.any_task import AnyTask, Result

ResultFuture = Future[Result]


class DaskTasks:
    """The tasks of one stream, as its Dask client sees them.

    Args:
        client: the cluster.
        run: what a worker does with a task.
        limits: how often workers are counted, and how long collecting may take.
        count: counts the workers.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        client: Client,
        run: Callable[[Any], Result],
        limits: Limits,
        *,
        count: Callable[[Client], WorkerCounts] = count_workers,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._client = client
        self._run = run
        self._limits = limits
        self._count = count
        self._clock = clock
        self._answers: SimpleQueue[str] = SimpleQueue()
        self._submitted = self._forgotten = 0
        self.workers = WorkerCounts(0, 0, 0, 0)
        """The workers there are, as of the last count."""
        self._watch = WorkerWatch(kept=True, clock=clock)
        self._counted = -limits.count_seconds
        self.count_workers()

    def count_workers(self) -> None:
        """Count the workers, if the last count is long enough ago.

        Raises:
            ClusterError: the scheduler went away, or there have been no workers for too long.
        """
        if self._clock() - self._counted < self._limits.count_seconds:
            return
        try:
            workers, self._counted = self._count(self._client), self._clock()
        except ClusterError as error:
            raise scheduler_lost_error(self._client) from error
        self._watch.observe(workers.processes)
        if workers != self.workers:
            logs.event("workers", **asdict(workers))
            self.workers = workers

    def forget_old(self) -> None:
        """Have the scheduler forget what Dask keeps of tasks that are long done."""
        if self._submitted - self._forgotten >= self._limits.kept_tasks:
            self._forgotten = self._submitted
            with broken_handshakes_as_closed():
                self._client.run_on_scheduler(make_task_forgetter())

    def check(self) -> None:
        """Check that the scheduler is there.

        Raises:
            ClusterError: it went away.
        """
        if self._client.status not in ("running", "connecting"):
            raise scheduler_lost_error(self._client)

    def submit(self, task: AnyTask) -> tuple[str, ResultFuture]:
        """Submit a task to the cluster; return its key and its future.

        Raises:
            ClusterError: the scheduler went away.
        """
        self._submitted += 1
        # Never the same key twice: the scheduler would return the old, failed future.
        key = f"{task.key}-{self._submitted}"
        try:
            future = self._client.submit(self._run, task, key=key, pure=False)
        except (OSError, RuntimeError) as error:  # the client has closed itself
            raise scheduler_lost_error(self._client) from error
        future.add_done_callback(lambda done: self._answers.put(done.key))
        return key, future

    def wait(self, patience: float) -> list[str]:
        """Return the keys of all that has ended; none after `patience` seconds without any."""
        keys = []
        try:
            keys.append(self._answers.get(timeout=patience))
            while True:
                keys.append(self._answers.get_nowait())
        except Empty:
            return keys

    def fetch(self, futures: list[ResultFuture]) -> list[Result]:
        """Return the results of tasks that have ended, collected all at once."""

        async def gather() -> list[Result]:
            results: list[Result] = await self._client.gather(futures, asynchronous=True)
            return results

        collected: list[Result] = self._client.sync(
            gather, callback_timeout=self._limits.collect_seconds
        )
        return collected

    def cancel(self, futures: Iterable[ResultFuture]) -> None:
        """Cancel tasks, if the cluster is still there."""
        taken_back = list(futures)
        if taken_back and self._client.status == "running":
            self._client.cancel(taken_back)
