"""Streaming blocks through Dask, with only a few of them at the scheduler at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from distributed import Client

from wsi_unet.dask_cluster.workers import WorkerCounts, count_workers
from wsi_unet.segmentation.dispatch.dask_tasks import DaskTasks
from wsi_unet.segmentation.dispatch.in_flight import BlocksInFlight, Event
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.worker.any_task import AnyTask, Result, run_any_task

PATIENCE = 1.0
"""Seconds without an answer after which `NothingEnded` is yielded."""

PATIENCE_FOR_TASKS = 0.05
"""The same while there is room for tasks that aren't known yet."""


def stream(
    client: Client,
    tasks: Iterable[AnyTask | None],
    *,
    limits: Limits | None = None,
    run: Callable[[Any], Result] = run_any_task,
    count: Callable[[Client], WorkerCounts] = count_workers,
) -> Iterator[Event]:
    """Run `tasks` and yield what becomes of each, in the order in which they end.

    Only a few tasks per worker thread are with the scheduler at any time, however many there are.
    When the caller stops iterating, the tasks in flight are cancelled. When everything hangs, even
    after it was submitted again, the remaining tasks aren't started.

    Args:
        client: the cluster.
        tasks: the blocks; taken one by one as there is room. None means that there will be more,
            but not now.
        limits: how much is in flight, and how patient to be with it; None is `Limits()`.
        run: what a worker does with a task.
        count: counts the workers.

    Raises:
        ClusterError: the scheduler went away.
    """
    limits = limits or Limits()
    in_flight = BlocksInFlight(DaskTasks(client, run, limits, count=count), limits)
    waiting = iter(tasks)
    more = True
    try:
        while True:
            patience, idle = PATIENCE, not more
            for _ in range(in_flight.free_slots if more else 0):
                try:
                    task = next(waiting)
                except StopIteration:
                    more, idle = False, True
                    break
                if task is None:
                    patience, idle = PATIENCE_FOR_TASKS, True
                    break
                in_flight.submit(task)
            if idle:  # later tasks may wait for those in flight
                in_flight.duplicate_stragglers()
                if not len(in_flight) and in_flight.suspects:
                    in_flight.submit_suspect()
                if not len(in_flight) and not more:
                    return
            yield from in_flight.next_events(patience)
            if in_flight.stuck:
                return
    finally:
        in_flight.cancel()
