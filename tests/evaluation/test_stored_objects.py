"""Objects that `find_objects` has stored, scored in place of connected components."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray
from objects import oracle, shapes
from objects.test_run import edit
from support.labelled import rectangle, write_geojson

import wsi_unet
from wsi_unet import ClusterOptions
from wsi_unet.errors import EvaluationError
from wsi_unet.evaluation import pairs
from wsi_unet.geometry import Box
from wsi_unet.objects.search import LARGEST_BOX
from wsi_unet_cli.main import cli

SPLIT = "distance:0.6"
HEIGHTS = {1: 1.2, 2: 1.2}
"""The same in px, of 0.5 µm."""


@pytest.fixture(scope="module")
def labels() -> shapes.Labels:
    found = np.zeros((130, 600), np.uint8)
    found[20:110, 470:560] = shapes.touching_discs(90)  # across two blocks
    found[10:30, 10:30] = 1
    return found


@pytest.fixture(scope="module")
def objects(labels: shapes.Labels) -> NDArray[np.uint32]:
    """Return numbers of the objects, from the whole image."""
    found = np.zeros(labels.shape, np.uint32)
    for box in (np.s_[:, :40], np.s_[:, 460:570]):  # apart, which is quicker
        numbers = oracle.find(labels[box], HEIGHTS, LARGEST_BOX).numbers
        found[box] = np.where(numbers, numbers + found.max(), 0)
    return found


@pytest.fixture
def truth(tmp_path: Path, objects: NDArray[np.uint32]) -> Path:
    """Return an image of the objects, moved."""
    tifffile.imwrite(tmp_path / "truth.tif", np.roll(objects, 1, axis=1))
    return tmp_path / "truth.tif"


@pytest.fixture
def numbered(tmp_path: Path, objects: NDArray[np.uint32]) -> Path:
    tifffile.imwrite(tmp_path / "numbered.tif", objects)
    return tmp_path / "numbered.tif"


def score(*arguments: Any, **options: Any) -> tuple[wsi_unet.Evaluation, dict[str, Any]]:
    """Return scores, and what of them doesn't say where they come from."""
    found = wsi_unet.evaluate(*arguments, instances=True, **options)
    document = found.to_json()
    for name in ("prediction", "truth", "prediction_objects", "truth_objects"):
        document.pop(name)
    return found, document


def test_touching_nuclei_are_two_where_their_objects_are_stored(
    tmp_path: Path, make_store: Any
) -> None:
    y, x = np.mgrid[:80, :120]
    nuclei = [(y - 40) ** 2 + (x - middle) ** 2 <= 20**2 for middle in (40, 76)]
    store = make_store((nuclei[0] | nuclei[1]).astype(np.uint8))
    truth = np.zeros((80, 120), np.uint16)
    truth[nuclei[0]] = 1
    truth[nuclei[1] & ~nuclei[0]] = 2
    tifffile.imwrite(tmp_path / "t.tif", truth)
    before = wsi_unet.evaluate(store, tmp_path / "t.tif", instances=True)
    assert before.objects is not None
    assert (before.objects.truth, before.objects.prediction, before.objects.matched) == (2, 1, 1)
    assert (before.truth_objects, before.prediction_objects) == ("values", "components")
    wsi_unet.find_objects(store, split=SPLIT)
    after = wsi_unet.evaluate(store, tmp_path / "t.tif", instances=True)
    assert after.objects is not None
    assert (after.objects.truth, after.objects.prediction, after.objects.matched) == (2, 2, 2)
    assert (after.truth_objects, after.prediction_objects) == ("values", "stored")
    assert before.mean_dice == after.mean_dice == 1


