"""The rules for blocks in flight, case by case and by their invariants."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_unet.segmentation.dispatch.policy import (
    Limits,
    Verdict,
    count_free_slots,
    estimate_deadline,
    find_overdue,
    find_stragglers,
    is_stuck,
    judge_death,
    judge_failure,
    judge_loss,
)

LIMITS = Limits()


@dataclass(frozen=True)
class Block:
    started: float = 0.0
    deadline: float = 100.0
    ended_before: int = 0
    duplicated: bool = False
    alone: bool = False


seconds = st.floats(min_value=0, max_value=1e6)
blocks = st.lists(
    st.builds(
        Block,
        started=seconds,
        deadline=st.floats(min_value=1, max_value=1e4),
        ended_before=st.integers(0, 1000),
        duplicated=st.booleans(),
        alone=st.booleans(),
    ),
    max_size=20,
)


@pytest.mark.parametrize(
    ("in_flight", "threads", "free"), [(0, 4, 12), (12, 4, 0), (13, 4, -1), (2, 0, -2)]
)
def test_a_thread_has_three_tasks(in_flight: int, threads: int, free: int) -> None:
    assert count_free_slots(in_flight, threads, LIMITS) == free


@pytest.mark.parametrize(
    ("expected", "flops", "deadline"),
    [
        (1.0, 0.0, 900.0),
        (45.0, 0.0, 900.0),
        (100.0, 1e18, 2000.0),
        (None, 1e12, 900.0),
        (None, 1e13, 2000.0),
    ],
    ids=["short", "at the bound", "long", "unknown and short", "unknown and long"],
)
def test_a_deadline_is_generous(expected: float | None, flops: float, deadline: float) -> None:
    assert estimate_deadline(expected, flops, LIMITS) == deadline


@pytest.mark.parametrize(
    ("block", "now", "last_end", "ended", "hung", "stalled"),
    [
        (Block(), 100.0, 0.0, 0, False, False),
        (Block(), 101.0, 50.0, 24, False, False),
        (Block(), 101.0, 50.0, 25, True, False),
        (Block(ended_before=10), 101.0, 50.0, 34, False, False),
        (Block(), 101.0, 0.0, 0, True, True),
        (Block(started=50.0), 101.0, 0.0, 1000, False, False),
        (Block(deadline=10.0), 11.0, 0.5, 0, True, True),
    ],
    ids=[
        "in time",
        "late, but as many may have been ahead",
        "late, and more have ended than were ahead",
        "those that ended before don't count",
        "nothing ends any more",
        "submitted later",
        "its own deadline counts",
    ],
)
def test_a_block_has_hung_when_it_is_late_and_others_passed_it_or_nothing_ends(
    block: Block, now: float, last_end: float, ended: int, hung: bool, stalled: bool
) -> None:
    overdue = find_overdue(
        [block], now=now, last_end=last_end, ended=ended, threads=4, limits=LIMITS
    )
    assert overdue.blocks == ((block,) if hung else ())
    assert overdue.stalled == stalled


@given(
    blocks=blocks, now=seconds, last_end=seconds, ended=st.integers(0, 2000), threads=st.integers(0)
)
def test_only_late_blocks_are_overdue_and_all_of_them_when_nothing_ends(
    blocks: list[Block], now: float, last_end: float, ended: int, threads: int
) -> None:
    late = [block for block in blocks if now - block.started > block.deadline]
    overdue = find_overdue(
        blocks, now=now, last_end=last_end, ended=ended, threads=threads, limits=LIMITS
    )
    assert [block for block in late if block in overdue.blocks] == [*overdue.blocks]
    if overdue.stalled:
        assert [*overdue.blocks] == late != []


@pytest.mark.parametrize(
    ("age", "changes", "straggler"),
    [
        (10.0, {}, False),
        (12.1, {}, True),
        (12.1, {"processes": 1}, False),
        (12.1, {"idle_threads": 0}, False),
        (12.1, {"durations": []}, False),
        (9.0, {"durations": [0.1]}, False),
        (10.1, {"durations": [0.1]}, True),
        (12.1, {"durations": [1.0, 3.0, 500.0]}, True),
    ],
    ids=[
        "not four times the median",
        "slow",
        "one process",
        "no idle thread",
        "nothing to compare with",
        "quick blocks have ten seconds",
        "but not more",
        "the median counts",
    ],
)
def test_what_takes_four_times_the_median_is_a_straggler(
    age: float, changes: dict[str, object], straggler: bool
) -> None:
    given = {"durations": [3.0], "processes": 2, "idle_threads": 1, **changes}
    found = find_stragglers([Block()], now=age, limits=LIMITS, **given)  # type: ignore[arg-type]
    assert found == ([Block()] if straggler else [])


@given(
    blocks=blocks,
    now=seconds,
    durations=st.lists(seconds, max_size=5),
    processes=st.integers(0, 8),
    idle_threads=st.integers(-8, 8),
)
def test_stragglers_are_few_old_and_neither_alone_nor_submitted_twice(
    blocks: list[Block],
    now: float,
    durations: list[float],
    processes: int,
    idle_threads: int,
) -> None:
    found = find_stragglers(
        blocks,
        now=now,
        durations=durations,
        processes=processes,
        idle_threads=idle_threads,
        limits=LIMITS,
    )
    assert len(found) <= max(0, idle_threads)
    for block in found:
        assert not block.duplicated
        assert not block.alone
        assert now - block.started > LIMITS.straggler_seconds
        assert processes > 1


@pytest.mark.parametrize(
    ("attempt", "retries", "verdict"),
    [
        (1, 0, Verdict.GIVE_UP),
        (1, 1, Verdict.RETRY),
        (2, 1, Verdict.GIVE_UP),
        (3, 3, Verdict.RETRY),
        (4, 3, Verdict.GIVE_UP),
    ],
)
def test_what_fails_is_tried_as_often_as_asked(
    attempt: int, retries: int, verdict: Verdict
) -> None:
    assert judge_failure(attempt, Limits(retries=retries)) is verdict


@pytest.mark.parametrize(
    ("losses", "attempt", "verdict"),
    [
        (1, 1, Verdict.REPEAT),
        (20, 2, Verdict.REPEAT),
        (21, 1, Verdict.RETRY),
        (21, 2, Verdict.GIVE_UP),
    ],
)
def test_what_is_lost_costs_no_attempt_unless_it_is_lost_again_and_again(
    losses: int, attempt: int, verdict: Verdict
) -> None:
    assert judge_loss(losses, attempt, LIMITS) is verdict


def test_only_a_block_that_was_alone_is_blamed_for_dead_workers() -> None:
    assert judge_death(alone=False) is Verdict.SET_ASIDE
    assert judge_death(alone=True) is Verdict.GIVE_UP


@pytest.mark.parametrize(
    ("stalls", "retries", "stuck"), [(1, 0, False), (2, 0, True), (2, 1, True), (3, 3, False)]
)
def test_a_run_is_stuck_when_every_attempt_hung(stalls: int, retries: int, stuck: bool) -> None:
    assert is_stuck(stalls, replace(LIMITS, retries=retries)) is stuck
