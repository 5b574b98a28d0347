"""The table of a cohort: complete at any time, also after failures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.cohorts import FOLDER, CostlyClock, csv_file, finished, json_file, listed, statuses
from support.standin import cohort_progress, report

from wsi_unet.cohorts.cohort import CohortSlide, read_cohort
from wsi_unet.cohorts.report import CohortReport
from wsi_unet.cohorts.rows import CSV_COLUMNS, read_header, read_report_rows
from wsi_unet.cohorts.status import read_cohort_status
from wsi_unet.errors import LockedError, OutputError, SlideError
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.segmentation.runs.jobs import SlideJob, SlideOutcome
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.locking.lock import acquire
from wsi_unet.storage.opening import open_store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_every_slide_has_a_row_from_the_beginning_to_the_end() -> None:
    slides = listed(4)
    table = CohortReport(FOLDER, slides, clock=CostlyClock())
    jobs = iter(table.jobs())
    assert not Path("out").exists(), "nothing is written before the first slide is taken"
    assert next(jobs) is slides[0].job
    assert statuses() == ["waiting"] * 4
    assert json_file()["state"] == "running"
    assert list(jobs) == [slide.job for slide in slides[1:]]
    table.add_outcome(finished(slides[0]))
    table.add_outcome(SlideOutcome(slides[1].job, None, SlideError("bad\nslide")))
    table.add_outcome(SlideOutcome(slides[2].job, report("out/2", "incomplete")))
    table.add_progress(cohort_progress())  # late, and of two slides
    table.close()
    assert statuses() == ["finished", "failed", "incomplete", "waiting"]
    document = json_file()
    assert document["state"] == "unfinished"
    assert document["counts"] == {"finished": 1, "failed": 1, "incomplete": 1, "waiting": 1}
    progress = document["progress"]
    numbers = [progress[f"slides_{what}"] for what in ("total", "done", "failed")]
    assert (numbers, progress["blocks_in_flight"]) == ([4, 3, 2], 0)
    good, bad, part, _ = document["slides"]
    assert good["slide"] == "/s/0.svs"
    assert good["output"] == str(Path("out/0.ome.zarr").absolute())
    assert good["classes"][1] == {
        "name": "nucleus", "value": 1, "area_mm2": 0.25, "pixels": 250, "fraction": 0.25,
    }  # fmt: skip
    assert good["waits"] == {"read": 0.1, "device": 0.2, "predict": 1.5, "write": 0.1}
    assert (good["seconds"], good["mpx_per_s"], good["error"]) == (2.0, 3.5, None)
    assert bad["error"] == "bad slide"
    assert part["error"] == "1 failed block: SlideError: bad tile"


@pytest.mark.usefixtures("here")
def test_the_table_has_areas_waits_and_the_manifests_columns() -> None:
    slides = listed(2, patient='P "1", old', status="mine")
    table = CohortReport(FOLDER, slides, clock=CostlyClock())
    list(table.jobs())
    table.add_outcome(finished(slides[0]))
    table.close()
    first, second = csv_file()
    assert tuple(first)[: len(CSV_COLUMNS)] == CSV_COLUMNS
    assert tuple(first)[-1] == "patient"
    assert first["patient"] == second["patient"] == 'P "1", old'
    assert first["status"] == "finished", "a manifest's column never hides ours"
    assert (first["area_mm2:nucleus"], first["pixels:tissue"]) == ("0.25", "750")
    assert (first["blocks"], first["blocks_done"], first["device_wait_seconds"]) == (
        "4",
        "4",
        "0.2",
    )
    assert second["area_mm2:nucleus"] == second["seconds"] == second["error"] == ""


@pytest.mark.usefixtures("here")
def test_the_table_is_a_manifest_again() -> None:
    slides = [
        replace(slide, job=replace(slide.job, options=Options(mpp=0.25, tissue=tissue)))
        for slide, tissue in zip(listed(2, patient="P"), ("none", "mask.png"), strict=True)
    ]
    table = CohortReport(FOLDER, slides, clock=CostlyClock())
    list(table.jobs())
    table.add_outcome(finished(slides[0]))
    table.close()
    again = read_cohort(["out/cohort.csv"], FOLDER).slides
    assert [slide.job.slide for slide in again] == ["/s/0.svs", "/s/1.svs"]
    assert [slide.job.options.mpp for slide in again] == [0.25, 0.25]
    assert [slide.job.options.tissue for slide in again] == [
        "none",
        str(Path("mask.png").absolute()),
    ]
    second = CohortReport(FOLDER, again, clock=CostlyClock())
    list(second.jobs())
    second.close(interrupted=True)
    assert statuses() == ["finished", "waiting"]
    assert [row["patient"] for row in csv_file()] == ["P", "P"]


FORMULAS = ("=1+1", "+cmd|x", "-2+3", "@SUM(1)", "\tx", "'=1", "-5", "+1.5e3", "a=b", "'quoted'")


@pytest.mark.usefixtures("here")
def test_what_a_spreadsheet_would_run_is_guarded_and_read_back() -> None:
    names = ("=HYPERLINK(1)", "note")
    slides = [
        CohortSlide(SlideJob(slide=f"/s/{number}.svs", output=f"out/{number}"), names, (cell, cell))
        for number, cell in enumerate(FORMULAS)
    ]
    table = CohortReport(FOLDER, slides, clock=CostlyClock())
    list(table.jobs())
    table.add_outcome(SlideOutcome(slides[0].job, None, SlideError("=error")))
    table.close()
    rows = csv_file()
    assert rows[0]["error"] == "'=error"
    assert "'=HYPERLINK(1)" in rows[0]
    assert [row["note"] for row in rows] == [
        *("'=1+1", "'+cmd|x", "'-2+3", "'@SUM(1)", "'\tx", "''=1"),
        *("-5", "+1.5e3", "a=b", "'quoted'"),
    ]
    again = read_cohort(["out/cohort.csv"], FOLDER).slides
    assert [slide.columns["note"] for slide in again] == list(FORMULAS)
    assert [slide.columns["=HYPERLINK(1)"] for slide in again] == list(FORMULAS)


@pytest.mark.usefixtures("here")
def test_a_row_that_cant_be_carried_out_has_failed_from_the_beginning() -> None:
    Path("m.csv").write_text("slide,mpp,output,who\na.svs,x,,A\nb.svs,,,B\nc.svs,,../d,C\n,,,D\n")
    cohort = read_cohort(["m.csv"], FOLDER)
    table = CohortReport(FOLDER, cohort.slides, clock=CostlyClock())
    jobs = list(table.jobs())
    assert [job.slide for job in jobs] == ["b.svs"]
    assert statuses() == ["failed", "waiting", "failed", "failed"]
    table.add_outcome(SlideOutcome(jobs[0], report("")))
    assert not table.finished
    table.close()
    assert statuses() == ["failed", "finished", "failed", "failed"]
    rows = csv_file()
    assert rows[0]["error"].startswith("m.csv, line 2: mpp 'x' isn't a number")
    assert (rows[0]["slide"], rows[0]["mpp"]) == (str(Path("a.svs").absolute()), "x")
    assert rows[2]["error"].startswith("m.csv, line 4: the output ../d lies outside of out")
    assert [row["who"] for row in rows] == ["A", "B", "C", "D"]
    assert json_file()["counts"] == {"failed": 3, "finished": 1}
    states = [(status.slide, status.state) for status in read_cohort_status(FOLDER)]
    assert [state for _, state in states] == ["failed", "waiting", "failed", "failed"]
    again = read_cohort(["out/cohort.csv"], FOLDER).slides
    assert [slide.error is None for slide in again] == [False, True, False, True]


@pytest.mark.usefixtures("here")
def test_names_that_are_no_text_can_be_reported() -> None:
    job = SlideJob(slide="/s/\udcff\n[1].svs", output="out/\udcff.ome.zarr")
    table = CohortReport(FOLDER, [CohortSlide(job, ("note",), ('"ü";\r\n',))], clock=CostlyClock())
    list(table.jobs())
    table.add_outcome(SlideOutcome(job, report("")))
    table.close()
    (row,) = json_file()["slides"]
    assert row["slide"] == "/s/\udcff\n[1].svs"
    (cells,) = csv_file()
    assert cells["slide"] == "/s/\\udcff\n[1].svs"
    assert cells["note"] == '"ü";\r\n'


@pytest.mark.usefixtures("here")
def test_a_rerun_keeps_what_was_finished_and_its_times() -> None:
    slides = listed(3)
    table = CohortReport(FOLDER, slides, clock=CostlyClock())
    list(table.jobs())
    table.add_outcome(finished(slides[0]))
    table.add_outcome(SlideOutcome(slides[1].job, None, SlideError("away")))
    table.close()
    first = json_file()["slides"]

    table = CohortReport(FOLDER, slides, clock=CostlyClock())
    jobs = iter(table.jobs())
    next(jobs)
    assert statuses() == ["finished", "waiting", "waiting"]
    list(jobs)
    blocks = replace(report("").blocks, resumed=4)
    table.add_outcome(finished(slides[0], blocks=blocks, seconds=0.01, mpx_per_s=0.0))
    table.add_outcome(finished(slides[1], blocks=blocks, seconds=0.01))
    table.close()
    second = json_file()["slides"]
    assert second[0]["blocks"]["resumed"] == 4
    assert {**second[0], "blocks": None} == {**first[0], "blocks": None}
    assert second[1]["seconds"] == 0.01, "there is nothing better to say"
    assert (second[1]["status"], second[1]["error"]) == ("finished", None)


@pytest.mark.usefixtures("here")
def test_an_earlier_row_counts_only_for_the_same_job() -> None:
    slides = listed(4)
    table = CohortReport(FOLDER, slides, clock=CostlyClock())
    list(table.jobs())
    for slide in slides:
        table.add_outcome(finished(slide))
    table.close()
    jobs = [slide.job for slide in slides]
    changed = [
        jobs[0],
        replace(jobs[1], model="other"),
        replace(jobs[2], options=Options(mpp=0.3)),
        replace(jobs[3], overwrite=True),
    ]
    table = CohortReport(FOLDER, [CohortSlide(job) for job in changed], clock=CostlyClock())
    table.begin()
    assert statuses() == ["finished", "waiting", "waiting", "waiting"]
    table.close(interrupted=True)


@pytest.mark.parametrize("content", [b"", b"not ours", b"{}", b'{"slides": [\n{"output": 1}\n]}'])
@pytest.mark.usefixtures("here")
def test_what_is_not_ours_is_replaced(content: bytes) -> None:
    Path("out").mkdir()
    Path("out/cohort.json").write_bytes(content)
    table = CohortReport(FOLDER, listed(1), clock=CostlyClock())
    table.begin()
    table.close(interrupted=True)
    assert statuses() == ["waiting"]


@pytest.mark.usefixtures("here")
def test_a_torn_row_is_a_slide_of_which_nothing_is_known() -> None:
    slides = listed(2)
    table = CohortReport(FOLDER, slides, clock=CostlyClock())
    list(table.jobs())
    for slide in slides:
        table.add_outcome(finished(slide))
    table.close()
    path = Path("out/cohort.json")
    path.write_bytes(path.read_bytes().replace(b'"label":"nuclei-he"', b'"label":"nucl', 1))
    assert [row["slide"] for row in read_report_rows(open_store("out"))] == ["/s/1.svs"]
    assert (read_header(path.read_bytes()) or {})["counts"] == {"finished": 2}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "change",
    [
        {"output": 5},
        {"output": None},
        {"output": "ftp://somewhere/a"},
        {"status": ["finished"]},
        {"status": "finished", "blocks": None},
        {"blocks": {"total": 1}},
        {"blocks": {"total": 1, "done": -1, "resumed": 0, "failed": 0, "empty": 0}},
        {"waits": {"read": "x"}},
        {"mpx_per_s": float("nan")},
        {"classes": [5]},
        {"warnings": "x"},
        {"columns": [1]},
        {"columns": {"a": [[[]]]}},
    ],
)
def test_a_forged_row_is_a_slide_of_which_nothing_is_known(change: dict[str, object]) -> None:
    (slide,) = listed(1)
    table = CohortReport(FOLDER, [slide])
    list(table.jobs())
    table.add_outcome(finished(slide))
    table.close()
    path = Path("out/cohort.json")
    head, row = path.read_text().split('"slides": [')
    forged = {**json.loads(row.removesuffix("]}\n")), **change}
    path.write_text(head + '"slides": [\n' + json.dumps(forged) + "\n]}\n")
    assert list(read_report_rows(open_store(FOLDER))) == []
    assert list(read_cohort_status(FOLDER, verify=True)) == []
    again = CohortReport(FOLDER, [slide])
    again.begin()
    assert statuses() == ["waiting"]
    again.close()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"progress": 5', b'{"updated": NaN'])
def test_a_forged_head_is_no_report(content: bytes) -> None:
    store = open_store(FOLDER)
    store.put("cohort.json", content + b', "format_version": 1,\n "slides": [\n{}\n]}')
    assert list(read_report_rows(store)) == []
    assert list(read_cohort_status(FOLDER)) == []


def test_names_that_are_no_text_are_read_back(tmp_path: Path) -> None:
    name = "/s/caf\udce9\\udce9😀.png"
    table = CohortReport(
        tmp_path / "out", [CohortSlide(SlideJob(slide=name, output="/o/a.ome.zarr"))]
    )
    table.begin()
    table.close()
    (row,) = read_report_rows(open_store(tmp_path / "out"))
    assert row["slide"] == name


@pytest.mark.parametrize("linked", [False, True])
def test_forgetting_stays_in_the_folder(
    tmp_path: Path, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report from somebody else may name any result of its reader's."""
    (tmp_path / "out").mkdir()
    other = open_store(tmp_path / "other.ome.zarr")
    other.put("zarr.json", b"{}")
    named = tmp_path / "other.ome.zarr"
    if linked:
        named = tmp_path / "out" / "linked.ome.zarr"
        named.symlink_to(tmp_path / "other.ome.zarr")
    table = CohortReport(
        tmp_path / "out", [CohortSlide(SlideJob(slide="/s/a.png", output=str(named)))]
    )
    table.begin()
    table.close()
    asked = []

    def note(output: object, *, verify: bool, forget: bool) -> list[object]:
        asked.append((verify, forget))
        raise OutputError("nothing")

    monkeypatch.setattr("wsi_unet.cohorts.status.run_status", note)
    (status,) = read_cohort_status(tmp_path / "out", verify=True, forget=True)
    assert asked == [(True, False)]
    assert status.error is not None
    assert "nothing of it is forgotten" in status.error


