"""Many slides in one run: each result is as if it were alone, whatever happens to the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import warm
from support.oracle import balanced_model, textured, write_png
from support.runs import OPTIONS, array_objects

import wsi_unet
from wsi_unet import Options, OutputError, SlideError, SlideJob
from wsi_unet.dask_cluster.cluster import THREADS_PER_PROCESS
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.models import UNetConfig
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.report import CohortProgress, Report
from wsi_unet.segmentation.runs import cohort, execution, meter, output, preparation
from wsi_unet.segmentation.runs.cohort import MOST_AHEAD, segment_cohort
from wsi_unet.segmentation.runs.execution import Execution
from wsi_unet.segmentation.runs.jobs import SlideOutcome
from wsi_unet.storage.locking.lock import acquire
from wsi_unet.storage.opening import open_store

SIZES = [(700, 900), (520, 300), (1300, 600), (100, 90), (600, 1100)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with slides, a model, and what each slide gives alone."""
    folder = tmp_path_factory.mktemp("cohort")
    images = [textured(rows, columns, seed) for seed, (rows, columns) in enumerate(SIZES)]
    balanced_model(UNetConfig(depth=1, base_width=4), images[0], folder / "model")
    for number, image in enumerate(images):
        slide = write_png(folder / f"{number}.png", image)
        wsi_unet.segment(slide, folder / "alone" / f"{number}", folder / "model", **OPTIONS)
    return folder


def jobs(folder: Path, output: Path, numbers: range = range(len(SIZES))) -> list[SlideJob]:
    return [
        SlideJob(
            slide=str(folder / f"{number}.png"),
            output=str(output / f"{number}"),
            model=str(folder / "model"),
            options=Options(**OPTIONS),
        )
        for number in numbers
    ]


def states(outcomes: list[SlideOutcome]) -> dict[str, str]:
    return {Path(outcome.job.slide).name: outcome.state for outcome in outcomes}


def test_every_slide_is_as_if_it_were_alone(folder: Path, tmp_path: Path) -> None:
    reported: list[CohortProgress] = []
    outcomes = list(segment_cohort(jobs(folder, tmp_path), on_progress=reported.append))
    last = reported[-1]
    assert (last.slides_done, last.blocks_in_flight, last.active) == (len(outcomes), 0, ())
    assert states(outcomes) == {f"{number}.png": "finished" for number in range(len(SIZES))}
    for number in range(len(SIZES)):
        alone, together = folder / "alone" / f"{number}", tmp_path / f"{number}"
        assert array_objects(together) == array_objects(alone)
        assert not (together / ".wsi_unet" / "lock.json").exists()
    assert reported
    assert reported[-1].slides_total == len(SIZES)
    again = list(segment_cohort(jobs(folder, tmp_path)))
    reports = [outcome.report for outcome in again if outcome.report is not None]
    assert [report.blocks.resumed for report in reports] == [r.blocks.total for r in reports]


def test_blocks_of_several_slides_are_in_flight_together(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "PROGRESS_SECONDS", 0.0)
    most = 0

    def look(progress: CohortProgress) -> None:
        nonlocal most
        most = max(most, sum(one.phase == "segmenting" for one in progress.active))

    many = [job for turn in range(4) for job in jobs(folder, tmp_path / str(turn), range(2, 3))]
    assert len(list(segment_cohort(many, on_progress=look))) == 4
    assert most > 1


def test_one_bad_slide_does_not_stop_the_rest(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    options = Options(**OPTIONS)
    bad = [
        SlideJob(slide=slide, output=f"{slide}.ome.zarr", options=options)
        for slide in (str(tmp_path / "bad.png"), str(tmp_path / "none.png"))
    ]
    wanted = [bad[0], *jobs(folder, tmp_path, range(1)), bad[1]]
    outcomes = list(segment_cohort(wanted))
    assert states(outcomes) == {"bad.png": "failed", "0.png": "finished", "none.png": "failed"}
    assert all(isinstance(o.error, SlideError) for o in outcomes if o.state == "failed")


def test_a_cohort_of_bad_slides_is_reported(tmp_path: Path) -> None:
    outcomes = list(segment_cohort([SlideJob(slide=str(tmp_path / "none.png"))]))
    assert [outcome.state for outcome in outcomes] == ["failed"]
    assert not list(segment_cohort([]))


def test_an_output_in_use_is_refused_and_left_alone(folder: Path, tmp_path: Path) -> None:
    with acquire(open_store(tmp_path / "0")):
        before = sorted((tmp_path / "0").rglob("*"))
        (refused, *others) = sorted(
            segment_cohort(jobs(folder, tmp_path, range(2))), key=lambda o: o.job.slide
        )
        assert refused.state == "failed"
        assert "is being written by" in str(refused.error)
        assert sorted((tmp_path / "0").rglob("*")) == before
    assert states(others) == {"1.png": "finished"}


def test_an_interruption_keeps_what_is_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "PROGRESS_SECONDS", 0.0)

    def stop(progress: CohortProgress) -> None:
        if progress.blocks_done >= 2:
            raise KeyboardInterrupt

    outcomes = list(segment_cohort(jobs(folder, tmp_path), on_progress=stop))
    assert "interrupted" in states(outcomes).values()
    assert set(states(outcomes).values()) <= {"interrupted", "finished"}
    for lock in tmp_path.rglob("lock.json"):
        raise AssertionError(f"{lock} is left")
    outcomes = list(segment_cohort(jobs(folder, tmp_path)))
    assert set(states(outcomes).values()) == {"finished"}
    for number in range(len(SIZES)):
        alone, together = folder / "alone" / f"{number}", tmp_path / f"{number}"
        assert array_objects(together) == array_objects(alone)


