"""The scheduler benchmark runs on a small scale, and each of its bars can be missed."""

from __future__ import annotations

import json
import sys

from support import warm

from benchmarks.common import ROOT, Row
from benchmarks.scheduler import Checkpoint, make_rows


def checkpoint(
    blocks: int, seconds: float, *, cpu: float, memory: int = 100, most: int = 12
) -> Checkpoint:
    """Return one whose processes have each used `cpu` s and hold `memory` MiB."""
    names = ("scheduler", "client", "workers")
    return Checkpoint(
        blocks=blocks,
        seconds=seconds,
        most_in_flight=most,
        bound=12,
        with_the_scheduler=most,
        cpu=dict.fromkeys(names, cpu),
        memory=dict.fromkeys(names, memory * 2**20),
    )


def verdicts(first: Checkpoint, last: Checkpoint) -> list[tuple[float, str]]:
    return [(round(row.value, 3), row.verdict) for row in make_rows([first, last])]


def test_what_is_measured_lies_between_the_first_checkpoint_and_the_last() -> None:
    first = checkpoint(1000, 50.0, cpu=40.0)  # slow at first: nobody minds
    last = checkpoint(5000, 60.0, cpu=44.0, memory=109)
    assert verdicts(first, last) == [
        (400.0, "met"),
        (1.0, "met"),
        (12, "met"),
        (1.09, "met"),
        (1.09, "met"),
        (4.167, ""),
    ]


def test_every_bar_can_be_missed() -> None:
    first = checkpoint(1000, 0.0, cpu=0.0)
    last = checkpoint(2000, 4.0, cpu=2.5, memory=111, most=13)
    assert [verdict for _, verdict in verdicts(first, last)] == ["missed"] * 5 + [""]


def test_a_small_cohort_goes_through_a_real_scheduler() -> None:
    done = warm.run(
        [sys.executable, "-m", "benchmarks.scheduler", "--tiny", "--tls"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    speed, cpu, flight, *_ = (Row(**json.loads(line)) for line in done.stdout.splitlines())
    assert speed.value > 0
    assert 0 < cpu.value < 1000
    assert 8 <= flight.value <= 24, "three tasks for each of two times four threads"