@pytest.mark.usefixtures("here")
def test_a_second_run_at_the_same_folder_is_refused() -> None:
    first = CohortReport(FOLDER, listed(1), clock=CostlyClock())
    first.begin()
    before = Path("out/cohort.json").read_bytes()
    with pytest.raises(LockedError, match="is being written by process"):
        list(CohortReport(FOLDER, listed(2), clock=CostlyClock()).jobs())
    assert Path("out/cohort.json").read_bytes() == before
    first.close(interrupted=True)
    acquire(open_store("out")).release()


@pytest.mark.usefixtures("here")
def test_a_folder_that_can_not_be_written_is_refused_and_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def put(self: LocalStore, key: str, data: bytes) -> None:
        raise OutputError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", put)
        with pytest.raises(OutputError, match="disk full"):
            list(CohortReport(FOLDER, listed(1), clock=CostlyClock()).jobs())
    acquire(open_store("out")).release()


@pytest.mark.usefixtures("here")
def test_a_disk_that_is_full_for_a_while_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = CostlyClock()
    slides = listed(2)
    table = CohortReport(FOLDER, slides, clock=clock)
    list(table.jobs())

    def put(self: LocalStore, key: str, data: bytes) -> None:
        raise OutputError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", put)
        clock.now += 60
        table.add_outcome(finished(slides[0]))
    assert statuses() == ["waiting", "waiting"]
    clock.now += 60
    table.add_outcome(finished(slides[1]))
    assert statuses() == ["finished", "finished"]
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", put)
        with pytest.raises(OutputError, match="disk full"):
            table.close()
    acquire(open_store("out")).release()


@pytest.mark.usefixtures("here")
def test_how_far_the_whole_is_stands_in_the_file() -> None:
    clock = CostlyClock()
    table = CohortReport(FOLDER, listed(2), clock=clock)
    table.begin()
    assert json_file()["progress"] is None
    table.add_progress(cohort_progress(blocks_done=1))
    clock.now += 60
    table.add_progress(cohort_progress(blocks_done=7))
    progress = json_file()["progress"]
    assert progress["blocks_done"] == 7
    assert progress["device_busy"] == 0.93
    assert "active" not in progress
    table.close(interrupted=True)
