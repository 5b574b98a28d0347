"""Blocks onto Dask and markers back: a bounded window of tasks in flight, one retry, a deadline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from time import monotonic

from distributed import Client, Future

from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segment.cluster import count_workers
from wsi_unet.segment.task import Task, run_task

ATTEMPTS = 2
TASKS_PER_THREAD = 3
"""In-flight tasks per worker thread: enough that no thread waits for the client's answer."""

COUNT_WORKERS_EVERY = 5.0
"""Seconds between looks at how many worker threads there are; they come and go."""


@dataclass(frozen=True)
class Done:
    """A block that is stored and marked."""

    task: Task
    marker: BlockMarker


@dataclass(frozen=True)
class Failed:
    """A block that failed at its last attempt."""

    task: Task
    error: str


@dataclass(frozen=True)
class Waiting:
    """Nothing happened for a second; lets the caller draw its progress or stop."""


Event = Done | Failed | Waiting


class _Flight:
    """The tasks in flight: submitted and not yet answered."""

    def __init__(self, client: Client, deadline: float) -> None:
        self._client = client
        self._deadline = deadline
        self._answers: SimpleQueue[str] = SimpleQueue()
        self._in_flight: dict[str, tuple[Task, Future[BlockMarker]]] = {}
        self._threads = 0
        self._counted = -COUNT_WORKERS_EVERY
        self._last_end = monotonic()
        self._stalls = 0

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def stuck(self) -> bool:
        """Whether nothing has ended although everything in flight was begun anew."""
        return self._stalls >= ATTEMPTS

    def room(self) -> int:
        """Return how many more tasks may be submitted now."""
        if monotonic() - self._counted >= COUNT_WORKERS_EVERY:
            threads = count_workers(self._client).total_threads
            self._threads, self._counted = threads, monotonic()
        return TASKS_PER_THREAD * self._threads - len(self)

    def submit(self, task: Task) -> None:
        if not self._in_flight:
            self._last_end = monotonic()
        # Explicit keys, since a retry under the same key would return the old, failed future.
        future = self._client.submit(run_task, task, key=task.key, pure=False)
        self._in_flight[task.key] = task, future
        future.add_done_callback(lambda done: self._answers.put(done.key))

    def next_events(self) -> list[Event]:
        """Return what has ended; after about a second of nothing, that."""
        try:
            key = self._answers.get(timeout=1)
        except Empty:
            return self._overdue() or [Waiting()]
        if key not in self._in_flight:  # given up before it ended
            return [Waiting()]
        self._last_end, self._stalls = monotonic(), 0
        task, future = self._in_flight.pop(key)
        if future.status == "finished":
            return [Done(task, future.result())]
        error = future.exception() if future.status == "error" else None
        return [self._retry(task, str(error) if error else "the task was lost by the cluster")]

    def _overdue(self) -> list[Event]:
        """Give up everything in flight if nothing has ended for as long as the deadline.

        While other blocks end, a hung one only costs its thread; its time runs when it is alone.
        """
        if monotonic() - self._last_end <= self._deadline:
            return []
        self._last_end = monotonic()
        self._stalls += 1
        given_up = list(self._in_flight.values())
        self.cancel()
        return [
            self._retry(task, f"no answer within {self._deadline:.0f} s") for task, _ in given_up
        ]

    def _retry(self, task: Task, error: str) -> Event:
        if task.attempt < ATTEMPTS:
            self.submit(replace(task, attempt=task.attempt + 1))
            return Waiting()
        return Failed(task, error)

    def cancel(self) -> None:
        """Forget everything in flight."""
        for _, future in self._in_flight.values():
            future.cancel()
        self._in_flight.clear()


def stream(client: Client, tasks: Iterable[Task], *, deadline: float) -> Iterator[Event]:
    """Run `tasks` and yield what becomes of each, in the order in which they end.

    Only a few tasks per worker thread are with the scheduler at any time, however many there are.
    When the caller stops iterating, the tasks in flight are cancelled. When everything hangs, also
    the second time, what is left isn't begun.

    Args:
        client: the cluster.
        tasks: the blocks; taken one by one as there is room.
        deadline: seconds without any block ending after which those in flight count as hung.
    """
    flight = _Flight(client, deadline)
    waiting = iter(tasks)
    more = True
    try:
        while True:
            for _ in range(flight.room() if more else 0):
                task = next(waiting, None)
                if task is None:
                    more = False
                    break
                flight.submit(task)
            if not len(flight):
                return
            yield from flight.next_events()
            if flight.stuck:
                return
    finally:
        flight.cancel()
