"""`wsi-unet evaluate` on real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.labelled import blobs, rectangle, write_geojson

from wsi_unet.geometry import Box
from wsi_unet_cli.main import cli


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *(str(argument) for argument in arguments)])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Return a prediction of 0 and 1, and a truth of 0 and 255."""
    paths = tmp_path / "prediction.png", tmp_path / "truth.png"
    for seed, (path, most) in enumerate(zip(paths, (1, 255), strict=True)):
        Image.fromarray(blobs((90, 120), seed, values=2) * np.uint8(most)).save(path)
    return paths


def test_a_table_of_classes_and_the_overall_lines(pair: tuple[Path, Path]) -> None:
    done = run(*pair, "--classes", "cell=1:255")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["value", "class", "truth", "px"]
    assert lines[2].split()[:2] == ["1", "cell"]
    document = json.loads(run(*pair, "--classes", "cell=1:255", "--json").stdout)
    assert f"{document['classes'][1]['dice']:.4f}" in lines[2]
    assert f"pixel error  {document['pixel_error']:.4f}" in done.stdout
    assert sum(map(sum, document["confusion"])) == document["pixels"] == 90 * 120
    heading = next(number for number, line in enumerate(lines) if "predicted as" in line)
    shown = [line.split()[1:] for line in lines[heading + 1 : heading + 3]]
    assert [[int(cell) for cell in row] for row in shown] == document["confusion"]


def test_objects_and_segments(pair: tuple[Path, Path]) -> None:
    done = run(*pair, "--instances")
    assert "PQ" in done.stdout
    assert "AJI" in done.stdout
    assert json.loads(run(*pair, "--instances", "--json").stdout)["objects"]["truth"] > 0
    done = run(*pair, "--em", "--tolerance", "none")
    assert "V_rand" in done.stdout
    assert "boundary F1  " not in done.stdout.split("overall")[1]
    document = json.loads(run(*pair, "--em", "--json").stdout)
    assert 0 < document["segments"]["v_rand"] < 1


def test_a_score_of_nothing_is_null_or_na(pair: tuple[Path, Path]) -> None:
    options: list[str | Path] = [pair[0], pair[0], "--classes", "cell=1,ghost=7"]
    assert "n/a" in run(*options).stdout
    assert json.loads(run(*options, "--json").stdout)["classes"][2]["dice"] is None


def test_regions(pair: tuple[Path, Path], tmp_path: Path) -> None:
    within = write_geojson(tmp_path / "w.geojson", [("any", rectangle(Box(10, 10, 50, 60)))])
    options: list[str | Path] = [pair[0], pair[0], "--within", within, "--region", "0,0,30,30"]
    document = json.loads(run(*options, "--json").stdout)
    assert document["pixels"] == 20 * 20
    assert "1 annotation of 1 polygon" in run(*options).stdout


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ([], "have the value 255, which is none of the classes"),
        (["--ignore", "cell"], "has no class 'cell' to ignore"),
        (["--classes", "cell"], "write NAME=VALUE"),
        (["--region", "500,0,9,9"], "lies outside"),
        (["--within", "missing.geojson"], "can't be read"),
        (["--instances", "--em"], "choose one"),
        (["--label", "x"], "isn't a label OME-Zarr"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    pair: tuple[Path, Path], options: list[str], match: str
) -> None:
    if not options:
        options = ["--classes", "cell=1"]
    done = run(*pair, *options)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert match in done.stderr


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", ""])
def test_wrong_tolerances(pair: tuple[Path, Path], value: str) -> None:
    done = run(*pair, "--tolerance", value)
    assert done.exit_code == 2
    assert "neither a number of pixels, 0 or more, nor 'none'" in done.stderr


def test_sizes_that_differ(pair: tuple[Path, Path], tmp_path: Path) -> None:
    Image.fromarray(blobs((91, 120))).save(tmp_path / "a.png")
    done = run(pair[0], tmp_path / "a.png")
    assert done.exit_code == 2
    assert "differ in size (120 x 90 px and 120 x 91 px)" in done.stderr


def test_an_outline_that_covers_nothing_is_left_out_and_said(tmp_path: Path) -> None:
    """The area is that of the others, 52,500 px."""
    boxes = [Box(50, 50, 200, 250), Box(300, 300, 450, 450)]
    prediction = np.zeros((768, 1024), np.uint8)
    for box in boxes:
        prediction[box.slices()] = 1
    Image.fromarray(prediction).save(tmp_path / "p.png")
    path = write_geojson(tmp_path / "t.geojson", [("nuclei", rectangle(box)) for box in boxes])
    document = json.loads(path.read_text())
    empties: list[list[Any]] = [[], [[]], [[[1, 1], [5, 5]]]]
    for empty in empties:
        polygon = {"type": "Polygon", "coordinates": empty}
        document["features"].append({**document["features"][0], "geometry": polygon})
    path.write_text(json.dumps(document))
    arguments = (tmp_path / "p.png", path, "--classes", "nuclei=1:nuclei")
    found = json.loads(run(*arguments, "--json").stdout)
    left_out = "3 outlines that cover nothing are left out, first in feature 3 ('nuclei')"
    assert found["classes"][1]["truth_pixels"] == 52_500
    assert found["classes"][1]["dice"] == 1
    assert found["truth_annotations"] == {"annotations": 2, "polygons": 2, "left_out": left_out}
    assert f"2 annotations of 2 polygons; {left_out}" in run(*arguments).stdout
