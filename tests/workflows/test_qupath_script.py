"""The script for QuPath, run by Groovy against stand-ins for what it calls; QuPath isn't here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from exports.qupath_reader import read_files
from exports.results import LABELS, make_result

import wsi_unet
from wsi_unet import ExportOptions

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "workflows" / "qupath" / "import_objects.groovy"
STAND_INS = Path(__file__).parent / "qupath_standin"

pytestmark = pytest.mark.skipif(shutil.which("groovy") is None, reason="needs Debian's groovy")


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """Exports of three slides, one of them in three files."""
    folder = tmp_path / "exports"
    folder.mkdir()
    for name, most in (("a", None), ("b", 60), ("c", None)):
        result = tmp_path / f"{name}.ome.zarr"
        make_result(result, labels=LABELS[:200, :300], slide=f"{name}.svs")
        options = ExportOptions(most_objects=most)
        wsi_unet.export(result, "qupath", folder / f"{name}.geojson.gz", options=options)
    assert len([*folder.glob("b-*")]) >= 3
    return folder


def run(exports: Path, images: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run the script on a project of images; return what it says, and what the project holds."""
    project = exports.parent / "project.json"
    project.write_text(json.dumps(images))
    done = subprocess.run(
        ["groovy", "-cp", STAND_INS, SCRIPT, exports],
        env=os.environ | {"STAND_IN_PROJECT": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    held: dict[str, Any] = json.loads(project.read_text())
    return done.stdout, held


def describe(name: str, width: int = 300) -> dict[str, Any]:
    return {"name": name, "width": width, "height": 200}


def test_objects_come_into_the_images_of_their_slides(exports: Path) -> None:
    images = [describe("b.svs - Series 0"), describe("other.svs"), describe("a.svs")]
    said, held = run(exports, images)
    assert "left out c: 0 images of the project are called c.svs" in said
    assert "2 of 3 exports imported" in said
    for name, image in (("a", "a.svs"), ("b", "b.svs - Series 0")):
        expected = read_files(sorted(exports.glob(f"{name}*")))
        assert {*held["images"][image]} == {each.uuid for each in expected}
        assert f"{image}: {len(expected)} objects" in said
    assert held["images"]["other.svs"] == {}
    colour = 0xFF2A6FDB - (1 << 32)
    assert held["classes"] == {"Tumor": None, "nucleus": colour, "tumour": colour}


def test_what_does_not_fit_is_named_and_left_out(exports: Path) -> None:
    next(iter(exports.glob("b-002*"))).unlink()
    (exports / "mine.geojson.gz").write_bytes((exports / "a.geojson.gz").read_bytes()[:40])
    shutil.move(exports / "mine.geojson.gz", exports / "mine.txt")
    images = [
        describe("a.svs", width=100),
        describe("b.svs"),
        describe("c.tiff"),
        describe("c.svs"),
    ]
    said, held = run(exports, images)
    assert "left out a: " in said
    assert "lie outside of the image" in said
    assert "left out b: has" in said
    assert "1 of 3 exports imported" in said
    assert [name for name, objects in held["images"].items() if objects] == ["c.svs"]
