"""Objects, regions and folders: what the page is told about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from exports.results import LABELS, make_result
from viewer.serving import Client, serving

import wsi_unet
from wsi_unet.viewer import object_tables

DOWNSAMPLE, MPP = (1.5, 3.25), (0.25, 0.5)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    return make_result(folder / "a.ome.zarr", downsample=DOWNSAMPLE, mpp=MPP)


@pytest.fixture(scope="module")
def table(result: Path) -> pa.Table:
    return wsi_unet.open_objects(result).to_table()


def find(client: Client, *box: float) -> Any:
    return client.ask(f"/slides/0/objects/0?box={','.join(map(str, box))}").json


def test_objects_in_view_are_those_of_the_table(result: Path, table: pa.Table) -> None:
    outlines = shapely.from_wkb(table["geometry"].to_pylist())
    shapes = dict(zip(table["id"].to_pylist(), outlines, strict=True))
    with serving(result) as client:
        for box in ((0, 0, 300, 200), (1000, 300, 2500, 900), (-50, -50, 2500, 2000), (1, 1, 1, 1)):
            found = find(client, *box)
            bounds = shapely.bounds(list(shapes.values()))
            near = (
                (bounds[:, 0] <= box[2]) & (bounds[:, 2] >= box[0])
                & (bounds[:, 1] <= box[3]) & (bounds[:, 3] >= box[1])
            )  # fmt: skip
            expected = {str(i) for i, is_near in zip(shapes, near, strict=True) if is_near}
            assert {each["id"] for each in found["objects"]} == expected
            assert not found["many"]
            for each in found["objects"][:20]:
                rings = [np.reshape(ring, (-1, 2)) for ring in each["rings"]]
                shape = shapes[int(each["id"])]
                assert sum(map(len, rings)) == shapely.get_num_coordinates(shape)
                if len(rings) == 1:
                    assert shapely.Polygon(rings[0]).area == pytest.approx(shape.area, rel=1e-3)
    assert len(shapes) > 100


def test_views_with_too_many_objects(result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_tables, "MOST_OBJECTS", 20)
    with serving(result) as client:
        assert find(client, 0, 0, 4000, 2000) == {"many": True, "objects": []}
        assert len(find(client, 0, 0, 100, 60)["objects"]) <= 20


def test_an_object_is_found_where_it_is(result: Path, table: pa.Table) -> None:
    with serving(result) as client:
        for number in range(0, len(table), 17):
            row = table.slice(number, 1).to_pylist()[0]
            point = shapely.point_on_surface(shapely.from_wkb(row["geometry"]))
            answer = client.ask(f"/slides/0/object/0?at={point.x:.4f},{point.y:.4f}").json
            assert answer["row"]["uuid"] == row["uuid"]
            assert answer["row"]["area_um2"] == row["area_um2"]
            assert "geometry" not in answer["row"]
        assert client.ask("/slides/0/object/0?at=-5,-5").json is None


def test_classes_and_histograms(result: Path, table: pa.Table) -> None:
    with serving(result) as client:
        objects = client.ask("/slides/0/description").json["groups"][0]["objects"]
        counts = {each["name"]: each["objects"] for each in objects["classes"]}
        names = table["class"].to_pylist()
        assert counts == {name: names.count(name) for name in counts}
        measurement = objects["measurements"].index("area_um2")
        path = f"/slides/0/histogram/0?measurement={measurement}&value=1"
        histogram = client.ask(path).json
        own = table.filter(pa.compute.equal(table["label"], 1))["area_um2"].to_numpy()
        assert histogram["count"] == sum(histogram["counts"]) == len(own)
        assert histogram["median"] == pytest.approx(np.median(own))
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1
        assert client.ask("/slides/0/histogram/0?measurement=999&value=1").status == 404
        empty = client.ask("/slides/0/histogram/0?measurement=0&value=77").json
        assert empty["count"] == 0


def test_regions_have_the_numbers_of_measure(result: Path, tmp_path: Path) -> None:
    corners = [[100, 80], [2300, 120], [1900, 880], [140, 700], [100, 80]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"name": "region 1"},
    }
    document = json.dumps({"type": "FeatureCollection", "features": [feature]})
    (tmp_path / "regions.geojson").write_text(document)
    expected = wsi_unet.measure(result, tmp_path / "regions.geojson").to_pylist()
    with serving(result) as client:
        rows = client.ask("/slides/0/regions", "POST", body=document.encode()).json
        assert len(rows) == len(expected) > 0
        for row, wanted in zip(rows, expected, strict=True):
            assert row == {name: value for name, value in wanted.items() if name != "result"}
        for body, message in (
            (b"[]", b"none of them covers an area"),
            (b"{", b"isn't valid GeoJSON"),
            (document.replace("100, 80", "-9e8, 80").encode(), b""),
        ):
            answer = client.ask("/slides/0/regions", "POST", body=body)
            assert answer.status in (200, 422)
            assert message in answer.body


def test_a_folder_of_results(tmp_path: Path, result: Path) -> None:
    make_result(tmp_path / "b.ome.zarr")
    make_result(tmp_path / "below" / "c <i>.ome.zarr", labels=LABELS[:300, :400])
    with serving(tmp_path) as client:
        gallery = client.ask("/gallery").json
        names = [each["name"] for each in gallery["slides"]]
        assert names == ["b.ome.zarr", "c <i>.ome.zarr"]
        for each in gallery["slides"]:
            assert each["classes"][0]["mm2"] > 0
            assert each["classes"][0]["objects"] > 0
            thumbnail = client.ask(f"/slides/{each['number']}/thumbnail")
            assert thumbnail.body.startswith(b"\xff\xd8")
            about = client.ask(f"/slides/{each['number']}/description").json
            assert about["name"] == each["name"]
        page = client.ask("/").body
        assert b"gallery.js" in page


def test_a_report_cannot_name_results_elsewhere(tmp_path: Path, result: Path) -> None:
    make_result(tmp_path / "cohort" / "b.ome.zarr")
    (tmp_path / "cohort" / "link.ome.zarr").symlink_to(result)
    with serving(tmp_path / "cohort") as client:
        assert len(client.ask("/gallery").json["slides"]) == 1
