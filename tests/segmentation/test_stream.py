"""Few of many tasks are in flight: with Dask, and with 10⁵ of them on a stub."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from queue import SimpleQueue
from typing import cast

from dask.utils import key_split
from distributed import Client, Scheduler

from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.workers import WorkerCounts, count_workers
from wsi_unet.geometry import BlockGrid
from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.dispatch.stream import stream
from wsi_unet.segmentation.worker.task import Run, Task

LIMITS = Limits()


class Counted:
    """Tasks that count how many were taken and haven't returned."""

    def __init__(self, side: int) -> None:
        self.total = side * side
        self.taken = self.most = 0
        self.ended: set[tuple[int, int]] = set()
        self._grid = BlockGrid((side, side), 1)

    def __iter__(self) -> Iterator[Task]:
        for index in self._grid:
            self.taken += 1
            self.most = max(self.most, self.taken - len(self.ended))
            yield Task(Run("nowhere", "labels", "s", "0"), index)

    def run(
        self,
        client: Client,
        limits: Limits,
        count: Callable[[Client], WorkerCounts] = count_workers,
    ) -> int:
        """Stream all tasks; return how many failed."""
        failed = 0
        for event in stream(client, self, limits=limits, run=marker_of, count=count):
            if isinstance(event, BlockDone):
                self.ended.add(event.task.index)
            failed += isinstance(event, BlockFailed)
        return failed


def marker_of(task: Task) -> BlockMarker:
    return BlockMarker(
        block=task.index, signature="s", counts=(), seconds={}, attempts=1, shards={}
    )


def test_few_tasks_are_with_dask() -> None:
    tasks = Counted(side=30)
    with open_client(ClusterOptions()) as client:
        bound = LIMITS.tasks_per_thread * count_workers(client).total_threads
        assert tasks.run(client, LIMITS) == 0
    assert len(tasks.ended) == tasks.total == 900
    assert tasks.most <= bound


def kept_by_the_scheduler(dask_scheduler: Scheduler) -> int:
    spans = dask_scheduler.extensions["spans"].spans.values()
    entries = sum(len(span.metadata["collections"]) for span in spans)
    return int(entries + key_split.cache_info().currsize)


def test_the_scheduler_forgets_old_tasks() -> None:
    """Dask keeps an entry for every task of a span, for ever, and 100,000 names."""
    with open_client(ClusterOptions()) as client:
        Counted(side=30).run(client, Limits(look_seconds=0.0))
        assert client.run_on_scheduler(kept_by_the_scheduler) > 900
        Counted(side=30).run(client, Limits(look_seconds=0.0, kept_tasks=50))
        assert client.run_on_scheduler(kept_by_the_scheduler) < 600


class StubFuture:
    """A future that is passed to whoever ends it, once it has a callback."""

    def __init__(self, key: str, task: Task, submitted: SimpleQueue[StubFuture | None]) -> None:
        self.key, self.task, self.status = key, task, "pending"
        self._submitted = submitted
        self.callback: Callable[[StubFuture], None]

    def add_done_callback(self, callback: Callable[[StubFuture], None]) -> None:
        self.callback = callback
        self._submitted.put(self)

    def exception(self) -> Exception:
        return OSError("the disk went away")


class StubClient:
    """A client that ends tasks in another thread and order; some fail, some of them always.

    A real scheduler would take minutes for so many tasks.
    """

    status = "running"

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.forgotten = 0
        self._submitted: SimpleQueue[StubFuture | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> StubClient:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._submitted.put(None)
        self._thread.join()

    def submit(self, _: object, task: Task, *, key: str, pure: bool) -> StubFuture:
        assert not pure
        assert key not in self.keys, "Dask would return the old future"
        self.keys.add(key)
        return StubFuture(key, task, self._submitted)

    async def gather(self, futures: list[StubFuture], *, asynchronous: bool) -> list[BlockMarker]:
        assert asynchronous
        return [marker_of(future.task) for future in futures]

    def sync(
        self, gather: Callable[[], Awaitable[list[BlockMarker]]], callback_timeout: float
    ) -> list[BlockMarker]:
        assert callback_timeout > 0
        return asyncio.run(cast(Coroutine[None, None, list[BlockMarker]], gather()))

    def run_on_scheduler(self, forget: object) -> None:
        self.forgotten += 1

    def _work(self) -> None:
        held: list[StubFuture] = []
        order = random.Random(0)
        while (future := self._submitted.get()) is not None:
            held.append(future)
            while held and self._submitted.empty():
                ended = held.pop(order.randrange(len(held)))
                ended.status = "error" if fails(ended.task) else "finished"
                ended.callback(ended)


def fails(task: Task) -> bool:
    row, column = task.index
    return column == 7 and (task.attempt == 1 or row == 7)


def test_few_of_a_hundred_thousand_tasks_are_in_flight() -> None:
    workers = WorkerCounts(processes=4, threads=2, per_host=4, total_threads=8)
    tasks = Counted(side=317)
    with StubClient() as client:
        failed = tasks.run(cast(Client, client), LIMITS, count=lambda _: workers)
    assert failed == 1
    assert len(tasks.ended) == tasks.total - 1 > 10**5
    assert len(client.keys) == tasks.total + 317  # a column was tried twice
    assert tasks.most <= LIMITS.tasks_per_thread * workers.total_threads + failed
    assert client.forgotten <= tasks.total // LIMITS.kept_tasks + 1
