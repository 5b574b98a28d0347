"""What makes a result doubtful is said before the first block, once, and kept."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.oracle import balanced_model, textured, write_png

import wsi_unet
from wsi_unet.errors import SlideError
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet_cli.main import cli

OF_SLIDE = ("the slide's pixels are 2 times as large as the model's",)
OF_MODEL = (
    "tiles may show in the labels: its result depends on all of",
    "assumed about random, as nothing states it: classes by number; any norm",
)
EXPECTED = (*(f"slide.png: {line}" for line in OF_SLIDE), *(f"random: {line}" for line in OF_MODEL))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide, and an approximate model for 0.5 µm."""
    folder, image = tmp_path_factory.mktemp("made"), textured(80, 70)
    write_png(folder / "slide.png", image)
    write_png(folder / "other.png", image)
    config = UNetConfig(base_width=2, depth=1, classes=2, norm="instance")
    assumed = ("classes by number", "any norm")
    balanced_model(config, image, folder / "model", mpp=0.5, window=64, assumed=assumed)
    return folder


def run(made: Path, output: Path | str, *arguments: str) -> Result:
    fixed = ["--block", "512", "--tissue", "none", "--precision", "float32", "--image", "none"]
    places = [str(made / "slide.png"), "-m", str(made / "model"), "-o", str(output)]
    return CliRunner().invoke(cli, ["segment", *arguments, *places, *fixed])


def test_warnings_come_once_before_the_first_block(made: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    done = run(made, tmp_path / "out", "--mpp", "1", "--log", str(log))
    assert done.exit_code == 0, done.output
    lines = done.stderr.splitlines()
    for expected in EXPECTED:
        assert sum(line.startswith(f"warning: {expected}") for line in lines) == 1
        assert expected.partition(": ")[2] not in done.stdout
    assert "give --mpp" in done.stderr
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    first_block = events.index("block done")
    for expected in EXPECTED:
        (number,) = (n for n, event in enumerate(events) if event.startswith(expected))
        assert number < first_block


def test_plans_and_cohorts_keep_them(made: Path, tmp_path: Path) -> None:
    planned = run(made, tmp_path / "out", "--mpp", "1", "--plan").stdout
    as_json = json.loads(run(made, tmp_path / "out", "--mpp", "1", "--plan", "--json").stdout)
    done = run(made, f"{tmp_path}/out/", "--mpp", "1", str(made / "other.png"))
    assert done.exit_code == 0, done.output
    table = (tmp_path / "out" / "cohort.csv").read_text()
    (row,) = (r for r in csv.DictReader(io.StringIO(table)) if r["slide"].endswith("slide.png"))
    rows = json.loads((tmp_path / "out" / "cohort.json").read_text())["slides"]
    (slide,) = (r for r in rows if r["slide"].endswith("slide.png"))
    for expected in (*OF_SLIDE, *OF_MODEL):
        assert planned.count(expected) == 1
        for warnings in (as_json["slides"][0]["warnings"], slide["warnings"]):
            assert sum(line.startswith(expected) for line in warnings) == 1
        assert row["warnings"].count(expected) == 1
    for expected in OF_SLIDE:
        for name in ("slide.png", "other.png"):
            assert done.stderr.count(f"warning: {name}: {expected}") == 1
    for expected in OF_MODEL:  # which isn't said again for each slide
        assert done.stderr.count(f"warning: random: {expected}") == 1
        assert done.stderr.count(expected) == 1


def test_plans_of_many_slides_say_once_what_is_doubtful_about_the_model(
    made: Path, tmp_path: Path
) -> None:
    folder, arguments = f"{tmp_path}/out/", ("--mpp", "1", "--plan", str(made / "other.png"))
    planned = run(made, folder, *arguments).stdout
    document = json.loads(run(made, folder, *arguments, "--json").stdout)
    for expected in OF_SLIDE:
        assert planned.count(expected) == 2
    for expected in OF_MODEL:
        assert planned.count(f"random: {expected}") == planned.count(expected) == 1
        for slide in document["slides"]:
            assert sum(line.startswith(expected) for line in slide["warnings"]) == 1
    assert len(document["totals"]["model_warnings"]) == len(OF_MODEL)


def test_a_cohort_knows_them_while_a_slide_runs(made: Path, tmp_path: Path) -> None:
    cohort = wsi_unet.read_cohort(
        [str(made / "slide.png")], f"{tmp_path}/", str(made / "model"), wsi_unet.Options(mpp=1)
    )
    report = wsi_unet.CohortReport(str(tmp_path), cohort.slides, clock=iter(range(999)).__next__)
    (job,) = report.jobs()
    progress = wsi_unet.CohortProgress(
        *(1, 0, 0, 0, 1, 0, 1.0, 0.0, 0.0, 0.0),
        active=(
            wsi_unet.segmentation.report.RunProgress(
                "segmenting", slide="slide.png", output=str(job.output), warnings=("doubtful",)
            ),
        ),
    )
    report.add_progress(progress)
    (line,) = report.lines()
    assert json.loads(line)["warnings"] == ["doubtful"]
    report.close()


@pytest.mark.parametrize(
    ("mpp", "message"),
    [
        (2.5, r"5 times as large as those that random is for \(2.5 and 0.5 µm\)"),
        (29.0, "58 times as large"),
    ],
)
def test_very_different_scales_need_permission(
    made: Path, tmp_path: Path, mpp: float, message: str
) -> None:
    options: dict[str, Any] = {"mpp": mpp, "tissue": "none", "block": 512}
    arguments = made / "slide.png", tmp_path / "out", made / "model"
    with pytest.raises(SlideError, match=f"{message}.*give `mpp`; `allow_scale=True`"):
        wsi_unet.segment(*arguments, **options)
    assert not (tmp_path / "out").exists()
    done = run(made, tmp_path / "out", "--mpp", str(mpp))
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].endswith(
        "if the slide's pixel size is wrong, give --mpp; --allow-scale segments it all the same"
    )
    if mpp == 2.5:
        wsi_unet.plan(*arguments, allow_scale=True, **options)


@pytest.mark.parametrize("mpp", [0.02, 2.0])
def test_four_times_as_large_is_allowed_and_much_smaller(
    made: Path, tmp_path: Path, mpp: float
) -> None:
    wsi_unet.plan(
        *(made / "slide.png", tmp_path / "out", made / "model"), mpp=mpp, tissue="none", block=512
    )
