"""Objects as the second stage of a run, and on clusters: the same table whatever happens."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from objects import shapes
from support import warm
from support.labelled import write_store
from support.oracle import balanced_model, textured, write_png
from support.runs import array_objects, temporaries

import wsi_unet
from wsi_unet import ClusterOptions
from wsi_unet.errors import OptionError
from wsi_unet.geometry import BlockIndex
from wsi_unet.models import UNetConfig
from wsi_unet.objects.stage import Stage
from wsi_unet.objects.status import read_object_status
from wsi_unet.segmentation import find_objects as find_module
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.runs import cohort as cohort_module
from wsi_unet.storage.opening import open_store
from wsi_unet_cli.main import cli

OPTIONS: Any = {"block": 512, "tile": 128, "precision": "float32", "device": "cpu", "mpp": 0.5}
SPLIT = "distance:1"


@pytest.fixture(scope="module")
def labels() -> shapes.Labels:
    found = np.zeros((1100, 1500), np.uint8)
    for y in range(0, 1024, 256):
        for x in range(0, 1024, 256):
            found[y : y + 256, x : x + 256] = shapes.touching_discs(256, seed=y + x)
    found[600:1090, 1000:1490] = shapes.spiral(490)
    found[1050, :900] = 2
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, labels: shapes.Labels) -> dict[str, str]:
    store = write_store(tmp_path_factory.mktemp("expected") / "out.ome.zarr", labels)
    assert wsi_unet.find_objects(store, split=SPLIT).state == "finished"
    return array_objects(store)


def read_rows(store: Path) -> pa.Table:
    """Return the table in order of identity."""
    return wsi_unet.open_objects(store).to_table().sort_by("id")


def test_worker_processes_find_the_same(
    tmp_path: Path, labels: shapes.Labels, expected: dict[str, str]
) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels)
    seen: set[str] = set()
    report = wsi_unet.find_objects(
        store,
        split=SPLIT,
        cluster=ClusterOptions(workers=2),
        on_progress=lambda progress: seen.add(progress.phase),
    )
    assert (report.state, report.labels[0].left, report.labels[0].computed) == ("finished", 0, 8)
    assert seen == {"finding objects"}
    assert array_objects(store) == expected


KILLED = """
import os, signal, sys
import wsi_unet

output, fatal = sys.argv[1], int(sys.argv[2])
replace, count = os.replace, 0

def watched(source, target, **options):
    global count
    if "objects" in str(target):
        count += 1
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(source, target, **options)

os.replace = watched
wsi_unet.find_objects(output, split="distance:1")
"""


@pytest.mark.parametrize("fatal", [1, 4, 10, 13, 22])
def test_killed_anywhere_the_same_command_completes_it(
    tmp_path: Path, labels: shapes.Labels, expected: dict[str, str], fatal: int
) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels)
    killed = warm.run([sys.executable, "-c", KILLED, str(store), str(fatal)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(wsi_unet.OutputError):
        wsi_unet.open_objects(store)
    assert wsi_unet.find_objects(store, split=SPLIT).state == "finished"
    assert array_objects(store) == expected
    assert not temporaries(store)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a slide and a model."""
    folder = tmp_path_factory.mktemp("slide")
    image = textured(700, 900)
    write_png(folder / "slide.png", image)
    balanced_model(UNetConfig(depth=1, base_width=4), image, folder / "model")
    return folder


def segment(slide: Path, output: Path, **options: Any) -> wsi_unet.Report:
    return wsi_unet.segment(slide / "slide.png", output, slide / "model", **(OPTIONS | options))


@pytest.fixture(scope="module")
def whole(slide: Path) -> pa.Table:
    """Return the objects found afterwards, in one block."""
    segment(slide, slide / "whole.ome.zarr", block=4096)
    wsi_unet.find_objects(slide / "whole.ome.zarr", split=SPLIT, min_area=2)
    return read_rows(slide / "whole.ome.zarr")


