"""What is tried on a worker before a run: little beside the run, and once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.oracle import balanced_model, textured, write_png

import wsi_unet
from wsi_unet import logs
from wsi_unet.labels.pyramid import CHUNK
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.inference import devices, tiles
from wsi_unet.models.inference.agreement import measure_agreement
from wsi_unet.segmentation.planning import plan as planning
from wsi_unet.segmentation.runs.slides_ahead import _Preparing
from wsi_unet.segmentation.worker import probe

CONFIG = UNetConfig(base_width=2, depth=1, classes=2)


class Runs:
    """Segments one small image again and again, and keeps what was measured and shown."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        image: NDArray[np.uint8] = textured(300, 600)
        self.slide = write_png(folder / "slide.png", image)
        self.model = folder / "model"
        balanced_model(CONFIG, image, self.model)
        self.measured: list[dict[str, Any]] = []
        self.phases_shown: list[str] = []
        self.trials: list[int] = []
        patch.setattr(logs, "event", self.note)
        run = tiles._Trial.run

        def count(trial: tiles._Trial, side: int) -> None:
            self.trials.append(side)
            run(trial, side)

        patch.setattr(tiles._Trial, "run", count)
        show = _Preparing.show

        def note_phase(slide: _Preparing, phase: str) -> None:
            self.phases_shown.append(phase)
            show(slide, phase)

        patch.setattr(_Preparing, "show", note_phase)

    def note(self, name: str, **fields: Any) -> None:
        if name == "worker measured":
            self.measured.append(fields)

    def pretend_pixels(self, pixels: int) -> None:
        """Let the run seem to predict so many pixels."""
        self.patch.setattr(planning, "_count_pixels", lambda _: pixels)

    def segment(self, name: str, **options: Any) -> wsi_unet.Report:
        self.trials.clear()
        return wsi_unet.segment(
            self.slide,
            self.folder / name,
            self.model,
            block=CHUNK,
            tissue="none",
            image="none",
            **options,
        )


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, monkeypatch)


def test_short_runs_try_nothing(runs: Runs) -> None:
    report = runs.segment("a")
    assert report.parameters["tile"] == 512
    assert runs.trials == []
    assert runs.measured[0]["tile_source"] == "default"
    assert not (runs.folder / "cache").exists()


def test_a_search_is_shown_and_remembered(runs: Runs) -> None:
    runs.pretend_pixels(10**12)
    tile = runs.segment("a").parameters["tile"]
    assert set(runs.trials) == {256, 512}
    assert runs.measured[0]["tile_source"] == "searched"
    assert runs.phases_shown[0] == "choosing a tile"
    assert runs.segment("b").parameters["tile"] == tile
    assert runs.trials == []
    assert runs.measured[1]["tile_source"] == "remembered"


@pytest.mark.parametrize("damage", [b"", b'{"key": 1}', b"[" * 3000])
def test_damaged_memory_is_searched_again(runs: Runs, damage: bytes) -> None:
    runs.pretend_pixels(10**12)
    runs.segment("a")
    for path in (runs.folder / "cache").rglob("*.json"):
        path.write_bytes(damage)
    runs.segment("b")
    assert set(runs.trials) == {256, 512}


def test_a_remembered_tile_must_be_one_of_the_candidates(runs: Runs) -> None:
    runs.pretend_pixels(10**12)
    runs.segment("a")
    for path in (runs.folder / "cache").rglob("*.json"):
        text = path.read_text()
        for tile in (256, 512):
            text = text.replace(f'"tile": {tile}', '"tile": 123')
        path.write_text(text)
    assert runs.segment("b").parameters["tile"] != 123
    assert runs.trials


def test_given_tiles_and_stored_ones_are_not_searched(runs: Runs) -> None:
    runs.pretend_pixels(10**12)
    assert runs.segment("a", tile=256).parameters["tile"] == 256
    assert runs.segment("a").parameters["tile"] == 256
    assert runs.trials == []
    assert [fields["tile_source"] for fields in runs.measured] == ["given", "given"]


def test_a_plan_says_what_it_took(runs: Runs) -> None:
    options: dict[str, Any] = {"block": CHUNK, "tissue": "none"}
    short = wsi_unet.plan(runs.slide, runs.folder / "p", runs.model, **options).to_json()
    assert short["search"]["tile_source"] == "default"
    assert short["search"]["seconds"] > 0
    assert short["seconds"] > 0
    assert set(runs.trials) == {256}  # the least that tells the speed
    runs.pretend_pixels(10**12)
    long = wsi_unet.plan(runs.slide, runs.folder / "p", runs.model, **options).to_json()
    assert long["search"]["tile_source"] == "searched"
    assert set(long["search"]["tried"]) == {"256", "512"}


def test_labels_are_compared_with_float32_where_that_is_little(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_matrix_units", lambda _: True)
    monkeypatch.setattr(probe, "AGREEMENT_TILE", 128)
    compared: list[float | None] = []
    measure = measure_agreement

    def count(*arguments: Any) -> float | None:
        compared.append(measure(*arguments))
        return compared[-1]

    monkeypatch.setattr(probe, "measure_agreement", count)
    assert runs.segment("short").parameters["agreement"] is None
    runs.pretend_pixels(10**12)
    report = runs.segment("a", tile=256)
    assert report.parameters["precision"] == "bfloat16"
    assert report.parameters["agreement"] == compared[0]
    assert runs.segment("b", tile=256).parameters["agreement"] == compared[0]
    assert runs.segment("c", tile=256, precision="bfloat16").parameters["agreement"] is None
    assert len(compared) == 1


def test_a_resumed_cohort_keeps_the_agreement_of_each_slide(runs: Runs) -> None:
    """What slides of about one size share is measured once, and the agreement isn't shared."""
    jobs, made = [], {"a": 0.75, "b": None, "c": 0.5}
    for name, agreement in made.items():
        runs.segment(name, precision="bfloat16", tile=256)
        (record,) = (runs.folder / name / ".wsi_unet").glob("*/run.json")
        document = json.loads(record.read_bytes())
        document["parameters"]["agreement"] = agreement
        record.write_text(json.dumps(document))
        options = wsi_unet.Options(block=CHUNK, tissue="none", image="none")
        jobs.append(
            wsi_unet.SlideJob(
                slide=str(runs.slide),
                output=str(runs.folder / name),
                model=str(runs.model),
                options=options,
            )
        )
    found = {}
    for outcome in wsi_unet.segment_cohort(jobs):
        assert outcome.report is not None, outcome.error
        found[Path(str(outcome.job.output)).name] = outcome.report.parameters["agreement"]
    assert found == made
