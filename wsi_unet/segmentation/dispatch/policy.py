"""The rules for blocks in flight: what is overdue, a straggler, a suspect or worth another try.

Pure functions of plain values. They know neither Dask nor a clock; `in_flight` brings the values
and acts on the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import Generic, Protocol, TypeVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is in flight at once, and how patient a run is with its blocks.

    Attributes:
        retries: how often a block that fails is tried again.
        tasks_per_thread: tasks in flight per worker thread; enough that no thread waits for the
            client's answer.
        losses: how often the cluster may lose one block's task, with its worker or its result,
            before that counts as a failure.
        straggler_factor: a block is a straggler once it takes this many times the median,
        straggler_seconds: and at least this many seconds.
        shortest_deadline: seconds that a block is given at least.
        deadline_factor: how many times its estimated time a block is given at least.
        slowest_flops: FLOP/s that any device reaches; bounds a block's time where no speed was
            measured.
        look_seconds: seconds between looks for overdue blocks, while others end.
        count_seconds: seconds between counts of the worker threads, which come and go.
        collect_seconds: how long markers may take from the workers to the client; then their
            blocks are asked for again.
        kept_tasks: tasks after which the scheduler is made to forget old ones; Dask keeps 600
            bytes of each.
    """

    retries: int = 1
    tasks_per_thread: int = 3
    losses: int = 20
    straggler_factor: float = 4.0
    straggler_seconds: float = 10.0
    shortest_deadline: float = 900.0
    deadline_factor: float = 20.0
    slowest_flops: float = 5e9
    look_seconds: float = 5.0
    count_seconds: float = 5.0
    collect_seconds: float = 30.0
    kept_tasks: int = 10_000


class Verdict(Enum):
    """What happens next to a block that went wrong."""

    REPEAT = "submit the same attempt again"
    RETRY = "submit its next attempt"
    SET_ASIDE = "try it later, with nothing else in flight"
    GIVE_UP = "report that it failed"


class BlockState(Protocol):
    """What the rules need to know of a block in flight; times are seconds on one clock."""

    @property
    def started(self) -> float:
        """When it was last submitted."""

    @property
    def deadline(self) -> float:
        """Seconds after which it counts as hung."""

    @property
    def ended_before(self) -> int:
        """How many blocks had ended when it was last submitted."""

    @property
    def duplicated(self) -> bool:
        """Whether it was submitted a second time, as a straggler."""

    @property
    def alone(self) -> bool:
        """Whether it is tried with nothing else in flight."""


B = TypeVar("B", bound=BlockState)


@dataclass(frozen=True, slots=True)
class Overdue(Generic[B]):
    """Blocks that have hung.

    Attributes:
        blocks: the blocks, which are to be given up.
        stalled: whether nothing at all ends any more, rather than just these.
    """

    blocks: tuple[B, ...]
    stalled: bool


def count_free_slots(in_flight: int, threads: int, limits: Limits) -> int:
    """Return how many more tasks may be submitted; below 0 where workers have gone.

    >>> count_free_slots(4, threads=2, limits=Limits(tasks_per_thread=3))
    2
    """
    return limits.tasks_per_thread * threads - in_flight


def estimate_deadline(seconds: float | None, flops: float, limits: Limits) -> float:
    """Return after how many seconds a block counts as hung.

    Args:
        seconds: what a block full of tissue is expected to take; None where no speed was measured.
        flops: the floating-point operations of such a block.
        limits: how patient the run is.
    """
    if seconds is None:
        return max(limits.shortest_deadline, flops / limits.slowest_flops)
    return max(limits.shortest_deadline, limits.deadline_factor * seconds)


def find_overdue(
    blocks: Iterable[B], *, now: float, last_end: float, ended: int, threads: int, limits: Limits
) -> Overdue[B]:
    """Return the blocks that have hung.

    A block past its deadline may just be waiting for a thread. It has hung if more blocks ended
    since it was submitted than can have been ahead of it (twice what fits in flight), or if nothing
    has ended for as long as a deadline.

    Args:
        blocks: the blocks in flight.
        now: the time.
        last_end: when a block last ended, or the first one was submitted.
        ended: how many blocks have ended.
        threads: worker threads.
        limits: how many tasks each thread has in flight.
    """
    late = [block for block in blocks if now - block.started > block.deadline]
    if late and now - last_end > min(block.deadline for block in late):
        return Overdue(tuple(late), stalled=True)
    ahead = 2 * limits.tasks_per_thread * threads
    hung = tuple(block for block in late if ended - block.ended_before > ahead)
    return Overdue(hung, stalled=False)


def find_stragglers(
    blocks: Iterable[B],
    *,
    now: float,
    durations: Sequence[float],
    processes: int,
    idle_threads: int,
    limits: Limits,
) -> list[B]:
    """Return the blocks that are to be submitted a second time, at most one per idle thread.

    Args:
        blocks: the blocks in flight.
        now: the time.
        durations: seconds that the last blocks took; without any, nothing is a straggler.
        processes: worker processes; in a single one a second try would be as slow as the first.
        idle_threads: worker threads that are idle.
        limits: what makes a straggler.
    """
    if processes < 2 or idle_threads <= 0 or not durations:
        return []
    slow = max(limits.straggler_seconds, limits.straggler_factor * median(durations))
    stragglers = [
        block
        for block in blocks
        if not (block.duplicated or block.alone) and now - block.started > slow
    ]
    return stragglers[:idle_threads]


def judge_failure(attempt: int, limits: Limits) -> Verdict:
    """Decide about a block whose attempt, counted from 1, failed or hung.

    >>> judge_failure(1, Limits(retries=1)), judge_failure(2, Limits(retries=1))
    (<Verdict.RETRY: 'submit its next attempt'>, <Verdict.GIVE_UP: 'report that it failed'>)
    """
    return Verdict.RETRY if attempt <= limits.retries else Verdict.GIVE_UP


def judge_loss(losses: int, attempt: int, limits: Limits) -> Verdict:
    """Decide about a block that the cluster has lost `losses` times."""
    return Verdict.REPEAT if losses <= limits.losses else judge_failure(attempt, limits)


def judge_death(*, alone: bool) -> Verdict:
    """Decide about a block that was on several workers as they died.

    With others in flight it is only a suspect; alone, it killed them itself.
    """
    return Verdict.GIVE_UP if alone else Verdict.SET_ASIDE


def is_stuck(stalls: int, limits: Limits) -> bool:
    """Return whether a run hangs for good: everything was submitted again, and nothing ended.

    Args:
        stalls: how often everything was given up since a block last ended.
        limits: how often a block is tried.
    """
    return stalls >= max(2, limits.retries + 1)
