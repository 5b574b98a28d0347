"""The blocks in flight: with the scheduler, and not yet answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from queue import Empty, SimpleQueue
from statistics import median
from time import monotonic

from distributed import Client, Future, KilledWorker

from wsi_unet import logs
from wsi_unet.dask_cluster.cluster import Workers, count_workers
from wsi_unet.dask_cluster.scheduler import forgetting, went_away
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.dispatch.events import Done, Event, Failed, Waiting
from wsi_unet.segmentation.worker.task import Run, Task

TASKS_PER_THREAD = 3
"""In-flight tasks per worker thread: enough that no thread waits for the client's answer."""

COUNT_WORKERS_EVERY = 5.0
"""Seconds between looks at how many worker threads there are; they come and go."""

COLLECT_SECONDS = 30.0
"""How long markers may take from the workers to here; then their blocks are asked again."""

LOOK_EVERY = 5.0
"""Seconds between looks for blocks that have hung, while others end."""

MOST_LOSSES = 20
"""How often the cluster may lose one block's task, with its worker or its result."""

KEPT = 10_000
"""Blocks after which the scheduler is made to forget old ones; Dask keeps 600 bytes of each."""

SLOW_FACTOR, SLOW_SECONDS = 4.0, 10.0
"""A last block is begun a second time when it takes this many times the usual, and this long."""


Place = tuple[Run, BlockIndex]


@dataclass
class _InFlight:
    """One block in flight.

    Attributes:
        task: its latest attempt.
        futures: what of it is with the scheduler, by key; more than one for a straggler.
        since: when it was last begun.
        ended_before: how many blocks had ended then.
        losses: how often the cluster lost it.
        twice: whether it was begun a second time, as a straggler.
        alone: whether nothing else is in flight, because it may kill its worker.
    """

    task: Task
    futures: dict[str, Future[BlockMarker]] = field(default_factory=dict)
    since: float = 0.0
    ended_before: int = 0
    losses: int = 0
    twice: bool = False
    alone: bool = False


