"""The status of an output: the speed of its runs, and the process that writes to it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.runs import Study

import wsi_unet
from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.status import measure_cover, measure_rates, read_writer
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.locking.lock import LockOwner, LockRecord, acquire
from wsi_unet.storage.opening import open_store


def marker(ended: float, read: float, predict: float, worker: str = "a:1") -> BlockMarker:
    return BlockMarker(
        block=(0, 0),
        signature="s",
        counts=(),
        seconds={"read": read, "predict": predict},
        attempts=1,
        ended=ended,
        worker=worker,
        shards={},
    )


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=8))
def test_intervals_cover_what_they_cover(spans: list[tuple[int, int]]) -> None:
    line = np.zeros(50, bool)
    for first, length in spans:
        line[first : first + length] = True
    assert measure_cover((first, first + length) for first, length in spans) == line.sum()


def test_rates_leave_pauses_out() -> None:
    """Two blocks at once for 4 s, one of 2 s an hour later: 3 blocks in 6 s, 5 of them busy."""
    day = 1_800_000_000.0
    markers = [marker(day, 2, 2), marker(day, 3, 1), marker(day + 3600, 0, 2)]
    per_second, busy = measure_rates(markers)
    assert per_second == 0.5
    assert busy == pytest.approx(5 / 6)


def test_rates_count_workers_on_their_own() -> None:
    """Two workers with a block of 4 s each, at the same time: each device was in use for 3 s."""
    markers = [marker(100.0, 1, 3, "a:1"), marker(100.0, 1, 3, "b:1")]
    assert measure_rates(markers) == (0.5, 0.75)


def test_markers_without_times_tell_nothing() -> None:
    assert measure_rates([marker(0.0, 1, 1)]) == (0.0, 0.0)


def test_a_runs_status_says_how_fast_it_was(study: Study) -> None:
    labels, image = wsi_unet.run_status(study.whole)
    assert labels.blocks_per_s > 0
    assert 0 < labels.device_busy <= 1
    assert image.device_busy == 0
    assert labels.to_json()["blocks_per_s"] == labels.blocks_per_s


def test_nobody_writes(study: Study, tmp_path: Path) -> None:
    assert read_writer(study.whole) is None
    assert read_writer(tmp_path / "nothing") is None


def test_the_one_who_writes_is_named(tmp_path: Path) -> None:
    with acquire(open_store(tmp_path / "out")):
        writer = read_writer(tmp_path / "out")
    assert writer is not None
    assert writer.alive
    assert writer.who.startswith(f"process {os.getpid()} of ")
    assert writer.silent_seconds < 60


@pytest.mark.parametrize(
    ("host", "seconds_ago", "alive"), [("", 1, False), ("other", 2, True), ("other", 60, False)]
)
def test_a_writer_may_be_gone(tmp_path: Path, host: str, seconds_ago: float, alive: bool) -> None:
    """A process that isn't there any more; one of another machine that went silent, or didn't."""
    store = open_store(tmp_path / "out")
    then = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    owner = LockOwner.current()
    changes = {"host": host} if host else {"pid": 2**22 + 7}  # more than Linux counts to
    record = LockRecord(
        token="t", owner=owner.model_copy(update=changes), since=then, beat=3, beat_time=then
    )
    store.put(LOCK_KEY, record.model_dump_json().encode())
    writer = read_writer(tmp_path / "out")
    assert writer is not None
    assert writer.alive == alive
    assert writer.silent_seconds == pytest.approx(seconds_ago, abs=30)


def test_a_torn_lock_names_nobody(tmp_path: Path) -> None:
    open_store(tmp_path / "out").put(LOCK_KEY, b'{"token":')
    assert read_writer(tmp_path / "out") is None
