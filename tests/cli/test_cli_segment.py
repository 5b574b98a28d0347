"""`wsi-unet segment` with one slide, around a stand-in for the run itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.standin import Calls, error_lines, report, run

import wsi_unet
from wsi_unet.cohorts import planning
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.errors import ClusterError, OptionError, OutputError, SlideError, WsiUnetError
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.segmentation.runs.jobs import SlideJob, SlideOutcome


@pytest.mark.parametrize(
    ("slide", "given", "output"),
    [
        ("slides/a.svs", None, "a.ome.zarr"),
        ("a.ome.tif", None, "a.ome.zarr"),
        ("a.ome.zarr/", None, "a.ome.zarr"),
        ("case.12.ndpi", None, "case.12.ome.zarr"),
        ("d/a.svs", "out", "out"),
        ("d/a.svs", "out/", "out/a.ome.zarr"),
        ("s3://bucket/a.svs", "s3://bucket/out/", "s3://bucket/out/a.ome.zarr"),
    ],
)
def test_where_the_result_goes(calls: Calls, slide: str, given: str | None, output: str) -> None:
    assert run(slide, *(() if given is None else ("--output", given))).exit_code == 0
    (job,) = calls.jobs
    assert (job.slide, job.output, job.model) == (slide, output, "nuclei-he")
    assert list(Path().iterdir()) == [], "one slide has no report"


def test_options_arrive_as_the_package_expects_them(calls: Calls) -> None:
    done = run(
        *("a.svs", "-o", "o", "-m", "mine", "--mpp", "0.5", "--region", "1,2,30,40"),
        *("--tissue", "none", "--outputs", "probabilities,labels", "--image", "none"),
        *("--block", "1024", "--tile", "512", "--precision", "float32", "--device", "cuda:1"),
        *("--reader", "openslide", "--workers", "3", "--max-retries", "4", "--overwrite"),
        *("--tta", "d4", "--ensemble", "mean", "-m", "hers", "-m", "his"),
    )
    assert done.exit_code == 0, done.output
    options = Options(
        mpp=0.5,
        region=(1, 2, 30, 40),
        tissue="none",
        outputs=("labels", "probabilities"),
        image="none",
        block=1024,
        tile=512,
        precision="float32",
        device="cuda:1",
        reader="openslide",
        tta="d4",
    )
    job = SlideJob(
        slide="a.svs",
        output="o",
        model="mine",
        other_models=("hers", "his"),
        options=options,
        overwrite=True,
    )
    assert calls.jobs == [job]
    assert calls.clusters == [ClusterOptions(workers=3, max_retries=4)]


def test_the_defaults_are_the_packages(calls: Calls) -> None:
    run("a.svs")
    assert calls.jobs == [SlideJob(slide="a.svs", output="a.ome.zarr")]
    assert calls.clusters == [ClusterOptions()]


def test_text_says_what_was_found_and_where(calls: Calls) -> None:
    done = run("a.svs")
    for part in ("finished", "a.ome.zarr (labels/nuclei-he)", "nucleus", "0.2500 mm²", "25.0 %",
                 "3.50 Mpx/s", "device 90 % busy", "exact, in float32"):  # fmt: skip
        assert part in done.stdout
    assert "segmenting: 1/4 blocks · 2.50 Mpx/s · 30.0 s left · device 93 % busy" in done.stderr


def test_quiet_leaves_stderr_empty(calls: Calls) -> None:
    assert run("a.svs", "--quiet").stderr == ""


def test_json_is_one_document_and_alone_on_stdout(calls: Calls) -> None:
    done = run("a.svs", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == document["exit_code"] == 0
    (slide,) = document["slides"]
    assert (slide["slide"], slide["state"], slide["output"]) == ("a.svs", "finished", "a.ome.zarr")
    assert slide["classes"][1]["area_mm2"] == 0.25
    assert slide["exactness"] == "exact"


def test_json_says_what_was_wrong(calls: Calls) -> None:
    calls.outcomes["b.svs"] = SlideError("b.svs: no such file")
    document = json.loads(run("b.svs", "--json").stdout)
    assert document == {
        "exit_code": 2,
        "slides": [
            {
                "slide": "b.svs",
                "output": "b.ome.zarr",
                "state": "failed",
                "error": "b.svs: no such file",
            }
        ],
    }


def test_a_single_bad_slide_exits_with_2(calls: Calls) -> None:
    calls.outcomes["a.svs"] = SlideError("a.svs:\nno such\x1b[31m file")
    done = run("a.svs")
    assert done.exit_code == 2
    assert error_lines(done) == ["error: a.svs: no such\\x1b[31m file"]


def test_an_unexpected_error_is_one_line_with_a_hint(calls: Calls) -> None:
    calls.outcomes["a.svs"] = RuntimeError("first\nsecond")
    done = run("a.svs", "-q")
    assert done.exit_code == 1
    assert done.stderr == (
        "error: a.svs: unexpected RuntimeError: first second "
        "(run again with -v for the traceback)\n"
    )


def test_verbose_shows_the_traceback(calls: Calls) -> None:
    calls.outcomes["a.svs"] = RuntimeError("odd")
    done = run("a.svs", "-v")
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stdout == ""


def test_verbose_adds_the_parameters(calls: Calls) -> None:
    assert "agreement  none" in run("a.svs", "-v").stdout
    assert "agreement" not in run("a.svs").stdout


def test_a_finished_run_is_reported_as_such(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(jobs: Iterable[SlideJob], *_: Any, **__: Any) -> Iterator[SlideOutcome]:
        return (SlideOutcome(job, report("o", resumed=4)) for job in jobs)

    monkeypatch.setattr(wsi_unet, "segment_cohort", nothing)
    done = run("a.svs")
    assert "nothing was left to compute" in done.stdout
    assert "Mpx/s" not in done.stdout


@pytest.mark.parametrize("error", [OptionError("no scheduler"), ClusterError("no worker left")])
def test_a_cluster_that_can_not_be_used_is_one_line(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, error: WsiUnetError
) -> None:
    def refuse(*_: Any, **__: Any) -> Iterator[SlideOutcome]:
        raise error

    monkeypatch.setattr(wsi_unet, "segment_cohort", refuse)
    done = run("a.svs", "--json", "-q")
    assert done.exit_code == json.loads(done.stdout)["exit_code"] == error.exit_code
    assert done.stderr == f"error: {error}\n"


def test_a_cluster_lost_during_the_run_keeps_the_report(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(jobs: Iterable[SlideJob], *_: Any, **__: Any) -> Iterator[SlideOutcome]:
        return (
            SlideOutcome(job, report("o", "incomplete"), ClusterError("it is gone")) for job in jobs
        )

    monkeypatch.setattr(wsi_unet, "segment_cohort", lose)
    done = run("a.svs", "-q")
    assert done.exit_code == 1
    assert "3 of 4 done" in done.stdout
    assert done.stderr.splitlines() == [
        "error: it is gone",
        "what is done is kept. To resume:",
        "  wsi-unet segment a.svs -q",
    ]


def test_plan_writes_nothing_and_never_segments(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(
        jobs: Iterable[SlideJob], *_: Any, **__: Any
    ) -> Iterator[tuple[SlideJob, Exception]]:
        return ((job, OutputError("belongs to somebody else")) for job in jobs)

    monkeypatch.setattr(planning, "plan_cohort", refuse)
    done = run("a.svs", "--plan", "-o", "o")
    assert done.exit_code == 2
    assert error_lines(done) == ["error: belongs to somebody else"]
    assert calls.jobs == []
    assert list(Path().iterdir()) == []