def test_a_run_measures_the_slide_too(slide: Path, tmp_path: Path) -> None:
    measured: Any = {"measure": "shape,intensity,stain", "min_area": 2}
    segment(slide, tmp_path / "out", outputs=("labels", "objects"), **measured)
    segment(slide, tmp_path / "other", block=1024)
    wsi_unet.find_objects(tmp_path / "other", **measured)
    rows = read_rows(tmp_path / "out")
    assert "mean_red" in rows.column_names
    assert "sd_dab" in rows.column_names
    assert rows.equals(read_rows(tmp_path / "other"))


@pytest.mark.parametrize(("block", "workers"), [(512, None), (1024, 2)])
def test_a_run_finds_what_is_found_afterwards(
    slide: Path, whole: pa.Table, tmp_path: Path, block: int, workers: int | None
) -> None:
    report = segment(
        slide, tmp_path / "out", outputs=("labels", "objects"), split=SPLIT, min_area=2,
        block=block, cluster=None if workers is None else ClusterOptions(workers=workers),
    )  # fmt: skip
    assert report.state == "finished"
    (found,) = report.objects
    assert found.objects == len(whole) > 100
    assert found.finished
    assert read_rows(tmp_path / "out").equals(whole)
    (status,) = wsi_unet.run_status(tmp_path / "out")[0].objects
    assert (status.state, status.objects, status.done) == ("finished", len(whole), status.blocks)
    again = segment(
        slide, tmp_path / "out", outputs=("labels", "objects"), split=SPLIT, min_area=2, block=block
    )
    assert again.blocks.resumed == again.blocks.total
    assert again.objects[0].computed == 0
    assert again.objects[0].classes == found.classes


def test_a_larger_region_makes_again_what_it_touches(slide: Path, tmp_path: Path) -> None:
    output, options = tmp_path / "out", {"outputs": ("labels", "objects")}
    first = segment(slide, output, region=(0, 0, 600, 300), **options)
    rows = read_rows(output)
    grown = segment(slide, output, region=(0, 512, 900, 188), **options)
    assert grown.objects[0].computed > 0
    assert grown.objects[0].parts > first.objects[0].parts
    fresh = tmp_path / "fresh"
    segment(slide, fresh, region=(0, 0, 600, 300))
    segment(slide, fresh, region=(0, 512, 900, 188))
    wsi_unet.find_objects(fresh)
    assert read_rows(output).equals(read_rows(fresh))
    assert len(read_rows(output)) > len(rows)


KILLED_RUN = """
import os, signal, sys
import wsi_unet

slide, output, model, fatal = *sys.argv[1:4], int(sys.argv[4])
replace, count = os.replace, 0

def watched(source, target, **options):
    global count
    count += 1
    if count == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(source, target, **options)

os.replace = watched
wsi_unet.segment(
    slide, output, model, block=512, tile=128, precision="float32", device="cpu", mpp=0.5,
    outputs=("labels", "objects"), split="distance:1", min_area=2,
)
"""


