"""`wsi-unet segment` with several slides, around a stand-in for the runs themselves."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.standin import Calls, cohort_progress, error_lines, report, run, segmenting

import wsi_unet
from wsi_unet.errors import ClusterError, LockedError, OptionError, OutputError, SlideError
from wsi_unet.segmentation.report import RunState
from wsi_unet.segmentation.runs.jobs import SlideJob, SlideOutcome
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.locking.lock import acquire
from wsi_unet.storage.opening import open_store
from wsi_unet_cli.segment import many_slides

TWO = ("a.svs", "d/b.svs")


def table(folder: str = "out") -> dict[str, str]:
    """Return each slide's status as cohort.csv and cohort.json agree on it."""
    text = (Path(folder) / "cohort.csv").read_text()
    rows = {row["slide"]: row["status"] for row in csv.DictReader(io.StringIO(text, newline=""))}
    document = json.loads((Path(folder) / "cohort.json").read_bytes())
    assert rows == {row["slide"]: row["status"] for row in document["slides"]}
    return {Path(slide).name: status for slide, status in rows.items()}


def test_every_slide_gets_a_result_and_a_row(calls: Calls) -> None:
    done = run(*TWO, "-o", "out", "--model", "nuclei-he", "--mpp", "0.5")
    assert done.exit_code == 0, done.output
    assert [(job.slide, job.output) for job in calls.jobs] == [
        ("a.svs", "out/a.ome.zarr"),
        ("d/b.svs", "out/b.ome.zarr"),
    ]
    assert {job.options.mpp for job in calls.jobs} == {0.5}
    assert table() == {"a.svs": "finished", "b.svs": "finished"}
    lines = done.stdout.splitlines()
    assert lines[0] == "a.svs: finished, 4 of 4 blocks, 2.0 s at 3.50 Mpx/s"
    assert lines[1].startswith("b.svs: finished")
    assert lines[2] == "2 of 2 slides finished"
    assert f"report  {Path('out/cohort.csv').absolute()}" in done.stdout
    assert done.stderr == ("cohort: 1/2 slides · 1.25 blocks/s · 2.50 Mpx/s · device 93 % busy\n")


def test_a_wrong_row_of_a_manifest_fails_and_the_others_go_on(calls: Calls) -> None:
    Path("m.csv").write_text("slide,mpp\na.svs,x\nb.svs,\n")
    done = run("m.csv", "-o", "out")
    assert done.exit_code == 1
    assert calls.slides == ["b.svs"]
    assert table() == {"a.svs": "failed", "b.svs": "finished"}
    assert "error: m.csv, line 2: mpp 'x' isn't a number above 0" in done.stderr
    assert "1 of 2 slides finished" in done.stdout


def test_rows_that_write_elsewhere_say_how_to_allow_it(calls: Calls) -> None:
    Path("m.csv").write_text("slide,output\na.svs,../a\nb.svs,\n")
    done = run("m.csv", "-o", "out")
    assert done.exit_code == 1
    assert "line 2: the output ../a lies outside of out; name one inside, or --allow-outside" in (
        done.stderr
    )
    assert run("m.csv", "-o", "out", "--allow-outside").exit_code == 0
    assert [job.output for job in calls.jobs][-2:] == ["out/../a", "out/b.ome.zarr"]


def test_without_a_folder_it_is_the_current_one(calls: Calls) -> None:
    assert run(*TWO).exit_code == 0
    assert [job.output for job in calls.jobs] == ["a.ome.zarr", "b.ome.zarr"]
    assert table(".") == {"a.svs": "finished", "b.svs": "finished"}


