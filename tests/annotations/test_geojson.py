from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wsi_unet.annotations.reading import read_annotations
from wsi_unet.errors import AnnotationError

SQUARE = [[0, 0], [4, 0], [4, 3], [0, 3], [0, 0]]


def written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def feature(properties: Any, geometry: Any = None) -> dict[str, Any]:
    polygon = {"type": "Polygon", "coordinates": [SQUARE]}
    return {"type": "Feature", "geometry": geometry or polygon, "properties": properties}


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": {"name": "Tumor", "color": [1, 2, 3]}, "name": "region 7"}, "Tumor"),
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"classification": "Stroma"}, "Stroma"),
        ({"label": "Other", "group": "x"}, "Other"),
        ({"label": {"value": "Other"}}, "Other"),
        ({"objectType": "annotation", "name": "UT"}, "UT"),
        ({"classification": None, "name": " "}, "unclassified"),
        ({}, "unclassified"),
        (None, "unclassified"),
        ([1], "unclassified"),
    ],
)
def test_the_class_is_where_programs_write_it(tmp_path: Path, properties: Any, name: str) -> None:
    path = written(tmp_path / "a.geojson", [feature(properties)])
    (found,) = read_annotations(path)
    assert found.name == name


def test_a_feature_of_several_polygons_is_one_annotation(tmp_path: Path) -> None:
    several = {"type": "MultiPolygon", "coordinates": [[SQUARE], [SQUARE, SQUARE]]}
    point = {"type": "Point", "coordinates": [1, 2]}
    features = [
        feature({"name": "a"}, several),
        feature({"name": "b"}, point),
        {"type": "Feature", "geometry": None, "properties": {}},
        feature({"name": "c"}, {"type": "GeometryCollection", "geometries": [several, point]}),
    ]
    found = read_annotations(
        written(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": features})
    )
    assert [(one.name, [len(p) for p in one.polygons]) for one in found] == [
        ("a", [1, 2]),
        ("c", [1, 2]),
    ]
    assert found[0].polygons[0][0].tolist() == [[y, x] for x, y in SQUARE]


def test_what_cant_be_read_is_one_line(tmp_path: Path) -> None:
    for number, (content, match) in enumerate(
        [
            ("{", "isn't valid GeoJSON"),
            ('{"type": "FeatureCollection", "features": []}', "holds no polygons"),
            ('{"type": "Polygon", "coordinates": []}', "at least three"),
            ('{"type": "Feature", "geometry": [1]}', "where a JSON object should be"),
        ]
    ):
        path = tmp_path / f"{number}.geojson"
        path.write_text(content)
        with pytest.raises(AnnotationError, match=match) as caught:
            read_annotations(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(AnnotationError, match="can't be read"):
        read_annotations(tmp_path / "missing.geojson")


def test_real_annotations(shared_data: Path) -> None:
    folder = shared_data / "annotations"
    counts = {"Other": 1, "Tumor": 1}
    found = read_annotations(folder / "CMU-1-Small-Region_regions.dsa.geojson")
    assert {one.name: len(one.polygons) for one in found} == counts
    assert [one.name for one in read_annotations(folder / "qupath05.geojson")] == ["UT", "I", "I"]
    assert len(read_annotations(folder / "large_image_sample.geojson")) == 10