class BlocksInFlight:
    """Tasks submitted and not yet answered; answers, retries and deadlines.

    A block that fails is tried again. One that was on several workers as they died is set aside
    and, at the end, tried with nothing else in flight, so that the blocks that died with it aren't
    blamed. One that doesn't end within its deadline is given up and tried again; whether it has
    hung shows in later blocks having ended meanwhile, or in nothing ending at all. What runs on
    alone at the end is begun a second time where another process is idle: whichever ends first
    counts, and a block may run twice.

    Args:
        client: the cluster.
        run: what a worker does with a task.
        retries: how often a block that fails is tried again.
    """

    def __init__(self, client: Client, run: Callable[[Task], BlockMarker], *, retries: int) -> None:
        self._client = client
        self._run = run
        self._attempts = retries + 1
        self._answers: SimpleQueue[str] = SimpleQueue()
        self._blocks: dict[Place, _InFlight] = {}
        self._keys: dict[str, _InFlight] = {}
        self._suspects: deque[Task] = deque()
        self._workers = Workers(0, 0, 0, 0)
        self._counted = -COUNT_WORKERS_EVERY
        self._begun = self._forgotten = self._ended = self._stalls = 0
        self._last_end = self._look_again = monotonic()
        self._durations: deque[float] = deque(maxlen=50)

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def stuck(self) -> bool:
        """Whether nothing has ended although everything in flight was begun anew."""
        return self._stalls >= max(2, self._attempts)

    @property
    def suspects(self) -> int:
        """How many blocks were set aside, because workers died with them."""
        return len(self._suspects)

    def room(self) -> int:
        """Return how many more tasks may be submitted now."""
        self._count_workers()
        return TASKS_PER_THREAD * self._workers.total_threads - len(self)

    def submit(self, task: Task) -> None:
        """Give a block to the cluster."""
        if not self._blocks:
            self._last_end = monotonic()
        self._begin(_InFlight(task))

    def submit_suspect(self) -> None:
        """Give one block that was set aside to the cluster, with nothing else there."""
        self._begin(_InFlight(self._suspects.popleft(), alone=True))

    def duplicate_stragglers(self) -> None:
        """Begin blocks that take unusually long a second time, if a process has nothing to do."""
        idle = self._workers.total_threads - len(self._keys)
        if self._workers.processes < 2 or idle <= 0 or not self._durations:
            return
        slow = max(SLOW_SECONDS, SLOW_FACTOR * median(self._durations))
        late = [
            flown
            for flown in self._blocks.values()
            if not (flown.twice or flown.alone) and monotonic() - flown.since > slow
        ]
        for flown in late[:idle]:
            logs.event("block begun twice", block=flown.task.key)
            flown.twice = True
            self._send(flown)

    def next_events(self, patience: float) -> list[Event]:
        """Return what has ended; after `patience` seconds of nothing, that."""
        events: list[Event] = []
        keys = self._wait(patience)
        if not keys or monotonic() >= self._look_again:
            self._look_again = monotonic() + LOOK_EVERY
            self._check_cluster()
            self._count_workers()
            self._forget_old()
            events += self._overdue()
        finished: list[tuple[_InFlight, Future[BlockMarker]]] = []
        for key in keys:
            flown = self._keys.get(key)
            if flown is None:  # given up before it ended
                continue
            future = flown.futures[key]
            if future.status == "finished":
                finished.append((flown, future))
            else:
                events += self._take_error(flown, key, future)
        return events + self._collect(finished) or [Waiting()]

    def cancel(self) -> None:
        """Forget everything in flight."""
        futures = [future for flown in self._blocks.values() for future in flown.futures.values()]
        self._blocks.clear()
        self._keys.clear()
        self._suspects.clear()
        if futures and self._client.status == "running":
            self._client.cancel(futures)

    def _count_workers(self) -> None:
        """Look how many workers there are, if the last look is long enough ago."""
        if monotonic() - self._counted < COUNT_WORKERS_EVERY:
            return
        workers, self._counted = count_workers(self._client), monotonic()
        if workers != self._workers:
            logs.event("workers", **asdict(workers))
            self._workers = workers

    def _forget_old(self) -> None:
        """Have the scheduler forget what Dask keeps of tasks that are long done."""
        if self._begun - self._forgotten >= KEPT:
            self._forgotten = self._begun
            self._client.run_on_scheduler(forgetting())

    def _begin(self, flown: _InFlight) -> None:
        flown.since, flown.ended_before, flown.twice = monotonic(), self._ended, False
        self._blocks[flown.task.run, flown.task.index] = flown
        self._send(flown)

    def _send(self, flown: _InFlight) -> None:
        self._begun += 1
        # Never the same key twice: the scheduler would return the old, failed future.
        key = f"{flown.task.key}-{self._begun}"
        try:
            future = self._client.submit(self._run, flown.task, key=key, pure=False)
        except (OSError, RuntimeError) as error:  # the client has closed itself
            raise went_away(self._client) from error
        self._keys[key] = flown
        flown.futures[key] = future
        future.add_done_callback(lambda done: self._answers.put(done.key))

    def _wait(self, patience: float) -> list[str]:
        """Return the keys that were answered, all there are; after `patience` s of none, none."""
        keys = []
        try:
            keys.append(self._answers.get(timeout=patience))
            while True:
                keys.append(self._answers.get_nowait())
        except Empty:
            return keys

    def _collect(self, finished: Iterable[tuple[_InFlight, Future[BlockMarker]]]) -> list[Event]:
        """Return the markers of blocks that have ended, fetched all at once."""
        unique = {id(flown): (flown, future) for flown, future in finished}.values()
        if not unique:
            return []
        try:
            markers = self._fetch([future for _, future in unique])
        except Exception:
            # A worker died with its result; where Dask has run the block again, that may have
            # failed with anything. It is marked, so asking again costs nothing, and tells whose
            # error that is.
            self._check_cluster()
            return [event for flown, _ in unique for event in self._take_loss(flown)]
        events: list[Event] = []
        for (flown, _), marker in zip(unique, markers, strict=True):
            self._forget(flown)
            self._ended, self._stalls, self._last_end = self._ended + 1, 0, monotonic()
            self._durations.append(self._last_end - flown.since)
            events.append(Done(flown.task, marker))
        return events

    def _fetch(self, futures: list[Future[BlockMarker]]) -> list[BlockMarker]:
        async def gather() -> list[BlockMarker]:
            found: list[BlockMarker] = await self._client.gather(futures, asynchronous=True)
            return found

        found: list[BlockMarker] = self._client.sync(gather, callback_timeout=COLLECT_SECONDS)
        return found

    def _take_error(self, flown: _InFlight, key: str, future: Future[BlockMarker]) -> list[Event]:
        error = future.exception() if future.status == "error" else None
        if len(flown.futures) > 1:  # its twin may still do it
            del flown.futures[key], self._keys[key]
            return []
        if error is None:
            self._check_cluster()
            return self._take_loss(flown)
        self._last_end = monotonic()
        if not isinstance(error, KilledWorker):
            return self._retry(flown, str(error))
        self._forget(flown)
        if flown.alone:
            reason = "every worker process that ran it died (out of memory, or a broken library)"
            return [Failed(flown.task, reason)]
        logs.event("block set aside", block=flown.task.key, error=str(error))
        self._suspects.append(flown.task)
        return []

    def _take_loss(self, flown: _InFlight) -> list[Event]:
        """Ask for a block again whose task or result went away with a worker."""
        flown.losses += 1
        logs.event("block lost by the cluster", block=flown.task.key, times=flown.losses)
        if flown.losses > MOST_LOSSES:
            return self._retry(flown, f"the cluster lost it {flown.losses} times")
        self._forget(flown)
        self._begin(flown)
        return []

    def _retry(self, flown: _InFlight, error: str) -> list[Event]:
        self._forget(flown)
        task = flown.task
        if task.attempt >= self._attempts:
            return [Failed(task, error)]
        logs.event("block tried again", block=task.key, error=error)
        self._begin(_InFlight(replace(task, attempt=task.attempt + 1), alone=flown.alone))
        return []

    def _forget(self, flown: _InFlight) -> None:
        for key in flown.futures:
            del self._keys[key]
        if len(flown.futures) > 1:
            self._client.cancel(list(flown.futures.values()))
        flown.futures.clear()
        del self._blocks[flown.task.run, flown.task.index]

    def _overdue(self) -> list[Event]:
        """Give up blocks that have hung."""
        now = monotonic()
        if not self._workers.processes:  # blocks wait for workers then
            self._last_end = now
            return []
        turns = 2 * TASKS_PER_THREAD * self._workers.total_threads
        late = [flown for flown in self._blocks.values() if now - flown.since > flown.task.deadline]
        stalled = bool(late) and now - self._last_end > min(f.task.deadline for f in late)
        if not stalled:
            late = [flown for flown in late if self._ended - flown.ended_before > turns]
        if not late:
            return []
        if stalled:
            self._last_end = now
            self._stalls += 1
        events = []
        for flown in late:
            self._client.cancel(list(flown.futures.values()))
            events += self._retry(flown, f"no answer within {flown.task.deadline:.0f} s")
        return events

    def _check_cluster(self) -> None:
        if self._client.status not in ("running", "connecting"):
            raise went_away(self._client)
