"""`measure` against masks of the whole image and pandas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measuring.regions import (
    Named,
    assert_measured,
    draw_regions,
    measure_whole,
    write_regions,
)
from numpy.typing import NDArray
from objects import shapes
from support.labelled import write_store

import wsi_unet

SHAPE = (560, 1100)
WARNINGS = pytest.mark.filterwarnings("ignore:invalid value encountered in divide")


@pytest.fixture(scope="module")
def labels() -> NDArray[np.uint8]:
    found = np.zeros(SHAPE, np.uint8)
    for y in range(0, SHAPE[0], 130):
        for x in range(0, SHAPE[1], 170):
            part = found[y : y + 120, x : x + 150]
            part[...] = shapes.touching_discs(160, seed=y + x)[: part.shape[0], : part.shape[1]]
    found[500:520, 480:560] = 1  # across four blocks
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, labels: NDArray[np.uint8]) -> Path:
    path = write_store(tmp_path_factory.mktemp("whole") / "out.ome.zarr", labels)
    wsi_unet.find_objects(path)
    return path


@WARNINGS
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_any_regions(seed: int, store: Path, labels: NDArray[np.uint8], tmp_path: Path) -> None:
    regions = draw_regions(seed, SHAPE)
    if not regions:
        return
    path = write_regions(tmp_path / "regions.geojson", regions)
    everywhere = np.ones(SHAPE, np.bool_)
    found = wsi_unet.measure(store, path)
    assert_measured(found, measure_whole(store, labels, everywhere, regions))
    assert found["region"].to_pylist() == [n + 1 for n in range(len(regions)) for _ in "12"]


@WARNINGS
@pytest.mark.parametrize("downsample", [(2.0, 2.0), (1.5, 3.25)])
def test_regions_are_in_pixels_of_the_slide(
    downsample: tuple[float, float], labels: NDArray[np.uint8], tmp_path: Path
) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels, downsample=downsample)
    wsi_unet.find_objects(store)
    slide = round(SHAPE[0] * downsample[0]), round(SHAPE[1] * downsample[1])
    regions = draw_regions(3, slide)
    path = write_regions(tmp_path / "regions.geojson", regions)
    everywhere, area = np.ones(SHAPE, np.bool_), 0.25 * downsample[0] * downsample[1]
    expected = measure_whole(store, labels, everywhere, regions, downsample, area)
    assert_measured(wsi_unet.measure(store, path), expected)


@WARNINGS
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("boxes", "cells"),
    [
        ([[0, 0, 300, 700], [300, 100, 560, 400]], None),
        (None, (7, 10)),
        ([[0, 0, 520, 700]], (14, 11)),
    ],
)
def test_only_what_was_predicted_counts(
    boxes: Any, cells: Any, seed: int, labels: NDArray[np.uint8], tmp_path: Path
) -> None:
    predicted, tissue = np.ones(SHAPE, np.bool_), None
    if boxes is not None:
        predicted[...] = False
        for y0, x0, y1, x1 in boxes:
            predicted[y0:y1, x0:x1] = True
    if cells is not None:
        tissue = np.random.default_rng(seed).random(cells) < 0.5
        side = SHAPE[0] // cells[0], SHAPE[1] // cells[1]
        predicted &= np.kron(tissue, np.ones(side, np.bool_)).astype(np.bool_)
    shown = labels * predicted
    store = write_store(tmp_path / "out.ome.zarr", shown, regions=boxes, tissue=tissue)
    wsi_unet.find_objects(store)
    regions = draw_regions(seed, SHAPE)
    regions.append(({"name": "unseen"}, shapely.box(1050, 540, 1060, 550)))
    path = write_regions(tmp_path / "regions.geojson", regions)
    assert_measured(wsi_unet.measure(store, path), measure_whole(store, shown, predicted, regions))


def test_where_nothing_was_predicted_there_is_nothing_to_divide_by(tmp_path: Path) -> None:
    empty = np.zeros((600, 600), np.uint8)
    store = write_store(tmp_path / "out.ome.zarr", empty, regions=[[0, 0, 100, 100]])
    wsi_unet.find_objects(store)
    region = ({"name": "unseen"}, shapely.box(400, 400, 500, 500))
    rows = wsi_unet.measure(store, write_regions(tmp_path / "r.geojson", [region])).to_pylist()
    for row in rows:
        assert (row["region_area_mm2"], row["class_area_mm2"], row["objects"]) == (0, 0, 0)
        assert (row["region_predicted"], row["share"], row["objects_per_mm2"]) == (0, None, None)
        assert (row["area_um2_mean"], row["solidity_median"]) == (None, None)


def test_between_pixel_centres_a_region_has_no_pixel(store: Path, tmp_path: Path) -> None:
    region: Named = ({}, shapely.box(10.6, 10.6, 11.4, 11.4))
    (row, _) = wsi_unet.measure(store, write_regions(tmp_path / "r.geojson", [region])).to_pylist()
    assert (row["region_area_mm2"], row["region_predicted"], row["share"]) == (0, None, None)


def test_an_unknown_pixel_size_gives_pixels(labels: NDArray[np.uint8], tmp_path: Path) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels, mpp=None)
    wsi_unet.find_objects(store)
    path = write_regions(tmp_path / "r.geojson", [({}, shapely.box(100, 50, 400, 250))])
    found = wsi_unet.measure(store, path)
    assert not [name for name in found.column_names if "um" in name or "mm2" in name]
    row = found.to_pylist()[0]
    inside = labels[50:250, 100:400]
    assert (row["region_area_px"], row["class_area_px"]) == (60_000, np.sum(inside == 1))
    table = wsi_unet.open_objects(store).to_table().to_pandas()
    own = table[
        (table.label == 1) & shapely.contains_xy(shapely.box(100, 50, 400, 250), table.x, table.y)
    ]
    assert row["objects"] == len(own)
    assert row["area_px_median"] == own["area_px"].median()
    assert row["perimeter_px_mean"] == pytest.approx(own["perimeter_px"].mean())


def test_the_direction_of_axes_has_no_mean(store: Path, tmp_path: Path) -> None:
    path = write_regions(tmp_path / "r.geojson", [({}, shapely.box(0, 0, 50, 50))])
    names = wsi_unet.measure(store, path).column_names
    assert "eccentricity_mean" in names
    assert not [
        n for n in names if n.startswith(("orientation", "y_", "x_", "id", "cut", "area_px"))
    ]


def test_every_label_group_is_measured_unless_one_is_named(
    labels: NDArray[np.uint8], tmp_path: Path
) -> None:
    store = write_store(tmp_path / "out.ome.zarr", labels, name="first")
    write_store(store, np.roll(labels, 9), name="second", classes=("background", "gland", "duct"))
    wsi_unet.find_objects(store)
    path = write_regions(tmp_path / "r.geojson", [({}, shapely.box(100, 50, 400, 250))])
    found = wsi_unet.measure(store, path)
    assert found["label"].to_pylist() == ["first", "first", "second", "second"]
    assert found["class"].to_pylist() == ["nucleus", "tumour", "gland", "duct"]
    alone = wsi_unet.measure(store, path, label="second")
    assert alone.to_pylist() == found.to_pylist()[2:]
    inside = np.roll(labels, 9)[50:250, 100:400]
    assert alone["share"][0].as_py() == pytest.approx(np.mean(inside == 1))


def test_areas_alone_need_no_objects(
    labels: NDArray[np.uint8], store: Path, tmp_path: Path
) -> None:
    path = write_regions(tmp_path / "r.geojson", draw_regions(1, SHAPE))
    fresh = write_store(tmp_path / "out.ome.zarr", labels)
    found = wsi_unet.measure(fresh, path, areas_only=True)
    assert found.column_names[-1] == "share"
    both = wsi_unet.measure(store, path)
    for name in found.column_names[1:]:
        assert found[name].to_pylist() == both[name].to_pylist()


def test_a_bucket_is_measured_as_a_folder(bucket: str, store: Path, tmp_path: Path) -> None:
    from wsi_unet.storage.opening import open_store

    remote, local = open_store(f"{bucket}/out.ome.zarr"), open_store(store)
    for key in local.list(""):
        remote.put(key, local.get(key) or b"")
    path = write_regions(tmp_path / "r.geojson", draw_regions(1, SHAPE))
    found, expected = wsi_unet.measure(str(remote), path), wsi_unet.measure(store, path)
    assert found.drop_columns("result").equals(expected.drop_columns("result"))
    assert set(found["result"].to_pylist()) == {f"{bucket}/out.ome.zarr"}


def test_a_boundary_has_an_area_and_no_number_of_objects(
    labels: NDArray[np.uint8], tmp_path: Path
) -> None:
    store = write_store(
        tmp_path / "out.ome.zarr", labels, classes=("background", "nucleus", "border")
    )
    wsi_unet.find_objects(store, split={"nucleus": "interior:border:1.5"})
    regions = write_regions(tmp_path / "regions.geojson", draw_regions(3, SHAPE))
    rows = wsi_unet.measure(store, regions).to_pylist()
    assert {row["class"] for row in rows} == {"nucleus", "border"}
    for row in rows:
        assert (row["objects"] is None) == (row["class"] == "border")
        assert row["class_area_mm2"] is not None
        assert row["class"] == "nucleus" or row["objects_per_mm2"] is None
