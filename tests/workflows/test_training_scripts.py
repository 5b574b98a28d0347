"""The scripts beside the recipes: cross-validation, and scores of models on held-out fields."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import warm

from wsi_unet.models import load_model

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflows" / "training"

RECIPE = """
base = "modern"
name = "tiny"
background = "background"
mpp = 0.5

[[classes]]
name = "background"
color = "#ffffff"
values = [0]

[[classes]]
name = "nuclei"
color = "#ffd700"

[[data]]
images = "nuclei_he/images"
labels = "nuclei_he/instances"
kind = "instances"
object_diameter = 6.5

[split]
folds = 3

[sampling]
tile = 32
batch = 1

[running]
iterations = 2
best_by = "last"

[network]
depth = 1
base_width = 4
"""


SMALLER = (
    "split.folds=2", "sampling.tile=32", "warping.elastic=0", "running.iterations=60",
    "network.depth=1", "network.base_width=8",
)  # fmt: skip
"""How the recipe for electron micrographs becomes one for a test."""

ONE_THREAD = ("--threads", "1")
"""On networks this small, threads wait for each other ten times longer than they compute."""


def run(script: str, *arguments: str | Path) -> str:
    """Run a script as its docstring says; return its stdout."""
    done = warm.run(
        [sys.executable, SCRIPTS / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def validated(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("validated")
    run("cross_validate.py", recipe, output, "--data", ROOT / "tests" / "data", *ONE_THREAD)
    return output


def test_every_fold_is_held_out_once(recipe: Path, validated: Path) -> None:
    summary = json.loads((validated / "summary.json").read_text())
    assert len(summary["folds"]) == 3
    pixels = [fold["held_out"]["pixels"] for fold in summary["folds"]]
    dice = [fold["held_out"]["dice"] for fold in summary["folds"]]
    assert summary["mean"]["pixels"] == pytest.approx(sum(pixels) / 3, abs=1e-4)
    assert summary["mean"]["dice"] == pytest.approx(sum(dice) / 3, abs=1e-4)
    cards = [json.loads((validated / f"fold-{n}" / "model.json").read_text()) for n in range(3)]
    assert [card["training"]["recipe"]["split"]["fold"] for card in cards] == [0, 1, 2]


def test_finished_folds_are_reused_and_written_into_another_models_card(
    recipe: Path, validated: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in validated.glob("fold-*/*.safetensors")}
    shipped = shutil.copytree(validated / "fold-0", tmp_path / "shipped")
    run(
        "cross_validate.py", recipe, validated, "--data", ROOT / "tests" / "data", "--card", shipped
    )
    assert before == {path: path.stat().st_mtime_ns for path in before}
    summary = json.loads((validated / "summary.json").read_text())
    metrics = load_model(shipped).spec.metrics
    assert metrics["held_out"] == summary["mean"]
    assert load_model(shipped).sha256 == load_model(validated / "fold-0").sha256


def test_figures_of_another_recipe_are_not_taken(recipe: Path, validated: Path) -> None:
    options = ["--data", str(ROOT / "tests" / "data"), "--set", "sampling.batch=2"]
    command = [sys.executable, str(SCRIPTS / "cross_validate.py"), str(recipe), str(validated)]
    done = warm.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "was trained by another recipe" in done.stderr


def test_electron_micrographs_are_scored_as_the_challenge_does(tmp_path: Path) -> None:
    """Bright squares between dark lines, which even a tiny network tells apart."""
    rng = np.random.default_rng(1)
    for number in range(2):
        cells = np.zeros((96, 96), bool)
        for y, x in itertools.product(range(2 * number, 96, 16), range(3 * number, 96, 16)):
            cells[y : y + 13, x : x + 13] = True
        grey = np.clip(np.where(cells, 200, 60) + rng.normal(0, 10, cells.shape), 0, 255)
        for name, pixels in (("image", grey), ("label", 255 * cells)):
            folder = tmp_path / "isbi2012_em" / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    recipe = SCRIPTS / "isbi2012_em_modern.toml"
    changes = [part for setting in SMALLER for part in ("--set", setting)]
    run("cross_validate.py", recipe, tmp_path / "out", "--data", tmp_path, *ONE_THREAD, *changes)
    document = json.loads(run("score_em.py", tmp_path / "out", "--data", tmp_path))
    assert document["slices"] == 2
    assert document["pixel_error"] < 0.05
    assert document["dice of membranes"] < document["dice of cells"]
    assert document["dice of cells"] > document["soft dice"] > 0.8
    assert document["pixel error of the challenge"] < 0.05
    assert document["best"]["v_rand"] >= document["at 0.5"]["v_rand"] > 0.9
    assert document["best of each network"]["v_rand"] >= document["best"]["v_rand"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert document["pixel_error"] == pytest.approx(summary["mean"]["pixel_error"], abs=2e-3)


def test_a_model_is_scored_by_segment_and_evaluate(recipe: Path, validated: Path) -> None:
    """The same pixels, through segment and evaluate, as the training itself measured."""
    document = json.loads(
        run(
            "score_models.py", recipe, "--data", ROOT / "tests" / "data",
            "-m", validated / "fold-1", "--set", "split.fold=1",
        )
    )  # fmt: skip
    summary = json.loads((validated / "summary.json").read_text())
    own = summary["folds"][1]["held_out"]["classes"]["nuclei"]
    assert document["held out"]["dice"] == pytest.approx(own["dice"], abs=1e-3)
    assert document["held out"]["recall"] == pytest.approx(own["recall"], abs=1e-3)


def test_objects_of_held_out_fields_are_scored(recipe: Path) -> None:
    data = ROOT / "tests" / "data"
    arguments = (recipe, "--data", data, "-m", "nuclei-he", "--set", "split.fold=1")
    scores = json.loads(run("score_objects.py", *arguments))["held out"]
    pixels = json.loads(run("score_models.py", *arguments))["held out"]
    truth = data / "nuclei_he" / "instances" / "3934a094e853.png"
    with Image.open(truth) as image:
        assert scores["truth"] == len({*np.unique(np.asarray(image)).tolist()} - {0})
    assert scores["fields"] == 1
    assert scores["dice"] == pytest.approx(pixels["dice"], abs=5e-3)  # small objects are dropped
    whole = json.loads(run("score_objects.py", *arguments, "--split", "none"))["held out"]
    split = json.loads(run("score_objects.py", *arguments, "--split", "distance:0.75"))["held out"]
    assert split["found"] > whole["found"]
    assert split["f1"] > whole["f1"]
