"""What belongs to a region: its pixels, each object once, and nothing that isn't needed is read."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measuring.regions import Named, draw_regions, write_regions
from support.labelled import write_store

import wsi_unet
from wsi_unet.annotations.reading import read_annotations
from wsi_unet.ground_truth.annotation_rasters import AnnotationRaster
from wsi_unet.measuring.object_statistics import measure_objects
from wsi_unet.measuring.sources import open_result
from wsi_unet.storage.local_store import LocalStore

SIDE = 120
CLASSES = ("background", "dot")
GRIDS = [((1.0, 1.0), 0.5), ((2.0, 2.0), 0.25), ((3.0, 2.5), 0.2527)]
"""Slide px per pixel of the labels, and µm per slide px."""


@pytest.fixture(scope="module", params=GRIDS, ids=str)
def dots(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Write labels whose objects are single pixels; return their downsample, too."""
    downsample, mpp = request.param
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[::2, ::2] = 1
    path = tmp_path_factory.mktemp("dots") / "dots.ome.zarr"
    write_store(path, labels, downsample=downsample, mpp=(mpp, mpp), classes=CLASSES)
    wsi_unet.find_objects(path)
    return path, downsample


HALVES = st.integers(-2, 2 * SIDE + 2).map(lambda n: n / 2)
CORNERS = st.lists(st.tuples(HALVES, HALVES), min_size=3, max_size=7)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rings=st.lists(CORNERS, min_size=1, max_size=3))
def test_an_object_of_one_pixel_is_where_its_pixel_is(
    rings: list[list[tuple[float, float]]], dots: tuple[Path, Any], tmp_path: Path
) -> None:
    """Whatever the outline crosses: it runs along pixels' centres and edges, and over itself."""
    store, (down, right) = dots
    placed = [[[x * right, y * down] for y, x in ring] for ring in rings]
    geometry = {"type": "Polygon", "coordinates": placed}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path = tmp_path / "region.geojson"
    path.write_text(json.dumps([feature, {**feature, "geometry": whole(down, right)}]))
    table = wsi_unet.measure(store, path)
    pixel = open_result(store, None, areas_only=True)[0].pixel_area
    assert pixel is not None
    for row in table.to_pylist():
        assert row["objects"] == round(row["class_area_mm2"] * 1e6 / pixel)
    assert table["objects"][-1].as_py() == SIDE**2 // 4


def whole(down: float, right: float) -> Any:
    return shapely.geometry.mapping(shapely.box(0, 0, SIDE * right, SIDE * down))


def test_regions_that_share_edges_share_nothing(dots: tuple[Path, Any], tmp_path: Path) -> None:
    store, (down, right) = dots
    random = np.random.default_rng(0)
    ys, xs = ([0, *np.sort(random.integers(1, 2 * SIDE, 4)) / 2, SIDE] for _ in "yx")
    boxes: list[Named] = [
        ({}, shapely.box(x0 * right, y0 * down, x1 * right, y1 * down))
        for y0, y1 in pairwise(ys)
        for x0, x1 in pairwise(xs)
        if y0 < y1 and x0 < x1
    ]
    table = wsi_unet.measure(store, write_regions(tmp_path / "r.geojson", boxes))
    assert sum(table["objects"].to_pylist()) == SIDE**2 // 4
    area = open_result(store, None, areas_only=True)[0].pixel_area
    assert area is not None
    assert sum(table["region_area_mm2"].to_pylist()) == pytest.approx(SIDE**2 * area / 1e6)


@pytest.mark.parametrize("seed", range(4))
def test_areas_are_those_that_evaluate_compares(
    seed: int, dots: tuple[Path, Any], tmp_path: Path
) -> None:
    store, (down, right) = dots
    region = draw_regions(seed, (round(SIDE * down), round(SIDE * right)))[:1]
    path = write_regions(tmp_path / "r.geojson", region)
    (row,) = wsi_unet.measure(store, path).to_pylist()
    compared = wsi_unet.evaluate(store, store, within=path, tolerance=None)
    area = open_result(store, None, areas_only=True)[0].pixel_area
    assert area is not None
    assert row["region_area_mm2"] == pytest.approx(compared.pixels * area / 1e6)
    assert row["objects"] == compared.classes[-1].prediction_pixels


