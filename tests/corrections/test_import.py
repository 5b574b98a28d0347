"""Corrected objects against a model of all edits by UUID, whatever the blocks and files."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from corrections import edits
from hypothesis import given, settings
from hypothesis import strategies as st
from support.labelled import write_store
from support.s3_server import S3Server

import wsi_unet
from wsi_unet.corrections.rasters import collect_edges, find_runs
from wsi_unet.corrections.reading import EditedObjects
from wsi_unet.corrections.rows import RowMaker
from wsi_unet.corrections.status import read_edit_status
from wsi_unet.geometry import Box
from wsi_unet.labels.layout import remove_run
from wsi_unet.labels.progress import Progress
from wsi_unet.objects.source import LabelSource
from wsi_unet.storage.opening import open_store


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return the same result in blocks of two sizes."""
    folder = tmp_path_factory.mktemp("results")
    return {
        block: edits.make_result(folder / str(block) / "slide.ome.zarr", block=block)
        for block in (512, 1024)
    }


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return edits.make_result(tmp_path / "slide.ome.zarr")


def check(rows: list[dict[str, Any]], expected: dict[str, edits.Expected]) -> None:
    """Compare the rows of corrected objects with what they should be."""
    assert len({row["id"] for row in rows}) == len(rows)
    ours = {row["uuid"]: row for row in rows}
    added = [each for each in expected.values() if each.edit == "added"]
    for name, each in expected.items():
        if each.edit == "added":
            continue
        check_row(ours.pop(name), each)
    assert len(ours) == len(added)
    for row in ours.values():
        assert uuid.UUID(row["uuid"]).version == 5
        pixels = edits.find_pixels(shapely.from_wkb(row["geometry"]))
        (match,) = [e for e in added if np.array_equal(e.mask, pixels) and e.name == row["class"]]
        assert row["id"] == np.flatnonzero(match.mask.ravel())[0]
        check_row(row, match)
        check_measurements(row, match)


def check_row(row: dict[str, Any], expected: edits.Expected) -> None:
    geometry = shapely.from_wkb(row["geometry"])
    assert geometry.is_valid
    assert np.array_equal(edits.find_pixels(geometry), expected.mask)
    assert geometry.area == pytest.approx(row["area_px"] * np.prod(edits.DOWNSAMPLE))
    assert (row["class"], row["label"]) == (expected.name, edits.VALUES[expected.name])
    assert row["area_px"] == np.count_nonzero(expected.mask)
    assert tuple(row["bbox"].values()) == geometry.bounds
    y, x = np.nonzero(expected.mask)
    centroid = (y.mean() + 0.5) * edits.DOWNSAMPLE[0], (x.mean() + 0.5) * edits.DOWNSAMPLE[1]
    assert (row["y"], row["x"]) == pytest.approx(centroid)
    assert (row["y_um"], row["x_um"]) == pytest.approx(np.array(centroid) * edits.MPP)
    if expected.edit == "reshaped":
        check_measurements(row, expected)


