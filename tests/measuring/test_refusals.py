"""Whatever can't be measured is one line that says what to do, and nothing is written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from click.testing import CliRunner, Result
from measuring.regions import write_regions
from support.labelled import write_store

import wsi_unet
from wsi_unet.errors import OptionError
from wsi_unet_cli.main import cli

LABELS = np.zeros((90, 600), np.uint8)
LABELS[12:20, 12:30] = LABELS[30:40, 520:540] = 1


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Return a folder with a result, its objects and regions."""
    wsi_unet.find_objects(write_store(tmp_path / "a.ome.zarr", LABELS))
    write_regions(tmp_path / "regions.geojson", [({}, shapely.box(10, 10, 60, 50))])
    return tmp_path


def measure(folder: Path, *arguments: str) -> Result:
    words = [str(folder / word[1:]) if word.startswith("@") else word for word in arguments]
    return CliRunner().invoke(cli, ["measure", *words])


def assert_refused(done: Result, match: str) -> None:
    assert done.exit_code == 2, done.output
    assert re.search(match, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


RESULT = ["@a.ome.zarr", "--regions", "@regions.geojson"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["@none.ome.zarr", *RESULT], r"none.ome.zarr: there is no output of wsi-unet here"),
        ([*RESULT, "--label", "ghost"], "there are no labels 'ghost', only nuclei"),
        ([*RESULT[:2], "@none.geojson"], r"none.geojson: can't be read: No such file"),
        ([*RESULT[:2], "@a.ome.zarr"], "a.ome.zarr: has no regions of .*, such as a.geojson"),
        ([*RESULT[:2], "s3://bucket/r.geojson"], "annotations must be a file on a disk"),
        ([*RESULT, "-o", "@table.xlsx"], r"a table is a .csv or .parquet file"),
        ([*RESULT, "-o", "@none/table.csv"], "its folder isn't there"),
        ([*RESULT, "-o", "@folder.csv"], "is a folder; choose another file"),
    ],
)
def test_arguments(inputs: Path, arguments: list[str], match: str) -> None:
    (inputs / "folder.csv").mkdir()
    before = sorted(inputs.rglob("*"))
    assert_refused(measure(inputs, *arguments), match)
    assert sorted(inputs.rglob("*")) == before


def outside(folder: Path) -> None:
    far = [({}, shapely.box(10, 10, 60, 50)), ({"name": "far"}, shapely.box(700, 10, 800, 50))]
    write_regions(folder / "regions.geojson", far)


def points_alone(folder: Path) -> None:
    (folder / "regions.geojson").write_text('{"type": "Point", "coordinates": [1, 2]}')


def no_json(folder: Path) -> None:
    (folder / "regions.geojson").write_text('{"type": "Feat')


def unfinished(folder: Path) -> None:
    shutil.rmtree(folder / "a.ome.zarr")
    write_store(folder / "a.ome.zarr", LABELS, finished=False)


def without_objects(folder: Path) -> None:
    shutil.rmtree(folder / "a.ome.zarr")
    write_store(folder / "a.ome.zarr", LABELS)


def missing_part(folder: Path) -> None:
    (folder / "a.ome.zarr/objects/nuclei/0.1.parquet").unlink()


def damaged_part(folder: Path) -> None:
    part = folder / "a.ome.zarr/objects/nuclei/0.1.parquet"
    part.write_bytes(part.read_bytes()[:-20])


def without_progress(folder: Path) -> None:
    shutil.rmtree(folder / "a.ome.zarr/.wsi_unet")


def damaged_labels(folder: Path) -> None:
    shard = folder / "a.ome.zarr/labels/nuclei/0/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-9])


def lost_labels(folder: Path) -> None:
    (folder / "a.ome.zarr/labels/nuclei/0/c/0/0").unlink()


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (outside, r"a.ome.zarr: .*regions.geojson: annotation 2 .* lies outside of the slide"),
        (lost_labels, "'labels/nuclei/0/c/0/0' is missing; get the output's status"),
        (points_alone, "holds no polygons; annotate areas"),
        (no_json, "isn't valid GeoJSON"),
        (unfinished, "the labels 'nuclei' aren't finished, .* run the same segmentation again"),
        (
            without_objects,
            "no objects .* find objects .*, or measure areas alone with --areas-only",
        ),
        (missing_part, "1 of 2 parts .* find objects again, .* with --areas-only"),
        (damaged_part, r"'objects/nuclei/0.1.parquet' is damaged .* find objects again"),
        (without_progress, "nothing says where the model looked; copy the folder .wsi_unet too"),
        (damaged_labels, "'labels/nuclei/0/c/0/0' is "),
    ],
)
def test_files(inputs: Path, spoil: Callable[[Path], None], match: str) -> None:
    spoil(inputs)
    output = ["-o", "@table.csv"]
    assert_refused(measure(inputs, *RESULT, *output), match)
    assert not (inputs / "table.csv").exists()


def test_labels_that_changed_have_no_objects_any_more(inputs: Path) -> None:
    store = inputs / "a.ome.zarr"
    document = (store / "labels/nuclei/zarr.json").read_text()
    (store / "labels/nuclei/zarr.json").write_text(document.replace("2026-01-02", "2026-01-03"))
    assert_refused(measure(inputs, *RESULT), "belong to earlier labels; find objects again")
    assert measure(inputs, *RESULT, "--areas-only").exit_code == 0


def test_values_that_are_no_class_are_refused(inputs: Path) -> None:
    write_store(inputs / "a.ome.zarr", LABELS * 7)
    done = measure(inputs, *RESULT, "--areas-only")
    assert_refused(done, "hold the value 7, which is none of their classes; segment again")


def test_two_files_for_one_result_are_refused(inputs: Path) -> None:
    folder = inputs / "annotations"
    folder.mkdir()
    for name in ("a.geojson", "a.xml"):
        shutil.copy(inputs / "regions.geojson", folder / name)
    done = measure(inputs, RESULT[0], "--regions", "@annotations")
    assert_refused(done, "a.geojson and a.xml both name a.ome.zarr; keep one of them")


def test_the_command_line_wants_results_and_regions(inputs: Path) -> None:
    assert "Missing argument 'OUT...'" in measure(inputs, *RESULT[1:]).stderr
    assert "Missing option '--regions'" in measure(inputs, RESULT[0]).stderr
    no_results: list[Any] = []
    with pytest.raises(OptionError, match="there are no results to measure"):
        wsi_unet.measure(no_results, inputs / "regions.geojson")
