"""The blocks in flight: submitted to the cluster, and not yet answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from time import monotonic

from distributed import KilledWorker

from wsi_unet import logs
from wsi_unet.geometry import BlockIndex
from wsi_unet.segmentation.dispatch.dask_tasks import DaskTasks, ResultFuture
from wsi_unet.segmentation.dispatch.policy import (
    Limits,
    Verdict,
    count_free_slots,
    find_overdue,
    find_stragglers,
    is_stuck,
    judge_death,
    judge_failure,
    judge_loss,
)
from wsi_unet.segmentation.worker.any_task import AnyRun, AnyTask, Result
from wsi_unet.wording import count

DIED = "every worker process that ran it died (out of memory, or a broken library)"


@dataclass(frozen=True)
class BlockDone:
    """A task has ended well; what it computed is stored.

    Attributes:
        task: the task.
        result: what it returned: of labels and images the block's marker.
    """

    task: AnyTask
    result: Result


@dataclass(frozen=True)
class BlockFailed:
    """A block failed at its last attempt."""

    task: AnyTask
    error: str


@dataclass(frozen=True)
class NothingEnded:
    """Nothing ended for a while; lets the caller show its progress or stop."""


Event = BlockDone | BlockFailed | NothingEnded


@dataclass
class _BlockInFlight:
    """One block in flight; satisfies `policy.BlockState`.

    Attributes:
        task: its latest attempt.
        futures: its futures by key; more than one for a straggler.
        started: when it was last submitted.
        ended_before: how many blocks had ended then.
        losses: how often the cluster lost it.
        duplicated: whether it was submitted a second time, as a straggler.
        alone: whether nothing else is in flight, because it may kill its worker.
    """

    task: AnyTask
    futures: dict[str, ResultFuture] = field(default_factory=dict)
    started: float = 0.0
    ended_before: int = 0
    losses: int = 0
    duplicated: bool = False
    alone: bool = False

    @property
    def deadline(self) -> float:
        """Seconds after which it counts as hung."""
        return self.task.deadline


class BlocksInFlight:
    """Tasks that are submitted and not yet answered, tracked by the rules of `policy`.

    A block that fails is tried again. One that was on several workers as they died is set aside
    and, at the end, tried with nothing else in flight, so that the blocks that died with it aren't
    blamed. One that has hung is given up and tried again. A straggler at the end is submitted
    a second time where another process is idle: whichever ends first counts, and a block may run
    twice.

    Args:
        tasks: hands tasks to the cluster.
        limits: how patient to be.
        clock: seconds that only go up.
    """

    def __init__(
        self, tasks: DaskTasks, limits: Limits, clock: Callable[[], float] = monotonic
    ) -> None:
        self._tasks = tasks
        self._limits = limits
        self._clock = clock
        self._blocks: dict[tuple[AnyRun, BlockIndex], _BlockInFlight] = {}
        self._by_key: dict[str, _BlockInFlight] = {}
        self._suspects: deque[AnyTask] = deque()
        self._ended = self._stalls = 0
        self._last_end = self._look_again = clock()
        self._durations: deque[float] = deque(maxlen=50)

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def stuck(self) -> bool:
        """Whether nothing has ended although everything in flight was submitted again."""
        return is_stuck(self._stalls, self._limits)

    @property
    def suspects(self) -> int:
        """How many blocks were set aside, because workers died with them."""
        return len(self._suspects)

    @property
    def free_slots(self) -> int:
        """How many more tasks may be submitted now: none beside one that is tried alone."""
        if any(block.alone for block in self._blocks.values()):
            return 0
        return count_free_slots(len(self), self._tasks.workers.total_threads, self._limits)

    def submit(self, task: AnyTask) -> None:
        """Submit a block to the cluster."""
        if not self._blocks:
            self._last_end = self._clock()
        self._start(_BlockInFlight(task))

    def submit_suspect(self) -> None:
        """Submit one block that was set aside, with nothing else in flight."""
        self._start(_BlockInFlight(self._suspects.popleft(), alone=True))

    def duplicate_stragglers(self) -> None:
        """Submit blocks that take unusually long a second time, if a process has nothing to do."""
        workers = self._tasks.workers
        stragglers = find_stragglers(
            self._blocks.values(),
            now=self._clock(),
            durations=self._durations,
            processes=workers.processes,
            idle_threads=workers.total_threads - len(self._by_key),
            limits=self._limits,
        )
        for block in stragglers:
            logs.event("block submitted twice", block=block.task.key)
            block.duplicated = True
            self._submit(block)

    def next_events(self, patience: float) -> list[Event]:
        """Return what has ended; `NothingEnded` after `patience` seconds without any."""
        events: list[Event] = []
        keys = self._tasks.wait(patience)
        if not keys or self._clock() >= self._look_again:
            self._look_again = self._clock() + self._limits.look_seconds
            self._tasks.check()
            self._tasks.count_workers()
            self._tasks.forget_old()
            events += self._give_up_overdue()
        finished: dict[int, tuple[_BlockInFlight, ResultFuture]] = {}
        for key in keys:
            block = self._by_key.get(key)
            if block is None:  # given up before it ended
                continue
            future = block.futures[key]
            if future.status == "finished":
                finished[id(block)] = block, future
            else:
                events += self._handle_error(block, key, future)
        return events + self._collect(finished.values()) or [NothingEnded()]

    def cancel(self) -> None:
        """Cancel everything in flight."""
        futures = [future for block in self._blocks.values() for future in block.futures.values()]
        self._blocks.clear()
        self._by_key.clear()
        self._suspects.clear()
        self._tasks.cancel(futures)

    def _start(self, block: _BlockInFlight) -> None:
        block.started, block.ended_before, block.duplicated = self._clock(), self._ended, False
        self._blocks[block.task.run, block.task.index] = block
        self._submit(block)

    def _submit(self, block: _BlockInFlight) -> None:
        key, future = self._tasks.submit(block.task)
        self._by_key[key] = block
        block.futures[key] = future

    def _collect(self, finished: Iterable[tuple[_BlockInFlight, ResultFuture]]) -> list[Event]:
        """Return the results of blocks that have ended, fetched all at once."""
        blocks = list(finished)
        if not blocks:
            return []
        try:
            results = self._tasks.fetch([future for _, future in blocks])
        except Exception:
            # A worker died with its result; where Dask has run the block again, that may have
            # failed with anything. It is marked, so submitting it again costs nothing, and shows
            # whose error that is.
            self._tasks.check()
            return [event for block, _ in blocks for event in self._handle_loss(block)]
        events: list[Event] = []
        for (block, _), result in zip(blocks, results, strict=True):
            self._forget(block)
            self._ended, self._stalls, self._last_end = self._ended + 1, 0, self._clock()
            self._durations.append(self._last_end - block.started)
            events.append(BlockDone(block.task, result))
        return events

    def _handle_error(self, block: _BlockInFlight, key: str, future: ResultFuture) -> list[Event]:
        error = future.exception() if future.status == "error" else None
        if len(block.futures) > 1:  # its twin may still do it
            del block.futures[key], self._by_key[key]
            return []
        if error is None:
            self._tasks.check()
            return self._handle_loss(block)
        self._last_end = self._clock()
        if isinstance(error, KilledWorker):
            logs.event("workers died with a block", block=block.task.key, error=str(error))
            return self._carry_out(judge_death(alone=block.alone), block, DIED)
        return self._carry_out(judge_failure(block.task.attempt, self._limits), block, str(error))

    def _handle_loss(self, block: _BlockInFlight) -> list[Event]:
        """Decide about a block whose task or result went away with a worker."""
        block.losses += 1
        logs.event("block lost by the cluster", block=block.task.key, times=block.losses)
        verdict = judge_loss(block.losses, block.task.attempt, self._limits)
        return self._carry_out(verdict, block, f"the cluster lost it {count(block.losses, 'time')}")

    def _carry_out(self, verdict: Verdict, block: _BlockInFlight, error: str) -> list[Event]:
        """Carry out what was decided about a block; return its failure if it is given up."""
        self._forget(block)
        task = block.task
        if verdict is Verdict.GIVE_UP:
            return [BlockFailed(task, error)]
        if verdict is Verdict.SET_ASIDE:
            self._suspects.append(task)
        elif verdict is Verdict.REPEAT:
            self._start(block)
        else:
            logs.event("block tried again", block=task.key, error=error)
            again = replace(task, attempt=task.attempt + 1)
            self._start(_BlockInFlight(again, alone=block.alone))
        return []

    def _forget(self, block: _BlockInFlight) -> None:
        for key in block.futures:
            del self._by_key[key]
        if len(block.futures) > 1:
            self._tasks.cancel(block.futures.values())
        block.futures.clear()
        del self._blocks[block.task.run, block.task.index]

    def _give_up_overdue(self) -> list[Event]:
        """Give up blocks that have hung, and try them again or report them."""
        now, workers = self._clock(), self._tasks.workers
        if not workers.processes:  # blocks wait for workers then
            self._last_end = now
            return []
        overdue = find_overdue(
            self._blocks.values(),
            now=now,
            last_end=self._last_end,
            ended=self._ended,
            threads=workers.total_threads,
            limits=self._limits,
        )
        if overdue.stalled:
            self._last_end = now
            self._stalls += 1
        events: list[Event] = []
        for block in overdue.blocks:
            self._tasks.cancel(block.futures.values())
            verdict = judge_failure(block.task.attempt, self._limits)
            events += self._carry_out(verdict, block, f"no answer within {block.deadline:.0f} s")
        return events
