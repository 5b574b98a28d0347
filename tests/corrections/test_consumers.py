"""Corrected objects measured, scored, learnt from and told by `status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from click.testing import CliRunner, Result
from corrections import edits
from measuring.regions import write_regions
from support.oracle import balanced_model, textured, write_png
from support.training_data import make_recipe

import wsi_unet
from wsi_unet.geometry import Box
from wsi_unet.models import UNetConfig
from wsi_unet.training.dataset import open_fields
from wsi_unet_cli.main import cli


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a result with corrected objects, and their files beside it."""
    folder = tmp_path_factory.mktemp("result")
    result = edits.make_result(folder / "slide.ome.zarr")
    features, _ = edits.edit_at_random(edits.export_features(result), 5)
    file = edits.write_features(folder / "edited.geojson", features)
    wsi_unet.import_annotations(file, result, complete=True)
    return result


def paint(result: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the label values and the numbers of corrected objects of the whole image."""
    classes, numbers = np.zeros(edits.SHAPE, np.uint8), np.zeros(edits.SHAPE, np.int64)
    for row in sorted(edits.read_rows(result), key=lambda row: (-row["area_px"], row["id"])):
        mask = edits.find_pixels(shapely.from_wkb(row["geometry"]))
        classes[mask], numbers[mask] = row["label"], row["id"] + 1
    return classes, numbers


def test_regions_are_measured_by_corrected_objects(result: Path, tmp_path: Path) -> None:
    region = shapely.box(30, 40, 1500, 600)
    regions = write_regions(tmp_path / "r.geojson", [({"name": "a"}, region)])
    rows = wsi_unet.measure(result, regions, edited=True).to_pylist()
    classes, _ = paint(result)
    inside = edits.find_pixels(region)
    found = edits.read_rows(result)
    for value, row in zip((1, 2), rows, strict=True):
        own = [
            r for r in found if r["label"] == value and shapely.contains_xy(region, r["x"], r["y"])
        ]
        assert row["objects"] == len(own) > 0
        assert row["area_um2_mean"] == pytest.approx(np.mean([r["area_um2"] for r in own]))
        pixels = np.count_nonzero(inside & (classes == value))
        assert row["class_area_mm2"] == pytest.approx(pixels * np.prod(edits.PIXEL) / 1e6)
    before = wsi_unet.measure(result, regions).to_pylist()
    assert [r["objects"] for r in rows] != [r["objects"] for r in before]


def test_areas_alone_of_corrected_objects(result: Path, tmp_path: Path) -> None:
    regions = write_regions(tmp_path / "r.geojson", [({"name": "a"}, shapely.box(0, 0, 900, 700))])
    whole = wsi_unet.measure(result, regions, edited=True)
    alone = wsi_unet.measure(result, regions, edited=True, areas_only=True)
    assert whole.select(alone.column_names).to_pylist() == alone.to_pylist()


def test_new_classes_are_measured(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    features = edits.export_features(result)
    features[4]["properties"]["classification"]["name"] = "mitosis"
    file = edits.write_features(tmp_path / "a.geojson", features)
    wsi_unet.import_annotations(file, result, new_classes=True)
    regions = write_regions(tmp_path / "r.geojson", [({"name": "a"}, shapely.box(0, 0, 1900, 900))])
    rows = wsi_unet.measure(result, regions, edited=True).to_pylist()
    assert [row["class"] for row in rows] == ["nucleus", "tumour", "mitosis"]
    assert rows[2]["objects"] == 1
    assert rows[2]["class_area_mm2"] > 0


def test_measuring_without_corrections_says_so(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    regions = write_regions(tmp_path / "r.geojson", [({"name": "a"}, shapely.box(0, 0, 900, 700))])
    for areas_only in (False, True):
        with pytest.raises(wsi_unet.OutputError, match="no corrected objects of 'nuclei'"):
            wsi_unet.measure(result, regions, edited=True, areas_only=areas_only)


def test_labels_are_scored_against_corrected_objects(result: Path) -> None:
    scores = wsi_unet.evaluate(result, result, truth_label="nuclei.edited")
    truth, _ = paint(result)
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (truth, edits.LABELS), 1)
    assert scores.confusion == tuple(map(tuple, confusion.tolist()))
    assert "nuclei.edited" in scores.truth


def test_objects_are_scored_against_corrected_ones(result: Path) -> None:
    scores = wsi_unet.evaluate(result, result, truth_label="nuclei.edited", instances=True)
    _, numbers = paint(result)
    seen = len(np.unique(numbers[numbers > 0]))
    assert scores.objects is not None
    assert scores.objects.truth == seen
    assert scores.objects.prediction == len(wsi_unet.open_objects(result).to_table())
    assert (scores.truth_objects, scores.prediction_objects) == ("stored", "stored")
    assert 0 < scores.objects.matched < seen
    same = wsi_unet.evaluate(
        result, result, label="nuclei.edited", truth_label="nuclei.edited", instances=True
    )
    assert same.objects is not None
    assert same.objects.pq == 1


def test_what_was_drawn_is_known_where_the_model_did_not_look(tmp_path: Path) -> None:
    labels = np.zeros((300, 400), np.uint8)
    labels[50:60, 50:60] = 1
    options: Any = {"labels": labels, "downsample": (1.0, 1.0), "mpp": (0.5, 0.5)}
    part = edits.make_result(tmp_path / "part.ome.zarr", regions=[[0, 0, 300, 200]], **options)
    whole = edits.make_result(tmp_path / "whole.ome.zarr", **options)
    added = edits.make_feature(shapely.box(250, 30, 260, 40), "nucleus")
    file = edits.write_features(tmp_path / "a.geojson", [*edits.export_features(part), added])
    wsi_unet.import_annotations(file, part)
    scores = wsi_unet.evaluate(whole, part, truth_label="nuclei.edited")
    assert scores.pixels == 300 * 200 + 100
    assert scores.classes[1].truth_pixels == 200


def test_no_such_corrections(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    for instances in (False, True):
        with pytest.raises(wsi_unet.OutputError, match="no corrected objects of 'nuclei'"):
            wsi_unet.evaluate(result, result, truth_label="nuclei.edited", instances=instances)
    with pytest.raises(wsi_unet.OutputError, match=r"no labels 'glands.edited', only nuclei"):
        wsi_unet.evaluate(result, result, truth_label="glands.edited")


def test_the_edited_file_is_a_truth_to_learn_from(tmp_path: Path) -> None:
    """What a recipe reads of it are the corrected objects, on the slide's own pixels."""
    result = edits.make_result(tmp_path / "slide.ome.zarr", downsample=(1.0, 1.0), mpp=(0.5, 0.5))
    write_png(tmp_path / "slide.png", textured(*edits.SHAPE))
    features = edits.export_features(result)
    features[0]["properties"]["classification"]["name"] = "nucleus"
    features.append(edits.make_feature(shapely.box(300, 300, 340, 320), "tumour"))
    file = edits.write_features(tmp_path / "edited.geojson", features[:1] + features[4:])
    wsi_unet.import_annotations(file, result, complete=True)
    classes = [{"name": name, "color": "#112233"} for name in ("ground", "nucleus", "tumour")]
    recipe = make_recipe({"images": "slide.png", "labels": "edited.geojson"}, classes=classes)
    (field,) = open_fields(recipe, tmp_path)
    found = field.read(Box(0, 0, *edits.SHAPE)).labels
    expected = np.zeros(edits.SHAPE, np.uint8)
    for row in edits.read_rows(result):
        y, x = np.indices(edits.SHAPE)
        expected[shapely.contains_xy(shapely.from_wkb(row["geometry"]), x + 0.5, y + 0.5)] = row[
            "label"
        ]
    assert np.array_equal(found, expected)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def test_the_command_tells_what_it_did(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    features = edits.export_features(result)
    outline = edits.make_feature(shapely.box(325, 390, 351, 420), "Region*")
    file = edits.write_features(tmp_path / "a.geojson", [*features[2:], outline])
    done = run("import-annotations", file, result, "--ignore", "Region*")
    assert done.exit_code == 0, done.output
    assert f"nuclei.edited: {len(features)} objects" in done.output
    assert "2 not in the files, kept" in done.output
    assert "2 objects that aren't in the files stay as they are" in done.output
    assert "1 outline of ignored classes" in done.output
    again = run("import-annotations", file, result, "--ignore", "Region*")
    assert "nothing was written" in again.output
    shown = run("import-annotations", file, result, "--ignore", "region*", "--complete", "--json")
    document = json.loads(shown.output)
    assert document["counts"]["deleted"] == 2
    assert document["written"]
    assert [each["name"] for each in document["classes"]] == ["nucleus", "tumour"]
    refused = run("import-annotations", file, result)
    assert refused.exit_code == 2
    assert "--ignore" in refused.output
    assert "`" not in refused.output


@pytest.fixture
def run_result(tmp_path: Path) -> Path:
    """Return a run of a model, with probabilities, and objects measured on the slide."""
    slide = write_png(tmp_path / "a.png", textured(300, 400))
    balanced_model(UNetConfig(depth=1, base_width=2, classes=4), textured(300, 400), tmp_path / "m")
    options: Any = {
        "block": 512, "tile": 128, "precision": "float32", "device": "cpu", "mpp": 0.5,
        "outputs": ("labels", "probabilities"),
    }  # fmt: skip
    wsi_unet.segment(slide, tmp_path / "out.ome.zarr", tmp_path / "m", **options)
    wsi_unet.find_objects(tmp_path / "out.ome.zarr", measure="intensity")
    return tmp_path / "out.ome.zarr"


def test_status_tells_corrections_and_values_stay_where_they_still_count(
    run_result: Path, tmp_path: Path
) -> None:
    before = edits.read_objects(run_result)
    features = edits.export_features(run_result)
    names = [{"class-1": "class-2"}.get(row["class"], "class-1") for row in before]
    features[0]["properties"]["classification"]["name"] = names[0]
    shape = shapely.geometry.mapping(shapely.box(30, 40, 50, 70))
    features[1]["geometry"] = shape
    (other, *_) = [i for i, row in enumerate(before) if i > 1]
    file = edits.write_features(tmp_path / "a.geojson", features)
    wsi_unet.import_annotations(file, run_result)
    rows = {row["uuid"]: row for row in edits.read_rows(run_result)}
    renamed, drawn, same = (rows[before[index]["uuid"]] for index in (0, 1, other))
    assert renamed["mean_red"] == before[0]["mean_red"] > 0
    assert before[0]["probability"] > 0
    assert renamed["probability"] is drawn["probability"] is drawn["mean_red"] is None
    assert (renamed["class"], drawn["area_px"]) == (names[0], 600)
    assert same == before[other]
    regions = write_regions(tmp_path / "r.geojson", [({"name": "a"}, shapely.box(0, 0, 400, 300))])
    measured = wsi_unet.measure(run_result, regions, edited=True).to_pylist()
    assert sum(row["objects"] for row in measured) == len(before)
    check_status(run_result, len(before))


def check_status(output: Path, objects: int) -> None:
    """Look at what is told of corrections, before and after other objects are found."""
    status, _ = wsi_unet.run_status(output, verify=True)  # and the image's
    (found,) = status.edited
    assert (found.state, found.files) == ("finished", ("a.geojson",))
    assert found.counts["unchanged"] == objects - 2
    told = run("status", output)
    assert told.exit_code == 0, told.output
    assert f"corrected objects of {status.label}: finished" in told.output
    assert "from a.geojson" in told.output
    wsi_unet.find_objects(output)
    told = run("status", output)
    assert told.exit_code == 1
    assert f"corrected objects of {status.label}: outdated" in told.output
    assert json.loads(run("status", output, "--json").output)["runs"][0]["edited"][0]["state"] == (
        "outdated"
    )
