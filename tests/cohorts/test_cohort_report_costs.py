"""The costs of the table of a cohort: time for updates, and memory per slide."""

from __future__ import annotations

import gc
import pathlib
import tracemalloc
from pathlib import Path

import pytest
from support.cohorts import FOLDER, CostlyClock, finished, listed, statuses

from wsi_unet.cohorts.cohort import read_cohort
from wsi_unet.cohorts.report import CohortReport
from wsi_unet.storage.local_store import LocalStore


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("cost", "share"), [(0.001, 0.002), (1.0, 0.021)])
@pytest.mark.usefixtures("here")
def test_updates_take_a_fiftieth_of_the_time_at_most(
    cost: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a write that takes 2 ms, or 2 s, and a slide that ends every 0.1 s for 1000 s."""
    clock = CostlyClock()
    slides = listed(10)
    table = CohortReport(FOLDER, slides, clock=clock)
    list(table.jobs())
    spent = 0.0

    def put(self: LocalStore, key: str, data: bytes) -> None:
        nonlocal spent
        clock.now += cost
        spent += cost

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", put)
        begun = clock.now
        while clock.now < begun + 1000:
            clock.now += 0.1
            table.add_outcome(finished(slides[0]))
        assert 0 < spent / (clock.now - begun) <= share
    table.close()
    assert statuses() == ["finished", *["waiting"] * 9]


def whole_cohort(here: Path, count: int) -> CohortReport:
    rows = (f"cohort/slides/case-{i:05}.svs,patient-{i:05}\n" for i in range(count))
    (here / "m.csv").write_text("slide,patient\n" + "".join(rows))
    cohort = read_cohort(["m.csv"], FOLDER)
    table = CohortReport(FOLDER, cohort.slides)
    for slide, job in zip(cohort.slides, table.jobs(), strict=True):
        assert slide.job is job
        table.add_outcome(finished(slide))
    return table


def test_a_slide_takes_two_kilobytes(here: Path) -> None:
    """From the manifest to the last outcome, the job included; 20 MB for ten thousand."""
    whole_cohort(here, 10).close()  # what is loaded once
    count = 1_000
    tracemalloc.start()
    table = whole_cohort(here, count)
    gc.collect()
    snapshot = tracemalloc.take_snapshot()
    tracemalloc.stop()
    table.close()
    assert statuses() == ["finished"] * count
    # Python's table of interned names grows in few large steps, at any time.
    counted = snapshot.filter_traces([tracemalloc.Filter(False, pathlib.__file__)])
    held = sum(trace.size for trace in counted.traces)
    assert held / count < 2000