@pytest.mark.parametrize("area", [{}, {"region": (450, 3, 120, 100)}, {"tolerance": None}], ids=str)
def test_scores_are_those_of_an_image_of_the_objects(
    make_store: Any, labels: shapes.Labels, truth: Path, numbered: Path, area: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    store = make_store(labels)
    wsi_unet.find_objects(store, split=SPLIT)
    _, expected = score(numbered, truth, **area)
    monkeypatch.setattr(pairs, "SIDE", 100)
    found, document = score(store, truth, **area)
    assert found.prediction_objects == "stored"
    assert document == expected


def test_objects_of_the_truth_may_be_stored_too(
    make_store: Any, labels: shapes.Labels, truth: Path, numbered: Path
) -> None:
    store = make_store(labels)
    wsi_unet.find_objects(store, split=SPLIT)
    _, expected = score(truth, numbered)
    found, document = score(truth, store)
    assert (found.truth_objects, found.prediction_objects) == ("stored", "values")
    assert document == expected
    both, _ = score(store, store)
    assert (both.truth_objects, both.prediction_objects) == ("stored", "stored")
    assert both.objects is not None
    assert both.objects.pq == both.objects.aji == 1
    assert both.objects.truth == found.objects.truth if found.objects else False


def test_classes_of_the_truth_are_still_ignored(
    make_store: Any, labels: shapes.Labels, objects: NDArray[np.uint32]
) -> None:
    store = make_store(labels)
    wsi_unet.find_objects(store, split=SPLIT)
    found, document = score(store, store, ignore=["tumour"])
    assert document["pixels"] == np.count_nonzero(labels != 2)
    assert found.objects is not None
    assert found.objects.truth == len(np.unique(objects[labels == 1]))


def test_dropped_objects_are_not_scored(
    tmp_path: Path, make_store: Any, labels: shapes.Labels, truth: Path,
    objects: NDArray[np.uint32],
) -> None:  # fmt: skip
    store = make_store(labels)
    wsi_unet.find_objects(store, split=SPLIT, min_area=10)
    areas = np.bincount(objects.ravel())
    kept = np.where(areas[objects] * 0.25 >= 10, objects, 0)
    assert kept.any()
    assert (kept != objects).any()
    tifffile.imwrite(tmp_path / "kept.tif", kept.astype(np.uint32))
    _, expected = score(tmp_path / "kept.tif", truth)
    assert score(store, truth)[1] == expected


def test_a_single_stored_object_is_one(tmp_path: Path, make_store: Any) -> None:
    """In images, one value alone stands for all objects."""
    array = np.zeros((50, 50), np.uint8)
    array[5:20, 5:20] = 1
    store = make_store(array)
    wsi_unet.find_objects(store)
    found, _ = score(store, store)
    assert found.objects is not None
    assert (found.objects.truth, found.objects.prediction, found.objects.pq) == (1, 1, 1)
    wsi_unet.find_objects(store, min_area=1e6)
    none, _ = score(store, store)
    assert none.objects is not None
    assert (none.objects.truth, none.prediction_objects) == (0, "stored")


@pytest.mark.parametrize("why", ["outdated", "unfinished", "missing"])
def test_what_is_not_current_is_left_for_components_and_said(
    make_store: Any, labels: shapes.Labels, truth: Path, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(labels)
    _, expected = score(store, truth)
    wsi_unet.find_objects(store, split=SPLIT)
    record = store / ".wsi_unet/nuclei/objects/nuclei/stage.json"
    if why == "missing":
        (store / "objects/nuclei/0.0.parquet").unlink()
    elif why == "outdated":
        edit(record, lambda stage: stage.update(labels_finished="before"))
    else:
        edit(record, lambda stage: stage.update(finished=None))
    with caplog.at_level(logging.WARNING):
        found, document = score(store, truth)
    assert found.prediction_objects == "components"
    assert document == expected
    said = {"outdated": "belong to earlier labels", "unfinished": "aren't finished"}
    messages = [each.getMessage() for each in caplog.records]
    (message,) = [each for each in messages if "objects of 'nuclei'" in each]
    assert said.get(why, "1 of 2 parts") in message
    assert "until then, its objects are the connected components" in message


def test_worker_processes_count_the_same(
    make_store: Any, labels: shapes.Labels, tmp_path: Path
) -> None:
    store = make_store(labels)
    wsi_unet.find_objects(store, split=SPLIT)
    drawn = write_geojson(
        tmp_path / "t.geojson",
        [("x", rectangle(Box(10, 10, 30, 31))), ("x", rectangle(Box(60, 450, 70, 470)))],
    )
    here, expected = score(store, drawn)
    assert (here.truth_objects, here.prediction_objects) == ("annotations", "stored")
    assert score(store, drawn, cluster=ClusterOptions(workers=2))[1] == expected


def test_objects_that_are_found_anew_meanwhile_are_refused(
    make_store: Any, labels: shapes.Labels, truth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(labels)
    wsi_unet.find_objects(store, split=SPLIT)
    tables = iter([("a", "b")])
    monkeypatch.setattr(pairs.Pair, "tables", property(lambda _: next(tables, ("c", "d"))))
    with pytest.raises(EvaluationError, match="found anew while they were compared; evaluate ag"):
        score(store, truth)


def test_the_command_says_what_was_scored(
    make_store: Any, labels: shapes.Labels, truth: Path
) -> None:
    store = make_store(labels)
    arguments = ["evaluate", str(store), str(truth), "--instances"]
    before = CliRunner().invoke(cli, arguments)
    assert "(connected components)" in before.stdout
    assert "(values of the image)" in before.stdout
    wsi_unet.find_objects(store, split=SPLIT)
    assert "(objects as stored)" in CliRunner().invoke(cli, arguments).stdout
    document = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert (document["truth_objects"], document["prediction_objects"]) == ("values", "stored")
    classes = json.loads(CliRunner().invoke(cli, [*arguments[:2], str(store), "--json"]).stdout)
    assert classes["prediction_objects"] is None
