"""Retries, deadlines, deaths and losses, block by block, on a cluster that tests control."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from distributed import Client, KilledWorker
from distributed.scheduler import WorkerState

from wsi_unet.dask_cluster.waiting import NO_WORKERS_SECONDS
from wsi_unet.dask_cluster.workers import WorkerCounts
from wsi_unet.errors import BlockError, ClusterError
from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.dispatch.dask_tasks import DaskTasks
from wsi_unet.segmentation.dispatch.in_flight import (
    BlockDone,
    BlockFailed,
    BlocksInFlight,
    NothingEnded,
)
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.worker.task import Run, Task

LIMITS = Limits(retries=1)
RUN = Run("nowhere", "labels", "signature", "session")


@dataclass
class FakeFuture:
    key: str
    task: Task
    status: str = "pending"
    error: Exception | None = None
    callback: Callable[[FakeFuture], None] = lambda _: None
    lost: bool = False
    failed_since: Exception | None = None

    def add_done_callback(self, callback: Callable[[FakeFuture], None]) -> None:
        self.callback = callback

    def exception(self) -> Exception | None:
        return self.error

    def end(self, status: str = "finished", error: Exception | None = None) -> None:
        self.status, self.error = status, error
        self.callback(self)


@dataclass
class FakeClient:
    status: str = "running"
    scheduler: None = None
    futures: list[FakeFuture] = field(default_factory=list)
    cancelled: list[FakeFuture] = field(default_factory=list)

    def submit(self, _: object, task: Task, *, key: str, pure: bool) -> FakeFuture:
        assert not pure
        assert key not in {future.key for future in self.futures}
        self.futures.append(FakeFuture(key, task))
        return self.futures[-1]

    def cancel(self, futures: list[FakeFuture]) -> None:
        self.cancelled += futures

    async def gather(self, futures: list[FakeFuture], *, asynchronous: bool) -> list[BlockMarker]:
        assert asynchronous
        if any(future.lost for future in futures):
            raise TimeoutError
        for future in futures:
            if future.failed_since is not None:
                raise future.failed_since
        return [marker_of(future.task) for future in futures]

    def sync(self, function: Callable[[], Awaitable[Any]], callback_timeout: float) -> Any:
        assert callback_timeout > 0
        coroutine = function()
        try:
            coroutine.__await__().send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it waits")


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def marker_of(task: Task) -> BlockMarker:
    return BlockMarker(
        block=task.index, signature="s", counts=(), seconds={}, attempts=task.attempt, shards={}
    )


def run(_: Task) -> BlockMarker:
    raise AssertionError("nothing runs here")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def workers() -> list[WorkerCounts]:
    """Return the workers there are: the last of the list."""
    return [WorkerCounts(processes=2, threads=2, per_host=2, total_threads=4)]


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def in_flight(client: FakeClient, clock: FakeClock, workers: list[WorkerCounts]) -> BlocksInFlight:
    tasks = DaskTasks(cast(Client, client), run, LIMITS, count=lambda _: workers[-1], clock=clock)
    return BlocksInFlight(tasks, LIMITS, clock)


def task(number: int, deadline: float = 100.0) -> Task:
    return Task(RUN, (number, 0), deadline=deadline)


def test_a_block_that_fails_is_tried_again_and_then_reported(
    in_flight: BlocksInFlight, client: FakeClient
) -> None:
    in_flight.submit(task(0))
    client.futures[0].end("error", OSError("no disk"))
    assert in_flight.next_events(0) == [NothingEnded()]
    assert client.futures[1].task.attempt == 2
    client.futures[1].end("error", OSError("still no disk"))
    (event,) = in_flight.next_events(0)
    assert isinstance(event, BlockFailed)
    assert event.error == "still no disk"
    assert len(in_flight) == 0


def test_many_answers_come_at_once(in_flight: BlocksInFlight, client: FakeClient) -> None:
    for number in range(10):
        in_flight.submit(task(number))
    for future in client.futures[:7]:
        future.end()
    events = in_flight.next_events(0)
    assert [event.task.index[0] for event in events if isinstance(event, BlockDone)] == [*range(7)]
    assert len(in_flight) == 3
    assert in_flight.free_slots == LIMITS.tasks_per_thread * 4 - 3


def test_blocks_whose_worker_died_again_and_again_are_tried_alone(
    in_flight: BlocksInFlight, client: FakeClient
) -> None:
    for number in range(2):
        in_flight.submit(task(number))
    for future in client.futures[:2]:
        future.end("error", killed(future.task))
    assert in_flight.next_events(0) == [NothingEnded()]
    assert (len(in_flight), in_flight.suspects) == (0, 2)
    in_flight.submit_suspect()
    client.futures[2].end()
    assert isinstance(in_flight.next_events(0)[0], BlockDone)
    in_flight.submit_suspect()
    client.futures[3].end("error", killed(client.futures[3].task))
    (event,) = in_flight.next_events(0)
    assert isinstance(event, BlockFailed)
    assert "worker process" in event.error
    assert (len(in_flight), in_flight.suspects) == (0, 0)


def test_a_result_lost_with_its_worker_is_asked_for_again(
    in_flight: BlocksInFlight, client: FakeClient
) -> None:
    in_flight.submit(task(0))
    client.futures[0].lost = True
    client.futures[0].end()
    assert in_flight.next_events(0) == [NothingEnded()]
    client.futures[1].end("cancelled")
    assert in_flight.next_events(0) == [NothingEnded()]
    client.futures[2].end()
    (event,) = in_flight.next_events(0)
    assert isinstance(event, BlockDone)
    assert event.task.attempt == 1


def test_a_block_that_fails_when_dask_runs_it_again_fails_alone(
    in_flight: BlocksInFlight, client: FakeClient
) -> None:
    for number in range(2):
        in_flight.submit(task(number))
    client.futures[0].failed_since = BlockError("its worker died, and the next can't read")
    for future in client.futures[:2]:
        future.end()
    assert in_flight.next_events(0) == [NothingEnded()]
    assert [future.task.index[0] for future in client.futures] == [0, 1, 0, 1]
    client.futures[2].end("error", BlockError("can't read"))
    client.futures[3].end()
    (event,) = in_flight.next_events(0)
    assert isinstance(event, BlockDone)
    assert event.task.index == (1, 0)
    assert client.futures[4].task == Task(RUN, (0, 0), attempt=2, deadline=100.0)


def test_a_block_that_is_always_lost_fails_in_the_end(
    in_flight: BlocksInFlight, client: FakeClient
) -> None:
    in_flight.submit(task(0))
    for _ in range(2 * LIMITS.losses + 10):
        client.futures[-1].end("cancelled")
        (event,) = in_flight.next_events(0)
        if isinstance(event, BlockFailed):
            break
    assert isinstance(event, BlockFailed)
    assert "lost" in event.error


def test_a_block_that_hangs_while_others_end_is_given_up(
    in_flight: BlocksInFlight, client: FakeClient, clock: FakeClock
) -> None:
    in_flight.submit(task(0))
    for number in range(1, 40):
        in_flight.submit(task(number))
        clock.now += 10
        client.futures[-1].end()
        in_flight.next_events(0)
        if client.cancelled:
            break
    assert [future.task.index for future in client.cancelled] == [(0, 0)]
    assert clock.now - 1000 > 100
    assert client.futures[-1].task == Task(RUN, (0, 0), attempt=2, deadline=100.0)
    assert not in_flight.stuck


def test_blocks_that_wait_long_for_a_thread_have_not_hung(
    in_flight: BlocksInFlight, client: FakeClient, clock: FakeClock
) -> None:
    for number in range(12):
        in_flight.submit(task(number))
    for future in list(client.futures):
        clock.now += 99  # one after the other: the last one waits for twelve times as long
        future.end()
        assert isinstance(in_flight.next_events(0)[0], BlockDone)
    assert not client.cancelled


def test_when_everything_hangs_twice_the_run_ends(
    in_flight: BlocksInFlight, client: FakeClient, clock: FakeClock
) -> None:
    for number in range(3):
        in_flight.submit(task(number))
    clock.now += 101
    assert in_flight.next_events(0) == [NothingEnded()]
    assert len(client.cancelled) == 3
    assert not in_flight.stuck
    clock.now += 101
    events = in_flight.next_events(0)
    assert [type(event) for event in events] == [BlockFailed] * 3
    assert in_flight.stuck


def test_time_without_workers_does_not_count(
    in_flight: BlocksInFlight, client: FakeClient, clock: FakeClock, workers: list[WorkerCounts]
) -> None:
    in_flight.submit(task(0))
    workers.append(WorkerCounts(0, 0, 0, 0))
    clock.now += 50
    assert in_flight.next_events(0) == [NothingEnded()]
    assert in_flight.free_slots == -1
    for _ in range(5):
        clock.now += 50
        assert in_flight.next_events(0) == [NothingEnded()]
    assert not client.cancelled
    workers.append(workers[0])
    clock.now += 6
    client.futures[0].end()
    assert isinstance(in_flight.next_events(0)[0], BlockDone)


def test_workers_are_counted_also_when_there_is_nothing_more_to_submit(
    in_flight: BlocksInFlight, client: FakeClient, clock: FakeClock, workers: list[WorkerCounts]
) -> None:
    in_flight.submit(task(0))
    workers.append(WorkerCounts(0, 0, 0, 0))
    for _ in range(6):
        clock.now += 50
        assert in_flight.next_events(0) == [NothingEnded()]
    assert not client.cancelled
    workers.append(workers[0])
    for _ in range(3):  # those who came hang: that is noticed too
        clock.now += 50
        in_flight.next_events(0)
    assert len(client.cancelled) == 1


def test_waiting_for_workers_is_said_each_time_and_has_an_end(
    in_flight: BlocksInFlight,
    clock: FakeClock,
    workers: list[WorkerCounts],
    caplog: pytest.LogCaptureFixture,
) -> None:
    some, none = workers[0], WorkerCounts(0, 0, 0, 0)
    in_flight.submit(task(0, deadline=1e9))
    for present in (none, none, some, none):
        workers.append(present)
        clock.now += NO_WORKERS_SECONDS - 1
        in_flight.next_events(0)
    clock.now += NO_WORKERS_SECONDS
    with pytest.raises(ClusterError, match=r"no workers for 300 s; finished blocks are kept: sta"):
        in_flight.next_events(0)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 2
    assert said[0].endswith("has no workers any more; waiting for new ones, for at most 300 s")


def test_a_straggler_runs_twice_where_a_process_is_idle(
    in_flight: BlocksInFlight, client: FakeClient, clock: FakeClock
) -> None:
    for number in range(3):
        in_flight.submit(task(number))
    clock.now += 5
    client.futures[0].end()
    in_flight.next_events(0)
    in_flight.duplicate_stragglers()
    assert len(client.futures) == 3
    clock.now += 30
    in_flight.duplicate_stragglers()
    in_flight.duplicate_stragglers()
    assert [future.task.index[0] for future in client.futures] == [0, 1, 2, 1, 2]
    client.futures[3].end("error", OSError("the twin fails, the first continues"))
    assert in_flight.next_events(0) == [NothingEnded()]
    in_flight.duplicate_stragglers()
    assert len(client.futures) == 5, "a twin that fails would fail again and again"
    client.futures[1].end()
    client.futures[4].end()
    client.futures[2].end()
    events = in_flight.next_events(0)
    assert sorted(e.task.index[0] for e in events if isinstance(e, BlockDone)) == [1, 2]
    assert len(in_flight) == 0


def test_in_one_process_nothing_runs_twice(
    in_flight: BlocksInFlight, client: FakeClient, clock: FakeClock, workers: list[WorkerCounts]
) -> None:
    workers.append(WorkerCounts(processes=1, threads=2, per_host=1, total_threads=2))
    clock.now += LIMITS.count_seconds
    assert in_flight.next_events(0) == [NothingEnded()]
    in_flight.submit(task(0))
    clock.now += 1
    client.futures[0].end()
    in_flight.next_events(0)
    in_flight.submit(task(1))
    clock.now += 50
    in_flight.duplicate_stragglers()
    assert len(client.futures) == 2


def test_a_lost_scheduler_is_reported(in_flight: BlocksInFlight, client: FakeClient) -> None:
    in_flight.submit(task(0))
    client.status = "closed"
    with pytest.raises(ClusterError, match="went away"):
        in_flight.next_events(0)


def killed(task: Task) -> KilledWorker:
    last_worker = cast(WorkerState, SimpleNamespace(address="tcp://127.0.0.1:1"))
    return KilledWorker(task.key, last_worker, 4)