def check_measurements(row: dict[str, Any], expected: edits.Expected) -> None:
    """Compare with what the same pixels measure when they are found, if they are one component."""
    found = edits.measure_alone(expected.mask, row["label"])
    if len(found) == 1:
        for name in edits.SHAPE_COLUMNS:
            assert row[name] == found[0][name], name


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6))
def test_edits_are_those_of_a_model_whatever_the_blocks(
    results: dict[int, Path], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder, tables = tmp_path_factory.mktemp("files"), []
    features, expected = edits.edit_at_random(edits.export_features(results[512]), seed)
    told = edits.count_edits(expected)
    missing = told.pop("missing", 0)
    for number, block in enumerate(results):
        half = len(features) // 2 if number else len(features)
        files = [
            edits.write_features(folder / f"{number}-a.geojson", features[:half]),
            edits.write_features(folder / f"{number}-b.geojson.gz", features[half:]),
        ][: number + 1]
        report = wsi_unet.import_annotations(files, results[block])
        counts = {k: v for k, v in report.counts.model_dump().items() if v}
        assert counts == {**told, **({"absent": missing} if missing else {})}
        kept = edits.read_rows(results[block])
        check(kept, expected)
        tables.append(kept)
        report = wsi_unet.import_annotations(files, results[block], complete=True)
        assert (report.counts.deleted, report.counts.absent) == (missing, 0)
        left = {name: each for name, each in expected.items() if each.edit != "missing"}
        check(edits.read_rows(results[block]), left)
        assert report.counts.objects == len(left)
        for each in report.classes:
            areas = [np.count_nonzero(e.mask) for e in left.values() if e.name == each.name]
            assert each.objects == len(areas)
            mean = None if not areas else pytest.approx(np.mean(areas) * np.prod(edits.PIXEL))
            assert each.mean_area == mean
    assert tables[0] == tables[1]


def test_an_unedited_export_changes_nothing(result: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features = edits.export_features(result)
    for feature in features:
        outline = edits.write_differently(shapely.geometry.shape(feature["geometry"]), random)
        feature["geometry"] = shapely.geometry.mapping(outline)
        feature["id"] = feature["id"].upper()
    file = edits.write_features(tmp_path / "a.geojson", features)
    report = wsi_unet.import_annotations(file, result)
    assert report.counts.unchanged == len(features) == report.counts.objects
    found = edits.read_rows(result)
    assert found == wsi_unet.open_objects(result).to_table().sort_by("id").to_pylist()


def test_files_may_leave_out_all_objects_of_blocks(result: Path, tmp_path: Path) -> None:
    features = edits.export_features(result)
    file = edits.write_features(tmp_path / "a.geojson", features[:3])
    report = wsi_unet.import_annotations(file, result)
    assert (report.counts.unchanged, report.counts.absent) == (3, len(features) - 3)
    assert edits.read_rows(result) == edits.read_objects(result)
    report = wsi_unet.import_annotations(file, result, complete=True)
    assert report.counts.objects == 3
    assert edits.read_rows(result) == edits.read_objects(result)[:3]
    assert len([*result.glob("objects/nuclei.edited/*/*.parquet")]) == 1


def test_the_same_import_writes_nothing(result: Path, tmp_path: Path) -> None:
    features = edits.export_features(result)[1:]
    file = edits.write_features(tmp_path / "a.geojson", features)
    first = wsi_unet.import_annotations(file, result)
    before = {path: path.stat().st_mtime_ns for path in result.rglob("*") if path.is_file()}
    again = wsi_unet.import_annotations(str(file), str(result))
    assert (first.written, again.written) == (True, False)
    assert again.counts == first.counts
    after = {path: path.stat().st_mtime_ns for path in result.rglob("*") if path.is_file()}
    assert after == before
    (part,) = [*result.glob("objects/nuclei.edited/*/0.0.parquet")]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + b"\0")
    assert wsi_unet.import_annotations(file, result).written
    assert part.read_bytes() == content


def test_another_import_replaces_the_table(result: Path, tmp_path: Path) -> None:
    features = edits.export_features(result)
    for number in range(2):
        file = edits.write_features(tmp_path / f"{number}.geojson", features[number:])
        wsi_unet.import_annotations(file, result, complete=True)
        assert len(edits.read_rows(result)) == len(features) - number
    assert len([*(result / "objects/nuclei.edited").iterdir()]) == 1


def test_objects_missing_from_regions_are_deleted(result: Path, tmp_path: Path) -> None:
    features = edits.export_features(result)
    rows = wsi_unet.open_objects(result).to_table().sort_by("id").to_pylist()
    region = shapely.box(100, 0, 900, 200)
    inside = [bool(shapely.contains_xy(region, row["x"], row["y"])) for row in rows]
    dropped = [index for index, own in enumerate(inside) if own][::3]
    outside = [index for index, own in enumerate(inside) if not own][::3]
    kept = [f for i, f in enumerate(features) if i not in {*dropped, *outside}]
    file = edits.write_features(tmp_path / "a.geojson", kept)
    regions = edits.write_features(tmp_path / "r.geojson", [edits.make_feature(region, "reviewed")])
    report = wsi_unet.import_annotations(file, result, complete_within=regions)
    assert (report.counts.deleted, report.counts.absent) == (len(dropped), len(outside))
    assert report.counts.deleted > 3
    left = {row["uuid"] for row in edits.read_rows(result)}
    assert left == {f["id"] for i, f in enumerate(features) if i not in dropped}


def test_new_and_ignored_classes(result: Path, tmp_path: Path) -> None:
    features = edits.export_features(result)
    features[0]["properties"]["classification"]["name"] = "mitosis"
    features[1]["properties"]["classification"]["name"] = "Mitosis"
    features[2]["properties"]["classification"]["name"] = "Ignore*"
    features[3]["properties"]["classification"]["name"] = "TUMOUR "
    frame = edits.make_feature(shapely.box(10, 10, 900, 400), "Region*")
    nameless = edits.make_feature(shapely.box(10, 10, 800, 300), None)
    file = edits.write_features(tmp_path / "a.geojson", [*features, frame, nameless])
    report = wsi_unet.import_annotations(
        file, result, new_classes=True, ignore=["ignore*", "region*", "unclassified"]
    )
    counts = report.counts
    assert (counts.deleted, counts.ignored, counts.added) == (1, 2, 0)
    assert [(c.value, c.name, c.new) for c in report.classes][2:] in (
        [(3, "mitosis", True)],
        [(3, "Mitosis", True)],
    )
    rows = {row["uuid"]: row for row in edits.read_rows(result)}
    assert rows[features[0]["id"]]["label"] == rows[features[1]["id"]]["label"] == 3
    assert features[2]["id"] not in rows
    assert rows[features[3]["id"]]["class"] == "tumour"


def test_outlines_may_reach_beyond_the_slide_and_cover_nothing(
    result: Path, tmp_path: Path
) -> None:
    features = edits.export_features(result)
    beyond = edits.make_feature(shapely.box(-50, -50, 20, 20), "nucleus")
    between = edits.make_feature(shapely.box(400.1, 400.1, 400.2, 400.2), "nucleus")
    file = edits.write_features(tmp_path / "a.geojson", [*features, beyond, between])
    report = wsi_unet.import_annotations(file, result)
    assert (report.counts.added, report.counts.empty) == (1, 1)
    (row,) = [r for r in edits.read_rows(result) if r["uuid"] not in {f["id"] for f in features}]
    assert row["cut"]
    assert row["area_px"] == 13 * 6  # centres up to 20 px, 1.5 and 3.25 px apart


def test_what_the_model_did_not_look_at_cuts(tmp_path: Path) -> None:
    labels = np.zeros((300, 400), np.uint8)
    labels[50:60, 50:60] = 1
    options: Any = {"labels": labels, "regions": [[0, 0, 300, 200]], "downsample": (1.0, 1.0)}
    result = edits.make_result(tmp_path / "a.ome.zarr", **options)
    features = edits.export_features(result)
    outlines = {
        shapely.box(100, 100, 199, 120): False,
        shapely.box(100, 200, 200, 220): True,
        shapely.box(250, 30, 260, 40): True,
    }
    drawn = [edits.make_feature(outline, "nucleus") for outline in outlines]
    file = edits.write_features(tmp_path / "a.geojson", [*features, *drawn])
    wsi_unet.import_annotations(file, result)
    found = {
        row["bbox"]["xmin"] + row["bbox"]["ymin"]: row["cut"] for row in edits.read_rows(result)
    }
    assert found == {100: False} | {o.bounds[0] + o.bounds[1]: cut for o, cut in outlines.items()}


def test_large_shapes_are_measured_in_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_unet.corrections.rows.BAND_PIXELS", 1000)
    test_what_the_model_did_not_look_at_cuts(tmp_path)


def test_drawn_objects_have_no_measurements_of_the_slide(result: Path) -> None:
    (source,) = LabelSource.open_all(open_store(result), ["nuclei"])
    rows = RowMaker(source, {1: "nucleus"}, ["probability", "mean_red"])
    square = np.array([[0.0, 0], [0, 4], [4, 4], [4, 0]])
    runs = find_runs(*collect_edges([[(square,)]]), edits.SHAPE)
    (row,) = rows.make(runs, np.array([1], np.uint8), [7], ["u"]).to_pylist()
    assert (row["probability"], row["mean_red"]) == (None, None)
    assert (row["id"], row["uuid"], row["area_px"]) == (7, "u", 16)


def test_overlapping_and_repeated_first_pixels_get_ids_of_their_own(
    result: Path, tmp_path: Path
) -> None:
    features = edits.export_features(result)
    corner = (325.0, 390.0)
    drawn = [
        edits.make_feature(shapely.box(*corner, corner[0] + side, corner[1] + side), "nucleus")
        for side in (20, 30, 40)
    ]
    for order in (1, -1):
        file = edits.write_features(tmp_path / "a.geojson", [*features, *drawn[::order]])
        wsi_unet.import_annotations(file, result)
        ours = {f["id"] for f in features}
        rows = [row for row in edits.read_rows(result) if row["uuid"] not in ours]
        first = 260 * 560 + 100
        assert [row["id"] for row in rows] == [first, first + 1, first + 2]
        assert [row["area_px"] for row in rows] == sorted(row["area_px"] for row in rows)


@pytest.mark.parametrize("said_by", ["option", "file", "run"])
def test_coordinates_may_count_from_where_scanning_began(
    result: Path, tmp_path: Path, said_by: str
) -> None:
    features = edits.export_features(result)
    for feature in features:
        moved = shapely.affinity.translate(shapely.geometry.shape(feature["geometry"]), -12, -7)
        feature["geometry"] = shapely.geometry.mapping(moved)
    said: Any = (
        {"creator": "wsi-unet", "groups": [], "origin": [12, 7]} if said_by == "file" else {}
    )
    if said_by == "run":
        record = result / ".wsi_unet/nuclei/run.json"
        document = json.loads(record.read_text())
        document["parameters"]["slide"] = {
            "path": "a", "reader": "a", "fingerprint": "a slide", "origin": [7, 12],
        }  # fmt: skip
        record.write_text(json.dumps(document))
    regions = edits.write_features(
        tmp_path / "r.geojson", [edits.make_feature(shapely.box(0, 0, 500, 500), "reviewed")]
    )
    file = edits.write_features(tmp_path / "a.geojson", features[2:], wsi_unet=said)
    report = wsi_unet.import_annotations(
        file, result, complete_within=regions, origin=(12, 7) if said_by == "option" else None
    )
    assert report.counts.unchanged == len(features) - 2
    rows = edits.read_objects(result)[:2]
    inside = [12 <= r["x"] < 512 and 7 <= r["y"] < 507 for r in rows]
    assert report.counts.deleted == sum(inside)


def test_earlier_results_of_slides_with_bounds_need_their_slide_or_an_origin(
    result: Path, tmp_path: Path
) -> None:
    record = result / ".wsi_unet/nuclei/run.json"
    document = json.loads(record.read_text())
    document["parameters"]["slide"] = {
        "path": "/nowhere/a.mrxs", "reader": "openslide", "fingerprint": "a slide",
    }  # fmt: skip
    record.write_text(json.dumps(document))
    file = edits.write_features(tmp_path / "a.geojson", edits.export_features(result))
    with pytest.raises(
        wsi_unet.OutputError, match=r"put /nowhere/a\.mrxs back .*, or give `origin`"
    ):
        wsi_unet.import_annotations(file, result)
    assert wsi_unet.import_annotations(file, result, origin=(0, 0)).written


def test_class_names_may_begin_with_their_group(result: Path, tmp_path: Path) -> None:
    features = edits.export_features(result)
    for feature in features:
        feature["properties"]["classification"]["name"] = (
            f"nuclei: {feature['properties']['classification']['name']}"
        )
    file = edits.write_features(tmp_path / "a.geojson", features)
    assert wsi_unet.import_annotations(file, result).counts.unchanged == len(features)


def test_files_of_several_groups_change_one(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr")
    other = np.zeros(edits.SHAPE, np.uint8)
    other[20:60, 30:90] = 1
    write_store(
        result, other, name="glands", classes=("background", "gland"), block=512,
        downsample=edits.DOWNSAMPLE, mpp=edits.MPP,
    )  # fmt: skip
    wsi_unet.find_objects(result, label="glands")
    features = [
        feature
        for label in ("nuclei", "glands")
        for feature in (
            edits.make_feature(shapely.from_wkb(row["geometry"]), row["class"], row["uuid"])
            for row in wsi_unet.open_objects(result, label).to_table().to_pylist()
        )
    ]
    file = edits.write_features(tmp_path / "a.geojson", features)
    report = wsi_unet.import_annotations(file, result, label="nuclei", complete=True)
    assert (report.counts.of_other_groups, report.counts.added) == (1, 0)
    assert report.counts.unchanged == len(features) - 1


def test_parts_say_what_made_them_and_open_elsewhere(result: Path, tmp_path: Path) -> None:
    features = edits.export_features(result)
    file = edits.write_features(tmp_path / "edited.geojson", features)
    wsi_unet.import_annotations(file, result)
    (part,) = [*result.glob("objects/nuclei.edited/*/0.0.parquet")]
    frame = geopandas.read_parquet(part)
    assert (frame.area > 0).all()
    said = json.loads(pq.read_schema(part).metadata[b"wsi_unet"])
    assert said["fingerprint"] == "a slide"
    assert said["files"][0]["name"] == "edited.geojson"
    assert said["edited"]
    assert {*wsi_unet.open_edited_objects(result).schema.names} == {
        *wsi_unet.open_objects(result).schema.names
    }


def test_a_result_in_a_bucket(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    local = edits.make_result(tmp_path / "slide.ome.zarr")
    store = open_store(f"{bucket}/slide.ome.zarr")
    for path in local.rglob("*"):
        if path.is_file() and path.stat().st_size:
            store.put(str(path.relative_to(local)), path.read_bytes())
    url = f"{bucket}/slide.ome.zarr"
    features, _ = edits.edit_at_random(edits.export_features(local), 3)
    file = edits.write_features(tmp_path / "a.geojson", features)
    reports = [wsi_unet.import_annotations(file, where, complete=True) for where in (local, url)]
    assert reports[0].counts == reports[1].counts
    assert not wsi_unet.import_annotations(file, url, complete=True).written
    assert edits.read_rows(url) == edits.read_rows(local)
    (status,) = read_edit_status(open_store(url), "nuclei", ["nuclei"], verify=True)
    assert status.state == "finished"
    wsi_unet.import_annotations(file, url)
    versions = {key.split("/")[2] for key in store.list("objects/nuclei.edited")}
    assert len(versions) == 1
    assert wsi_unet.find_objects(url).labels[0].computed == 0
    assert edits.read_objects(url) == edits.read_objects(local)
    assert wsi_unet.find_objects(url, min_area=5).labels[0].computed > 0
    wsi_unet.find_objects(url)
    wsi_unet.import_annotations(file, local)
    assert edits.read_rows(url) == edits.read_rows(local)
    with pytest.raises(wsi_unet.AnnotationError, match="on a disk"):
        wsi_unet.import_annotations(f"{bucket}/a.geojson", local)


def test_without_a_pixel_size(tmp_path: Path) -> None:
    result = edits.make_result(tmp_path / "slide.ome.zarr", mpp=None)
    features = edits.export_features(result)
    added = edits.make_feature(shapely.box(325, 390, 351, 420), "nucleus")
    file = edits.write_features(tmp_path / "a.geojson", [*features[1:], added])
    report = wsi_unet.import_annotations(file, result)
    assert report.unit == "px"
    (row,) = [r for r in edits.read_rows(result) if r["id"] == 260 * 560 + 100]
    assert row["area_px"] == 8 * 20
    assert "area_um2" not in row
    assert row["equivalent_diameter_px"] == pytest.approx(np.sqrt(26 * 30 * 4 / np.pi))


def test_old_results_have_no_corrections(result: Path) -> None:
    with pytest.raises(wsi_unet.OutputError, match="no corrected objects of 'nuclei' are stored"):
        wsi_unet.open_edited_objects(result)
    assert not [*read_edit_status(open_store(result), "nuclei", ["nuclei"], verify=True)]
    assert not (result / "objects/nuclei.edited").exists()


def test_a_run_that_is_removed_takes_its_corrections_along(result: Path, tmp_path: Path) -> None:
    file = edits.write_features(tmp_path / "a.geojson", edits.export_features(result))
    wsi_unet.import_annotations(file, result)
    remove_run(open_store(result), "nuclei")
    assert not (result / "objects").exists()
    assert Progress(open_store(result), "nuclei").read_run() is None


def test_painted_objects_lie_on_each_other_the_smallest_on_top(
    results: dict[int, Path], tmp_path: Path
) -> None:
    features, _ = edits.edit_at_random(edits.export_features(results[512]), 11)
    file = edits.write_features(tmp_path / "a.geojson", features)
    for result in results.values():
        wsi_unet.import_annotations(file, result)
        rows = sorted(edits.read_rows(result), key=lambda row: (-row["area_px"], row["id"]))
        classes, numbers = np.zeros(edits.SHAPE, np.uint8), np.zeros(edits.SHAPE, np.int64)
        for row in rows:
            mask = edits.find_pixels(shapely.from_wkb(row["geometry"]))
            classes[mask], numbers[mask] = row["label"], row["id"] + 1
        objects = EditedObjects.open(open_store(result), "nuclei")
        for box in (Box(0, 0, *edits.SHAPE), Box(100, 200, 290, 301), Box(0, 0, 1, 1)):
            assert np.array_equal(objects.paint_classes(box), classes[box.slices()])
            assert np.array_equal(objects.paint_numbers(box), numbers[box.slices()])