def test_an_interruption_reports_all_slides_when_the_store_of_one_fails(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Execution.make_report

    def failing(self: Execution, *, interrupted: bool = False) -> Report:
        if self.slide == "2.png":
            raise OutputError("the store is away")
        return report(self, interrupted=interrupted)

    def stop(progress: CohortProgress) -> None:
        if {"2.png", "4.png"} <= {slide.slide for slide in progress.active}:
            raise KeyboardInterrupt

    monkeypatch.setattr(Execution, "make_report", failing)
    two = [job for job in jobs(folder, tmp_path) if job.slide.endswith(("2.png", "4.png"))]
    found = {Path(one.job.slide).name: one for one in segment_cohort(two, on_progress=stop)}
    assert (found["2.png"].state, str(found["2.png"].error)) == ("failed", "the store is away")
    assert found["4.png"].state in ("interrupted", "finished")
    assert list(tmp_path.rglob("lock.json")) == []


def test_an_interruption_unlocks_what_is_being_prepared(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = threading.Event()

    def slowly(*arguments: Any) -> Any:
        locked.set()
        time.sleep(0.5)
        return output.lay_out(*arguments)

    def stop(progress: CohortProgress) -> None:
        if locked.is_set():
            raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "lay_out", slowly)
    assert list(segment_cohort(jobs(folder, tmp_path, range(1)), on_progress=stop)) == []
    assert list(tmp_path.rglob("lock.json")) == []


def test_a_worker_that_hangs_does_not_hold_up_an_interruption(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(meter, "PROGRESS_SECONDS", 0.0)
    stopped: list[psutil.Process] = []

    def stop(progress: CohortProgress) -> None:
        if progress.blocks_done:
            worker = warm.find_dask_workers()[-1]
            worker.suspend()
            stopped.append(worker)
            raise KeyboardInterrupt

    (outcome,) = segment_cohort(
        jobs(folder, tmp_path, range(2, 3)), ClusterOptions(workers=1), on_progress=stop
    )
    assert outcome.state == "interrupted"
    assert stopped
    assert not psutil.wait_procs(stopped, timeout=60)[1]


def test_few_slides_wait_for_being_completed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_it: set[Execution] = set()
    most = 0
    complete = Execution.complete

    def slowly(self: Execution) -> None:
        nonlocal most
        at_it.add(self)
        most = max(most, len(at_it))
        time.sleep(1)
        complete(self)
        at_it.remove(self)

    monkeypatch.setattr(Execution, "complete", slowly)
    monkeypatch.setattr(cohort, "MOST_FINISHING", 2)
    (small,) = jobs(folder, tmp_path, range(3, 4))
    many = [replace(small, output=str(tmp_path / f"{number}")) for number in range(20)]
    assert [outcome.state for outcome in segment_cohort(many)] == ["finished"] * 20
    # Two of them, what was ahead, and what was in flight as the second one ended.
    assert most <= 2 + MOST_AHEAD + Limits().tasks_per_thread * THREADS_PER_PROCESS


def test_slides_are_taken_as_they_are_needed(folder: Path, tmp_path: Path) -> None:
    taken = ended = most = 0

    def endless() -> Iterator[SlideJob]:
        nonlocal taken, most
        for number in range(30):
            taken += 1
            most = max(most, taken - ended)
            yield SlideJob(
                slide=str(folder / "3.png"),
                output=str(tmp_path / str(number)),
                model=str(folder / "model"),
                options=Options(**OPTIONS),
            )

    for outcome in segment_cohort(endless()):
        assert outcome.state == "finished"
        ended += 1
    assert ended == 30
    # Those ahead, and those whose few blocks are in flight or that are being completed.
    assert most <= MOST_AHEAD + 16
    assert threading.active_count() < 30
