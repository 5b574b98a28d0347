from __future__ import annotations

import gzip
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
    (found,) = read_annotations(path).annotations
    assert found.name == name


@pytest.mark.parametrize(
    ("properties", "title"),
    [
        ({"classification": {"name": "Tumor"}, "name": " core 7 "}, "core 7"),
        ({"name": "UT"}, "UT"),
        ({"classification": "Stroma"}, ""),
        ({"name": {"value": "x"}}, ""),
        ([1], ""),
        (None, ""),
    ],
)
def test_a_feature_may_have_a_name_beside_its_class(
    tmp_path: Path, properties: Any, title: str
) -> None:
    path = written(tmp_path / "a.geojson", [feature(properties)])
    (found,) = read_annotations(path).annotations
    assert found.title == title


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
    ).annotations
    assert [(one.name, [len(p) for p in one.polygons]) for one in found] == [
        ("a", [1, 2]),
        ("c", [1, 2]),
    ]
    assert found[0].polygons[0][0].tolist() == [[y, x] for x, y in SQUARE]


@pytest.mark.parametrize(
    "empty",
    [
        None,
        {"type": "Feature", "geometry": None},
        {"type": "Feature", "geometry": {}},
        {"type": "Feature"},
        {"type": "GeometryCollection"},
        {"type": "GeometryCollection", "geometries": None},
        {"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": []}},
    ],
)
def test_features_without_a_geometry_dont_refuse_the_others(tmp_path: Path, empty: Any) -> None:
    features = [empty, {"type": "Polygon", "coordinates": [SQUARE]}]
    path = written(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": features})
    (one,) = read_annotations(path).annotations
    assert one.polygons[0][0].tolist() == [[y, x] for x, y in SQUARE]


def test_what_cant_be_read_is_one_line(tmp_path: Path) -> None:
    for number, (content, match) in enumerate(
        [
            ("{", "isn't valid GeoJSON"),
            ('{"type": "FeatureCollection", "features": []}', "holds no polygons"),
            ('{"type": "Polygon", "coordinates": []}', "1 outline that covers nothing"),
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
    found = read_annotations(folder / "CMU-1-Small-Region_regions.dsa.geojson").annotations
    assert {one.name: len(one.polygons) for one in found} == counts
    found = read_annotations(folder / "qupath05.geojson").annotations
    assert [one.name for one in found] == ["UT", "I", "I"]
    assert len(read_annotations(folder / "large_image_sample.geojson").annotations) == 10


@pytest.mark.parametrize(
    ("geometry", "empty"),
    [
        ({"type": "Polygon", "coordinates": []}, 1),
        ({"type": "Polygon", "coordinates": None}, 1),
        ({"type": "Polygon", "coordinates": [[]]}, 1),
        ({"type": "Polygon", "coordinates": [[[1, 1], [5, 5]]]}, 1),
        ({"type": "Polygon", "coordinates": [[[1, 1], [5, 5], [1, 1]]]}, 1),
        ({"type": "Polygon", "coordinates": [[[1, 1], [1, 5], [1, 9]]]}, 1),
        ({"type": "Polygon", "coordinates": [[], SQUARE]}, 1),
        ({"type": "MultiPolygon", "coordinates": [[], [[]]]}, 2),
        ({"type": "MultiPolygon", "coordinates": []}, 1),
        ({"type": "GeometryCollection", "geometries": []}, 0),
        ({"type": "Point", "coordinates": []}, 0),
    ],
)
def test_what_covers_nothing_is_left_out_counted_and_named(
    tmp_path: Path, geometry: Any, empty: int
) -> None:
    features = [feature({"name": "a"}), feature({"name": "b"}, geometry), feature({"name": "c"})]
    found = read_annotations(written(tmp_path / "a.geojson", features))
    assert [one.name for one in found.annotations] == ["a", "c"]
    assert found.empty == empty
    assert ("feature 2 ('b')" in found.left_out) == (empty > 0)


def test_empty_members_and_holes_leave_the_rest(tmp_path: Path) -> None:
    several = {"type": "MultiPolygon", "coordinates": [[], [SQUARE, [[1, 1], [2, 2]]], [SQUARE]]}
    found = read_annotations(written(tmp_path / "a.geojson", feature({"name": "a"}, several)))
    assert [len(polygon) for polygon in found.annotations[0].polygons] == [1, 1]
    assert found.left_out == (
        "2 outlines that cover nothing are left out, first in feature 1 ('a')"
    )


@pytest.mark.parametrize(
    ("coordinates", "match"),
    [
        ([[[0, 0], [int("9" * 400), 0], [4, 4]]], "aren't pairs of numbers.*too large"),
        ([[[0, 0], [1e10, 0], [4, 4]]], "aren't pixels"),
        ([[[0, 0], {"x": 1}, [4, 4]]], "aren't pairs"),
        ([[0, 0, 0]], "aren't pairs"),
        ([["ab", "cd", "ef"]], "aren't pairs"),
        ([[[0], [1], [2]]], "aren't .x, y. pairs"),
        (7, "where a list should be"),
    ],
)
def test_broken_coordinates_name_their_feature(
    tmp_path: Path, coordinates: Any, match: str
) -> None:
    broken = feature({"name": "b"}, {"type": "Polygon", "coordinates": coordinates})
    path = written(tmp_path / "a.geojson", [feature({}), broken])
    with pytest.raises(AnnotationError, match=rf"feature 2 \('b'\): .*{match}"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"images": [], "annotations": [], "categories": []}, "looks like COCO"),
        ({"shapes": [], "imagePath": "a.png", "version": "5"}, "looks like labelme"),
        ({"annotation": {"elements": []}}, "looks like an annotation of the Digital Slide Archive"),
        ({"nuc": {}, "mag": 40}, "looks like nuclei of HoVer-Net"),
        ({"type": "Topology", "arcs": []}, "looks like TopoJSON"),
        ({"type": "feature"}, "its type is 'feature'; did you mean 'Feature'"),
        ({"format_version": 1, "state": "finished"}, "a document that wsi-unet wrote"),
        ({"a": 1, "b": 2}, "has no type, and the keys 'a', 'b'"),
        ({"type": [1]}, "has no type, and the keys 'type'"),
        ({}, "an empty object"),
        (feature({}, {"type": "polygon", "coordinates": [SQUARE]}), "type is 'polygon', none of"),
    ],
)
def test_json_that_isnt_geojson_says_what_it_looks_like(
    tmp_path: Path, document: Any, match: str
) -> None:
    with pytest.raises(AnnotationError, match=match):
        read_annotations(written(tmp_path / "a.geojson", document))


def test_a_document_per_line_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text("\n".join([json.dumps(feature({}))] * 3))
    with pytest.raises(AnnotationError, match="looks like GeoJSON lines"):
        read_annotations(path)


def test_packed_files_are_read_up_to_a_bound(tmp_path: Path) -> None:
    document = json.dumps([feature({"name": "a"})]).encode()
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(gzip.compress(document[:50]) + gzip.compress(document[50:]))
    assert [one.name for one in read_annotations(path).annotations] == ["a"]
    for content, match in (
        (gzip.compress(document + b" " * (1 << 26)), "unpacks to more than 32 MiB.*gunzip"),
        (gzip.compress(document)[:-12], "can't be unpacked"),
        (gzip.compress(b"text"), "neither GeoJSON nor ASAP XML"),
    ):
        path.write_bytes(content)
        with pytest.raises(AnnotationError, match=match):
            read_annotations(path)
