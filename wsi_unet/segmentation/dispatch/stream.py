"""Blocks onto Dask and markers back, only a few of them with the scheduler at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from distributed import Client

from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.dispatch.events import Event
from wsi_unet.segmentation.dispatch.in_flight import BlocksInFlight
from wsi_unet.segmentation.worker.task import Task, run_task

PATIENCE = 1.0
"""Seconds without an answer after which the caller is told so."""

PATIENCE_FOR_TASKS = 0.05
"""The same while there is room for tasks that aren't known yet."""


def stream(
    client: Client,
    tasks: Iterable[Task | None],
    *,
    retries: int = 1,
    run: Callable[[Task], BlockMarker] = run_task,
) -> Iterator[Event]:
    """Run `tasks` and yield what becomes of each, in the order in which they end.

    Only a few tasks per worker thread are with the scheduler at any time, however many there are.
    When the caller stops iterating, the tasks in flight are cancelled. When everything hangs, also
    when begun anew, what is left isn't begun.

    Args:
        client: the cluster.
        tasks: the blocks; taken one by one as there is room. None means that there will be more,
            but not now.
        retries: how often a block that fails is tried again.
        run: what a worker does with a task.

    Raises:
        ClusterError: the scheduler went away.
    """
    flight = BlocksInFlight(client, run, retries=retries)
    waiting = iter(tasks)
    more = True
    try:
        while True:
            patience = PATIENCE
            for _ in range(flight.room() if more else 0):
                try:
                    task = next(waiting)
                except StopIteration:
                    more = False
                    break
                if task is None:
                    patience = PATIENCE_FOR_TASKS
                    break
                flight.submit(task)
            if not more:
                flight.duplicate_stragglers()
                if not len(flight) and flight.suspects:
                    flight.submit_suspect()
                if not len(flight):
                    return
            yield from flight.next_events(patience)
            if flight.stuck:
                return
    finally:
        flight.cancel()