@pytest.mark.parametrize(
    ("outcomes", "statuses"),
    [
        ({"a.svs": "incomplete"}, ["incomplete", "finished"]),
        ({"a.svs": SlideError("bad")}, ["failed", "finished"]),
        ({"a.svs": SlideError("bad"), "d/b.svs": OutputError("worse")}, ["failed", "failed"]),
        ({"a.svs": ZeroDivisionError(), "d/b.svs": SlideError("bad")}, ["failed", "failed"]),
    ],
)
def test_one_bad_slide_does_not_stop_the_rest(
    calls: Calls, outcomes: dict[str, BaseException | RunState], statuses: list[str]
) -> None:
    calls.outcomes = outcomes
    done = run(*TWO, "-o", "out")
    assert done.exit_code == 1
    assert calls.slides == list(TWO)
    assert list(table().values()) == statuses
    raised = [one for one in outcomes.values() if isinstance(one, BaseException)]
    assert len(error_lines(done)) == len(raised)
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-2:] == [
        "some slides aren't finished; the rest is kept. To try just those again:",
        "  wsi-unet segment a.svs d/b.svs -o out",
    ]


def test_json_is_one_document_and_alone_on_stdout(calls: Calls) -> None:
    calls.outcomes["d/b.svs"] = SlideError("b.svs: no such file")
    done = run(*TWO, "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == document["exit_code"] == 1
    good, bad = document["slides"]
    assert good["slide"] == str(Path("a.svs").absolute())
    assert good["state"] == good["status"] == "finished"
    assert good["classes"][1]["area_mm2"] == 0.25
    assert (bad["state"], bad["error"]) == ("failed", "b.svs: no such file")
    assert "a.svs: finished" in done.stderr
    assert error_lines(done) == ["error: b.svs: no such file"]


def test_quiet_leaves_only_what_came_of_it(calls: Calls) -> None:
    assert run(*TWO, "-q").stderr == ""
    done = run(*TWO, "-q", "--json")
    assert done.stderr == ""
    assert len(json.loads(done.stdout)["slides"]) == 2


def test_verbose_adds_each_report(calls: Calls) -> None:
    assert "agreement  none" in run(*TWO, "-v").stdout
    assert "agreement" not in run(*TWO).stdout


def test_a_manifests_columns_are_in_the_report(calls: Calls) -> None:
    Path("m.csv").write_text("slide,patient\na.svs,P-7\n")
    assert run("m.csv", "-o", "out").exit_code == 0
    (row,) = csv.DictReader(io.StringIO(Path("out/cohort.csv").read_text(), newline=""))
    assert row["patient"] == "P-7"


def test_what_is_finished_stays_in_the_report_of_the_rerun(calls: Calls) -> None:
    calls.outcomes["d/b.svs"] = SlideError("away")
    assert run(*TWO, "-o", "out").exit_code == 1
    calls.outcomes = {"a.svs": KeyboardInterrupt()}
    assert run(*TWO, "-o", "out").exit_code == 1
    assert table() == {"a.svs": "finished", "b.svs": "waiting"}


@pytest.mark.parametrize("error", [OptionError("no scheduler"), ClusterError("no worker left")])
def test_a_cluster_that_can_not_be_used_changes_nothing(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, error: ClusterError | OptionError
) -> None:
    assert run(*TWO, "-o", "out").exit_code == 0
    before = Path("out/cohort.json").read_bytes()

    def refuse(*_: Any, **__: Any) -> Iterator[SlideOutcome]:
        yield from ()
        raise error

    monkeypatch.setattr(wsi_unet, "segment_cohort", refuse)
    done = run(*TWO, "-o", "out")
    assert done.exit_code == error.exit_code
    assert done.stderr == f"error: {error}\n"
    assert done.stdout == ""
    assert Path("out/cohort.json").read_bytes() == before
    assert run(*TWO, "-o", "new").exit_code == error.exit_code
    assert not Path("new").exists()


def test_a_cluster_lost_during_the_run_is_reported_once(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(jobs: Iterable[SlideJob], *_: Any, **__: Any) -> Iterator[SlideOutcome]:
        for job in list(jobs)[:2]:
            yield SlideOutcome(
                job, report(str(job.output), "incomplete"), ClusterError("it is gone")
            )

    monkeypatch.setattr(wsi_unet, "segment_cohort", lose)
    done = run(*TWO, "c.svs", "-o", "out")
    assert done.exit_code == 1
    assert error_lines(done) == ["error: it is gone"]
    assert table() == {"a.svs": "incomplete", "b.svs": "incomplete", "c.svs": "waiting"}
    rows = json.loads(Path("out/cohort.json").read_bytes())["slides"]
    assert [row["error"] for row in rows] == ["it is gone", "it is gone", None]


def test_a_second_run_at_the_same_folder_is_refused(calls: Calls) -> None:
    assert run(*TWO, "-o", "out").exit_code == 0
    before = Path("out/cohort.json").read_bytes()
    with acquire(open_store("out")):
        done = run(*TWO, "-o", "out", "-q")
    assert done.exit_code == LockedError.exit_code
    assert done.stderr.startswith(f"error: {Path('out').absolute()}: is being written by process")
    assert done.stderr.count("\n") == 1
    assert Path("out/cohort.json").read_bytes() == before
    assert len(calls.jobs) == 2, "only the first run's"


def test_a_report_that_can_not_be_written_at_the_end_is_an_error(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: LocalStore, key: str, data: bytes) -> None:
        raise OutputError("no space left")

    def work(jobs: Iterable[SlideJob], *_: Any, **__: Any) -> Iterator[SlideOutcome]:
        for job in jobs:
            yield SlideOutcome(job, report(str(job.output)))
        monkeypatch.setattr(LocalStore, "put", full)

    monkeypatch.setattr(wsi_unet, "segment_cohort", work)
    done = run(*TWO, "-o", "out")
    assert done.exit_code == 1
    assert error_lines(done) == ["error: no space left"]
    assert "2 of 2 slides finished" in done.stdout


def test_a_signal_while_a_row_is_noted_waits_until_it_is(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come at any time; between two slides it takes effect at the next heartbeat."""

    def work(
        jobs: Iterable[SlideJob], *_: Any, on_progress: Any, **__: Any
    ) -> Iterator[SlideOutcome]:
        for job in jobs:
            yield SlideOutcome(job, report(str(job.output)))
            on_progress(cohort_progress((segmenting(job.slide),)))
            raise AssertionError("the wish to end was forgotten")

    def line(*_: Any) -> str:
        signal.raise_signal(signal.SIGINT)
        return "a line"

    monkeypatch.setattr(wsi_unet, "segment_cohort", work)
    monkeypatch.setattr(many_slides, "_line", line)
    done = run(*TWO, "-o", "out", "-q")
    assert done.exit_code == 1
    assert done.stdout.startswith("a line\n1 of 2 slides finished")
    assert "interrupted" in done.stderr
    assert table() == {"a.svs": "finished", "b.svs": "waiting"}


def test_folders_that_can_not_be_searched_are_reported(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("s/closed").mkdir(parents=True)
    Path("s/a.svs").touch()
    real = os.scandir

    def scandir(path: str) -> object:
        if path == "s/closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    done = run("s", "-o", "out", "-q")
    assert done.exit_code == 0
    line = "s/closed: can't be searched: Permission denied"
    assert done.stderr == f"warning: {line}\n"
    assert json.loads(Path("out/cohort.json").read_bytes())["skipped"] == [line]


@pytest.mark.parametrize(("resumed", "left"), [(4, "11.0 s"), (0, "2.2 s")])
def test_the_time_left_goes_by_slides_that_took_work(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, resumed: int, left: str
) -> None:
    """After a second: one slide of four is done, by this run or an earlier one, a quarter more."""

    def work(
        jobs: Iterable[SlideJob], *_: Any, on_progress: Any, **__: Any
    ) -> Iterator[SlideOutcome]:
        first, second, *_rest = jobs
        yield SlideOutcome(first, report(str(first.output), resumed=resumed))
        on_progress(cohort_progress((segmenting(second.slide),)))

    monkeypatch.setattr(wsi_unet, "segment_cohort", work)
    assert f"· {left} left ·" in run("a.svs", "b.svs", "c.svs", "d.svs").stderr