def test_a_run_killed_in_either_stage_is_resumed(
    slide: Path, whole: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-c", KILLED_RUN, str(slide / "slide.png"), str(output)]
    ended, kills = 1, 0
    while ended:
        done = warm.run([*command, str(slide / "model"), "17"], check=False)
        ended, kills = done.returncode, kills + (done.returncode == -signal.SIGKILL)
    assert kills > 2
    assert read_rows(output).equals(whole)
    assert not temporaries(output)


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(shortest_deadline=5.0, deadline_factor=0.0, look_seconds=0.2, retries=0)
    monkeypatch.setattr(find_module, "LIMITS", limits)
    monkeypatch.setattr(find_module, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(cohort_module, "LIMITS", limits)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Let the part of one block hang until the event is set."""
    make, end = Stage.make_part, Event()

    def hang(self: Stage, block: BlockIndex, owned: Any) -> Any:
        if block == (0, 1):
            end.wait(15)
        return make(self, block, owned)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "make_part", hang)
        yield end
    end.set()


@pytest.mark.usefixtures("short_deadline")
def test_a_block_that_hangs_fails_alone(
    tmp_path: Path, labels: shapes.Labels, hanging: Event
) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels)

    def end_once_given_up(progress: wsi_unet.RunProgress) -> None:
        if progress.blocks_failed:
            hanging.set()

    report = wsi_unet.find_objects(
        store,
        split=SPLIT,
        cluster=ClusterOptions(max_retries=0),
        on_progress=end_once_given_up,
    )
    (found,) = report.labels
    assert (report.state, found.left) == ("incomplete", 1)
    (failure,) = found.failures
    assert failure.block == (0, 1)
    assert "no answer" in failure.error
    (status,) = read_object_status(open_store(store), "nuclei", ["nuclei"], verify=True)
    assert (status.state, status.failures) == ("incomplete", found.failures)


@pytest.mark.parametrize("left", [0.5, 0, None], ids=["cut short", "emptied", "lost"])
def test_labels_that_are_damaged_or_lost_are_not_background(
    tmp_path: Path, labels: shapes.Labels, expected: dict[str, str], left: float | None
) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels)
    shard = store / "labels/nuclei/0/c/1/1"
    content = shard.read_bytes()
    if left is None:
        shard.unlink()
    else:
        shard.write_bytes(content[: int(len(content) * left)])
    report = wsi_unet.find_objects(store, split=SPLIT)
    assert report.state == "incomplete"
    assert report.labels[0].failures[0].block == (1, 1)
    assert 0 < report.labels[0].left <= 8
    shard.write_bytes(content)
    assert wsi_unet.find_objects(store, split=SPLIT).state == "finished"
    assert array_objects(store) == expected


def test_an_interruption_keeps_what_is_done(
    tmp_path: Path, labels: shapes.Labels, expected: dict[str, str]
) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    report = wsi_unet.find_objects(store, split=SPLIT, on_progress=interrupt)
    assert report.state == "interrupted"
    assert report.labels[0].left
    assert wsi_unet.find_objects(store, split=SPLIT).state == "finished"
    assert array_objects(store) == expected


def test_an_interruption_leaves_a_complete_table_complete(
    tmp_path: Path, labels: shapes.Labels
) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels)
    wsi_unet.find_objects(store, split=SPLIT)
    rows = read_rows(store)

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    report = wsi_unet.find_objects(store, split=SPLIT, on_progress=interrupt)
    assert (report.state, report.labels[0].computed) == ("interrupted", 0)
    assert report.labels[0].left
    assert read_rows(store).equals(rows)


def test_a_cohort_counts_objects(slide: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").hardlink_to(slide / "slide.png")
    command = [
        "segment", str(tmp_path / "a.png"), str(tmp_path / "b.png"),
        "-o", str(tmp_path / "results/"), "-m", str(slide / "model"),
        "--outputs", "labels,objects", "--split", "none", "--min-area", "2", "--block", "512",
        "--tile", "128", "--precision", "float32", "--device", "cpu", "--mpp", "0.5", "-q",
    ]  # fmt: skip
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "results/cohort.json").read_text())
    table = (tmp_path / "results/cohort.csv").read_text().splitlines()
    for row in report["slides"]:
        rows = read_rows(Path(row["output"]))
        assert sum(found["objects"] for found in row["objects"]) == len(rows) > 0
        assert {found["name"] for found in row["objects"]} == {*rows["class"].to_pylist()}
    assert any(name.startswith("objects:") for name in table[0].split(","))
    assert any(name.startswith("density_per_mm2:") for name in table[0].split(","))


def test_rules_without_objects_and_of_other_classes_are_refused(
    slide: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="aren't among the outputs"):
        segment(slide, tmp_path / "out", split="none")
    with pytest.raises(OptionError, match="'ghost', which the labels don't have"):
        segment(slide, tmp_path / "out", outputs=("labels", "objects"), min_area={"ghost": 2})
    assert not (tmp_path / "out").exists()


def test_the_plan_tells_what_objects_take(slide: Path, tmp_path: Path) -> None:
    plan = wsi_unet.plan(
        slide / "slide.png", tmp_path / "out", slide / "model",
        **(OPTIONS | {"outputs": ("labels", "objects")}),
    )  # fmt: skip
    assert plan.object_costs is not None
    assert plan.object_costs.seconds > 0
    assert plan.outputs == ("labels", "objects")
    assert set(plan.to_json()["objects"]["rule"]) == {"class-1"}
