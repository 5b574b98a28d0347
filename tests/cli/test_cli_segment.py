"""`wsi-unet segment` around a stand-in for the run itself: outputs, exit codes, streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.standin import Calls, error_lines, report, run

import wsi_unet
from wsi_unet.errors import OutputError, SlideError
from wsi_unet.segment.report import (
    State,
)
from wsi_unet_cli.jobs import jobs_for


@pytest.mark.parametrize(
    ("slide", "output"),
    [
        ("slides/a.svs", "a.ome.zarr"),
        ("a.ome.tif", "a.ome.zarr"),
        ("a.ome.zarr/", "a.ome.zarr"),
        ("case.12.ndpi", "case.12.ome.zarr"),
    ],
)
def test_the_default_output_is_the_slides_name_here(calls: Calls, slide: str, output: str) -> None:
    assert run(slide).exit_code == 0
    assert calls.calls[0][0] == (slide, output, "nuclei-he")


def test_the_default_output_is_the_packages_too() -> None:
    from wsi_unet.segment.run import default_output

    for slide in ("slides/a.svs", "a.ome.tif", "a.ome.zarr/", "case.12.ndpi", "plain"):
        assert jobs_for([slide], None)[0].output == str(default_output(slide))


@pytest.mark.parametrize(
    ("slides", "given", "outputs"),
    [
        (["d/a.svs"], "out", ["out"]),
        (["d/a.svs"], "out/", ["out/a.ome.zarr"]),
        (["d/a.svs", "d/b.svs"], "out", ["out/a.ome.zarr", "out/b.ome.zarr"]),
        (["d/a.svs", "d/b.svs"], "s3://bucket/out/", [
            "s3://bucket/out/a.ome.zarr", "s3://bucket/out/b.ome.zarr"]),
    ],
)  # fmt: skip
def test_output_is_a_folder_for_several_slides(
    calls: Calls, slides: list[str], given: str, outputs: list[str]
) -> None:
    assert run(*slides, "--output", given).exit_code == 0
    assert [call[0][1] for call in calls.calls] == outputs


def test_options_arrive_as_the_package_expects_them(calls: Calls) -> None:
    done = run(
        *("a.svs", "-o", "o", "-m", "mine", "--mpp", "0.5", "--region", "1,2,30,40"),
        *("--tissue", "none", "--outputs", "probabilities,labels", "--image", "none"),
        *("--block", "1024", "--tile", "512", "--precision", "float32", "--device", "cuda:1"),
        *("--reader", "openslide", "--workers", "3", "--overwrite"),
    )
    assert done.exit_code == 0, done.output
    assert calls.calls == [
        (
            ("a.svs", "o", "mine"),
            {
                "mpp": 0.5,
                "region": (1, 2, 30, 40),
                "tissue": "none",
                "outputs": ("labels", "probabilities"),
                "image": "none",
                "block": 1024,
                "tile": 512,
                "precision": "float32",
                "device": "cuda:1",
                "reader": "openslide",
                "workers": 3,
                "scheduler": None,
                "overwrite": True,
            },
        )
    ]


def test_the_defaults_are_the_packages(calls: Calls) -> None:
    from dataclasses import asdict

    from wsi_unet.segment.options import Options

    run("a.svs")
    given = {k: v for k, v in calls.calls[0][1].items() if k != "overwrite"}
    assert given == asdict(Options())


def test_text_says_what_was_found_and_where(calls: Calls) -> None:
    done = run("a.svs")
    for part in ("finished", "a.ome.zarr (labels/nuclei-he)", "nucleus", "0.2500 mm²", "25.0 %",
                 "3.50 Mpx/s", "device 90 % busy", "exact, in float32"):  # fmt: skip
        assert part in done.stdout
    assert "segmenting: 1/4 blocks · 2.50 Mpx/s · 30.0 s left · device 93 % busy" in done.stderr


def test_quiet_leaves_stderr_empty(calls: Calls) -> None:
    assert run("a.svs", "--quiet").stderr == ""


def test_json_is_one_document_and_alone_on_stdout(calls: Calls) -> None:
    calls.outcomes["b.svs"] = SlideError("b.svs: no such file")
    done = run("a.svs", "b.svs", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == document["exit_code"] == 1
    good, bad = document["slides"]
    assert good["slide"] == "a.svs"
    assert good["state"] == "finished"
    assert good["output"] == "a.ome.zarr"
    assert good["classes"][1]["area_mm2"] == 0.25
    assert good["exactness"] == "exact"
    assert bad["slide"] == "b.svs"
    assert bad["state"] == "failed"
    assert bad["error"] == "b.svs: no such file"


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ({}, 0),
        ({"a.svs": "incomplete"}, 1),
        ({"a.svs": SlideError("bad")}, 1),
        ({"a.svs": SlideError("bad"), "b.svs": OutputError("bad")}, 2),
        ({"a.svs": ZeroDivisionError(), "b.svs": SlideError("bad")}, 1),
        ({"a.svs": ZeroDivisionError(), "b.svs": ZeroDivisionError()}, 1),
    ],
)
def test_one_bad_slide_does_not_stop_the_rest(
    calls: Calls, outcomes: dict[str, BaseException | State], code: int
) -> None:
    calls.outcomes = outcomes
    done = run("a.svs", "b.svs")
    assert done.exit_code == code
    assert [call[0][0] for call in calls.calls] == ["a.svs", "b.svs"]
    raised = [o for o in outcomes.values() if isinstance(o, BaseException)]
    assert len(error_lines(done)) == len(raised)
    assert "Traceback" not in done.stderr


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
    assert "agreement  None" in run("a.svs", "-v").stdout
    assert "agreement" not in run("a.svs").stdout


def test_nothing_left_to_do_is_said_so(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsi_unet, "segment", lambda *_, **__: report("o", resumed=4))
    done = run("a.svs")
    assert "nothing was left to compute" in done.stdout
    assert "Mpx/s" not in done.stdout


def test_plan_writes_nothing_and_never_segments(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OutputError("belongs to somebody else")

    monkeypatch.setattr(wsi_unet, "plan", refuse)
    done = run("a.svs", "--plan", "-o", str(tmp_path / "o"))
    assert done.exit_code == 2
    assert error_lines(done) == ["error: belongs to somebody else"]
    assert calls.calls == []
    assert list(tmp_path.iterdir()) == []
