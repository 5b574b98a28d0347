"""The Snakemake workflow over a manifest, with a slide that fails at first."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
IMAGES = ROOT / "tests" / "data" / "nuclei_he" / "images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a manifest of two slides, one of them not readable."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(IMAGES / "0c2550a23b8a.png", data / "a b.png")
    (data / "broken.png").write_bytes(b"")
    lines = ["slide,mpp,tissue,patient", "a b.png,0.5,none,P-17", "broken.png,0.25,none,P-18"]
    (data / "cohort.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def snakemake(folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("snakemake", path=PATH) is None:
        pytest.skip("snakemake isn't installed; the dependency group test has it")
    command = ["snakemake", "--snakefile", str(ROOT / "workflows" / "snakemake" / "Snakefile")]
    command += ["--cores", "2", "--keep-going", "--config", "manifest=data/cohort.csv", "threads=1"]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": PATH, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_manifest_becomes_results_pictures_and_a_summary(folder: Path) -> None:
    results = folder / "results"
    done = snakemake(folder)
    assert done.returncode != 0
    assert "empty" in (results / "logs" / "broken.log").read_text(encoding="utf-8")
    (slide,) = json.loads((results / "a b.json").read_text(encoding="utf-8"))["slides"]
    assert (slide["state"], slide["parameters"]["tissue"]) == ("finished", "none")
    assert (results / "a b.png").exists()
    assert not (results / "summary.csv").exists()

    # Snakemake has removed what a failed job declared as its output; the blocks must not be that.
    marker = results / "a b.ome.zarr" / ".wsi_unet" / "nuclei-he" / "blocks" / "0.0.json"
    written = marker.stat().st_mtime_ns
    (results / "a b.json").unlink()
    shutil.copy(IMAGES / "87ea72894f65.png", folder / "data" / "broken.png")
    done = snakemake(folder)
    assert done.returncode == 0, done.stderr
    assert marker.stat().st_mtime_ns == written
    assert {path.name for path in results.glob("*.png")} == {"a b.png", "broken.png"}
    with (results / "summary.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["slide"], row["class"]) for row in rows] == [
        (f"data/{name}.png", found)
        for name in ("a b", "broken")
        for found in ("background", "nuclei")
    ]
    assert sum(float(row["fraction"]) for row in rows) == pytest.approx(2)


def test_two_slides_of_one_name_are_refused(folder: Path) -> None:
    manifest = folder / "data" / "cohort.csv"
    manifest.write_text("slide\na/x.svs\nb/x.tif\n", encoding="utf-8")
    done = snakemake(folder)
    assert done.returncode != 0
    assert "two slides are called x" in done.stderr