def test_parts_of_a_region_that_overlap_count_once(tmp_path: Path) -> None:
    labels = np.ones((60, 80), np.uint8)
    store = write_store(tmp_path / "out.ome.zarr", labels, mpp=None)
    wsi_unet.find_objects(store)
    parts = [shapely.box(5, 5, 45, 35), shapely.box(15, 15, 70, 60), shapely.box(20, 0, 25, 60)]
    overlapping = shapely.MultiPolygon(parts)  # which isn't valid
    regions: list[Named] = [({}, overlapping), *(({}, part) for part in parts)]
    rows = wsi_unet.measure(store, write_regions(tmp_path / "r.geojson", regions)).to_pylist()
    assert rows[0]["region_area_px"] == shapely.unary_union(parts).area
    assert [row["objects"] for row in rows[::2]] == [1, 1, 1, 0]


def test_numbers_dont_depend_on_the_order_of_parts(tmp_path: Path) -> None:
    labels = np.zeros((1100, 1100), np.uint8)
    y, x = np.indices(labels.shape)
    labels[(y % 17 < 9) & (x % 13 < 7) & ((x * y) % 11 > 0)] = 1
    store = write_store(tmp_path / "out.ome.zarr", labels, classes=CLASSES)
    wsi_unet.find_objects(store)
    path = write_regions(tmp_path / "r.geojson", draw_regions(5, labels.shape))
    (group,) = open_result(store, None, areas_only=False)
    assert group.objects is not None
    raster = AnnotationRaster(path, read_annotations(path), group.grid)
    forwards = measure_objects(group.objects, group, raster)
    parts = list(group.objects.get_fragments())[::-1]
    reversed_objects = ds.FileSystemDataset(parts, group.objects.schema, group.objects.format)
    backwards = measure_objects(reversed_objects, group, raster)
    for name, mean in forwards.means.items():
        np.testing.assert_array_equal(mean, backwards.means[name])
        np.testing.assert_array_equal(forwards.medians[name], backwards.medians[name])


def test_columns_that_are_added_are_measured_and_gaps_left_out(
    dots: tuple[Path, Any], tmp_path: Path
) -> None:
    store, (down, right) = dots
    table = wsi_unet.open_objects(store).to_table()
    values = np.random.default_rng(0).random(len(table))
    gaps = np.arange(len(table)) % 3 == 0
    table = table.append_column("mean_red", pa.array(values, mask=gaps))
    table = table.append_column("sd_red", pa.array(np.full(len(table), np.nan, np.float32)))
    pq.write_table(table, tmp_path / "part.parquet")
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(whole(down, right)))
    (group,) = open_result(store, None, areas_only=True)
    raster = AnnotationRaster(path, read_annotations(path), group.grid)
    found = measure_objects(ds.dataset(tmp_path / "part.parquet"), group, raster)
    assert found.objects.tolist() == [[len(table)]]
    assert found.means["mean_red"].item() == pytest.approx(values[~gaps].mean())
    assert found.medians["mean_red"].item() == np.median(values[~gaps])
    assert np.isnan([found.means["sd_red"].item(), found.medians["sd_red"].item()]).all()


@pytest.mark.parametrize("predicted", [None, [[0, 0, 600, 512]]])
def test_only_blocks_that_meet_a_region_are_read(
    predicted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.ones((1536, 2048), np.uint8)
    if predicted:
        labels[600:], labels[:, 512:] = 0, 0
    store = write_store(tmp_path / "out.ome.zarr", labels, regions=predicted)
    corner = [[1000, 10], [1020, 10], [1020, 1530], [1000, 1530]]  # x, y: a bar down a column
    hook = shapely.Polygon([[10, 10], [500, 10], [500, 20], [20, 20], [20, 1500], [10, 1500]])
    regions: list[Named] = [({}, shapely.Polygon(corner)), ({}, hook)]
    path = write_regions(tmp_path / "r.geojson", regions)
    read, get = set(), LocalStore.get

    def watch(self: LocalStore, key: str, *arguments: Any) -> bytes | None:
        if key.startswith("labels/nuclei/0/c/"):
            read.add(key.removeprefix("labels/nuclei/0/c/"))
        return get(self, key, *arguments)

    monkeypatch.setattr(LocalStore, "get", watch)
    wsi_unet.measure(store, path, areas_only=True)
    every = {f"{i}/{j}" for i in range(3) for j in (0, 1)}
    assert read == ({"0/0", "1/0"} if predicted else every)
