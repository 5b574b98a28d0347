"""Objects for QuPath, read back as QuPath reads them, by geopandas and by our own reader."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import rasterio.features
import shapely
from affine import Affine
from exports.qupath_reader import QuPathObject, read_files, read_head
from exports.results import LABELS, make_result
from support.labelled import blobs, write_store

import wsi_unet
from wsi_unet import ExportOptions, OptionError, OutputError
from wsi_unet.annotations.reading import read_annotations
from wsi_unet.exports.progress import ExportProgress
from wsi_unet.exports.qupath import classes as qupath_classes
from wsi_unet.exports.qupath import features as qupath_features
from wsi_unet.exports.qupath.measurements import name_measurement, write_measurements
from wsi_unet.exports.qupath.outlines import GridLines
from wsi_unet.exports.qupath.parts import PartFile
from wsi_unet.objects.intensities.slide_pixels import SlideReference
from wsi_unet.segmentation.planning.resolved_options import make_slide_reference
from wsi_unet.slides.levels import find_origin as read_origin

ROOT = Path(__file__).resolve().parents[2]
PART = LABELS[300:, 500:]
"""Labels with hundreds of objects on two blocks."""

NUCLEI_ONLY: dict[str, Any] = {
    "name": "nuclei", "sha256": "0" * 64, "spec": {"objects": {"nucleus": {}}},
}  # fmt: skip
"""A model whose card has an object rule for one of its classes."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_result(
        tmp_path_factory.mktemp("result") / "slide.ome.zarr", labels=PART, model=NUCLEI_ONLY
    )


def export(result: Path, folder: Path, **options: Any) -> list[QuPathObject]:
    """Export a result into a folder, and read it."""
    report = wsi_unet.export(
        result, "qupath", folder / "slide.geojson.gz", options=ExportOptions(**options)
    )
    return read_files(report.files)


def read_rows(result: Path, label: str | None = None) -> list[dict[str, Any]]:
    table: pa.Table = wsi_unet.open_objects(result, label).to_table().sort_by("id")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


# ---- objects ----


def test_every_object_of_the_table_is_there(result: Path, tmp_path: Path) -> None:
    rows = read_rows(result)
    found = export(result, tmp_path)
    assert [each.uuid for each in found] == [row["uuid"] for row in rows]
    assert [each.name for each in found] == [row["class"] for row in rows]
    for each, row in zip(found, rows, strict=True):
        assert each.outline.equals(shapely.from_wkb(row["geometry"]))
        assert each.outline.area == row["area_px"]
        assert each.colour == (0x2A, 0x6F, 0xDB)


def test_measurements_are_those_of_the_table(result: Path, tmp_path: Path) -> None:
    columns = {
        "Area µm^2": "area_um2", "Perimeter µm": "perimeter_um",
        "Equivalent diameter µm": "equivalent_diameter_um", "Major axis µm": "major_axis_um",
        "Minor axis µm": "minor_axis_um", "Eccentricity": "eccentricity",
        "Orientation": "orientation", "Solidity": "solidity", "Circularity": "circularity",
        "Cut": "cut", "Large": "large",
    }  # fmt: skip
    for each, row in zip(export(result, tmp_path), read_rows(result), strict=True):
        expected = {name: float(row[column]) for name, column in columns.items()}
        assert each.measurements == pytest.approx(expected, rel=1e-6, nan_ok=True)
        assert [*each.measurements] == [*columns]


def test_the_file_says_where_it_comes_from(result: Path, tmp_path: Path) -> None:
    found = export(result, tmp_path)
    said = read_head(tmp_path / "slide.geojson.gz")
    assert (said["creator"], said["part"], said["parts"]) == ("wsi-unet", 1, 1)
    assert said["objects"] == len(found)
    assert said["groups"][0]["model_sha256"] == "0" * 64
    assert {(each["name"], each["objectType"]): each["objects"] for each in said["classes"]} == {
        (name, kind): sum((each.name, each.kind) == (name, kind) for each in found)
        for name, kind in (("nucleus", "detection"), ("tumour", "annotation"))
    }


@pytest.mark.parametrize(
    ("given", "nuclei", "tumours"),
    [
        (None, "detection", "annotation"),
        ("annotation", "annotation", "annotation"),
        ("detection", "detection", "detection"),
    ],
)
def test_classes_with_an_object_rule_are_detections(
    given: str | None, nuclei: str, tumours: str, result: Path, tmp_path: Path
) -> None:
    kinds = {(each.name, each.kind) for each in export(result, tmp_path, objects_as=given)}
    assert kinds == {("nucleus", nuclei), ("tumour", tumours)}


def test_split_components_are_single_objects_whatever_the_card_says(tmp_path: Path) -> None:
    result = write_store(tmp_path / "slide.ome.zarr", PART)
    wsi_unet.find_objects(result, split={"nucleus": "distance:1"}, min_area={"tumour": 1})
    kinds = {(each.name, each.kind) for each in export(result, tmp_path)}
    assert kinds == {("nucleus", "detection"), ("tumour", "annotation")}


def test_more_annotations_than_qupath_shows_are_refused_unless_they_are_wanted(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qupath_classes, "MOST_ANNOTATIONS", 5)
    with pytest.raises(OptionError, match=r"of 'tumour' would be annotations.*give `objects_as`"):
        export(result, tmp_path)
    assert not [*tmp_path.iterdir()]
    assert export(result, tmp_path, objects_as="annotation")
    assert export(result, tmp_path, class_name="nucleus")


def test_a_class_by_itself(result: Path, tmp_path: Path) -> None:
    rows = [row for row in read_rows(result) if row["class"] == "tumour"]
    found = export(result, tmp_path, class_name="tumour")
    assert [each.uuid for each in found] == [row["uuid"] for row in rows]
    with pytest.raises(OptionError, match="'gland'; give one of nucleus, tumour"):
        export(result, tmp_path, class_name="gland")


def test_several_label_groups(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    write_store(path, PART, model=NUCLEI_ONLY)
    names = ("background", "nucleus", "gland")
    other = NUCLEI_ONLY | {"sha256": "1" * 64}
    write_store(path, PART[::-1], name="others", classes=names, model=other)
    wsi_unet.find_objects(path)
    rows = [*read_rows(path, "nuclei"), *read_rows(path, "others")]
    found = export(path, tmp_path)
    assert [each.uuid for each in found] == [row["uuid"] for row in rows]
    assert {(each.name, each.kind) for each in found} == {
        ("nuclei: nucleus", "detection"), ("tumour", "annotation"),
        ("others: nucleus", "detection"), ("gland", "annotation"),
    }  # fmt: skip
    assert len(export(path, tmp_path, label="others")) == len(read_rows(path, "others"))


def test_groups_whose_objects_have_the_same_identity_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.zarr"
    for name in ("nuclei", "again"):
        write_store(path, PART, name=name, model=NUCLEI_ONLY)
    wsi_unet.find_objects(path)
    with pytest.raises(OptionError, match="the same UUIDs; export one at a time: give `label`"):
        export(path, tmp_path)
    assert export(path, tmp_path, label="again")


def test_a_slide_without_objects(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", labels=np.zeros((60, 70), np.uint8))
    assert export(result, tmp_path) == []


# ---- geometry ----


@pytest.mark.parametrize("downsample", [(1.0, 1.0), (1.5, 3.25), (2.0161, 0.7)])
def test_drawn_again_they_are_the_labels(downsample: tuple[float, float], tmp_path: Path) -> None:
    labels = LABELS[:301, 500:1003]
    result = make_result(
        tmp_path / "slide.ome.zarr", labels=labels, downsample=downsample, mpp=(0.25, 0.5)
    )
    found = export(result, tmp_path)
    values = {"nucleus": 1, "tumour": 2}
    drawn = rasterio.features.rasterize(
        [(each.outline, values[each.name]) for each in found],
        labels.shape,
        transform=Affine.scale(downsample[1], downsample[0]),
        dtype="uint8",
    )
    assert np.array_equal(drawn, labels)
    for each, row in zip(found, read_rows(result), strict=True):
        bounds = [row["bbox"][name] for name in ("xmin", "ymin", "xmax", "ymax")]
        assert each.outline.bounds == pytest.approx(bounds, abs=6e-4)
        area = each.outline.area * 0.25 * 0.5
        assert each.measurements["Area µm^2"] == pytest.approx(area, rel=2e-3)


@pytest.mark.parametrize("downsample", [(1.0, 1.0), (1.5, 3.25), (1.98347, 2.0319)])
def test_regions_that_touch_share_their_edges_exactly(
    downsample: tuple[float, float], tmp_path: Path
) -> None:
    labels = blobs((120, 190), seed=3) + 1  # a class everywhere, with holes and corners that touch
    names = ("background", "one", "two", "three")
    result = make_result(
        tmp_path / "slide.ome.zarr", labels=labels, classes=names, downsample=downsample
    )
    outlines = [each.outline for each in export(result, tmp_path)]
    assert len(outlines) > 500
    assert any(polygon.geom_type == "MultiPolygon" for polygon in outlines)
    far = []
    for axis, (side, step) in enumerate(zip((190, 120), downsample[::-1], strict=True)):
        lines = np.unique(shapely.get_coordinates(outlines)[:, axis])
        assert lines == pytest.approx(np.arange(side + 1) * step, abs=6e-4)  # one number for each
        far.append(lines[-1])
    assert shapely.union_all(outlines).equals(shapely.box(0, 0, *far))
    assert sum(each.area for each in outlines) == pytest.approx(far[0] * far[1], rel=1e-12)


def test_without_a_pixel_size_numbers_are_in_pixels_of_the_slide(tmp_path: Path) -> None:
    result = make_result(
        tmp_path / "slide.ome.zarr", labels=LABELS[:200, :200], downsample=(2.0, 3.0), mpp=None
    )
    rows = read_rows(result)
    for each, row in zip(export(result, tmp_path), rows, strict=True):
        assert each.measurements["Area px^2"] == 6 * row["area_px"]
        assert each.measurements["Area px^2"] == each.outline.area
        assert each.measurements["Perimeter px"] == pytest.approx(row["perimeter_px"], rel=1e-6)
        assert not [name for name in each.measurements if "µm" in name]


def test_whole_numbers_are_written_as_such(tmp_path: Path) -> None:
    lines = GridLines.make(3, 1.5, origin=1)
    assert lines.texts.to_pylist() == ["-1", "0.5", "2", "3.5"]
    assert lines.write(np.array([4.5, 0.0])).to_pylist() == ["3.5", "-1"]
    assert GridLines.make(3, 0.1, origin=0).texts.to_pylist() == ["0", "0.1", "0.2", "0.3"]
    assert GridLines.make(2, 500_000_000.0, origin=0).texts.to_pylist()[-1] == "1000000000"


@pytest.mark.parametrize("coordinate", [0.7, -1.5, 6.0, math.nan])
def test_outlines_of_other_labels_are_refused(coordinate: float) -> None:
    with pytest.raises(OutputError, match="don't fit the labels; find objects again"):
        GridLines.make(3, 1.5, origin=0).write(np.array([1.5, coordinate]))


def test_pieces_of_any_size_give_the_same_features(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(result, tmp_path)
    whole = gzip.decompress((tmp_path / "slide.geojson.gz").read_bytes())
    monkeypatch.setattr(qupath_features, "PIECE_BYTES", 30_000)
    export(result, tmp_path)
    assert gzip.decompress((tmp_path / "slide.geojson.gz").read_bytes()) == whole


def test_the_bytes_depend_on_the_objects_alone(result: Path, tmp_path: Path) -> None:
    export(result, tmp_path, most_objects=200)
    for block in (512, 1024):
        (tmp_path / f"{block}").mkdir()
        other = make_result(
            tmp_path / "r" / f"{block}.ome.zarr", labels=PART, block=block, model=NUCLEI_ONLY
        )
        export(other, tmp_path / f"{block}", most_objects=200)
        for file in tmp_path.glob("*.gz"):
            assert (tmp_path / f"{block}" / file.name).read_bytes() == file.read_bytes()


# ---- measurements ----


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("perimeter_px", "Perimeter px"),
        ("probability", "Probability"),
        ("mean_red", "Red: Mean"),
        ("sd_haematoxylin", "Haematoxylin: Std.Dev."),
        ("mean_dab", "DAB: Mean"),
    ],
)
def test_measurements_are_named_as_qupath_names_its_own(column: str, name: str) -> None:
    assert name_measurement(column) == name


def test_what_is_no_number_is_the_text_nan() -> None:
    table = pa.table({"area_px": [3, 1 << 40], "solidity": [math.nan, 0.1], "cut": [True, False]})
    first, second = (
        "".join(piece if isinstance(piece, str) else piece[row].as_py() for piece in pieces)
        for row, pieces in enumerate([write_measurements(table, "px", 0.25)] * 2)
    )
    assert first == '{"Area px^2":0.75,"Solidity":"NaN","Cut":1}'
    expected = {"Area px^2": pytest.approx(1 << 38, rel=1e-6), "Solidity": 0.1, "Cut": 0}
    assert json.loads(second) == expected


# ---- files ----


def test_files_have_a_bounded_number_of_objects(result: Path, tmp_path: Path) -> None:
    whole = export(result, tmp_path)
    most = len(whole) // 3 - 1  # the last of four files has a few
    report = wsi_unet.export(
        result, "qupath", tmp_path / "slide.geojson.gz", options=ExportOptions(most_objects=most)
    )
    names = [f"slide-00{number}.geojson.gz" for number in range(1, 5)]
    assert [path.name for path in report.files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names, "the single file is stale"
    assert [len(read_files([path])) for path in report.files[:3]] == [most] * 3
    heads = [read_head(path) for path in report.files]
    assert [(head["part"], head["parts"], head["objects"]) for head in heads[:3]] == [
        (number, 4, most) for number in (1, 2, 3)
    ]
    found = read_files(report.files)
    assert [each.uuid for each in found] == [each.uuid for each in whole]


def test_files_of_an_earlier_export_do_not_stay(result: Path, tmp_path: Path) -> None:
    count = len(export(result, tmp_path))
    export(result, tmp_path, most_objects=count // 5)
    export(result, tmp_path, most_objects=(count - 1) // 2)  # and a rest
    names = [f"slide-00{number}.geojson.gz" for number in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    export(result, tmp_path, most_objects=count)
    assert [path.name for path in tmp_path.iterdir()] == ["slide.geojson.gz"]


def test_exports_of_slides_that_are_called_like_parts_stay(result: Path, tmp_path: Path) -> None:
    place = tmp_path / "slide-001.geojson.gz"
    wsi_unet.export(result, "qupath", place)
    before = place.read_bytes()
    count = len(export(result, tmp_path))
    assert place.read_bytes() == before
    with pytest.raises(OutputError, match=r"slide-001.*isn't an earlier export"):
        export(result, tmp_path, most_objects=count // 2)
    assert place.read_bytes() == before
    place.unlink()
    export(result, tmp_path, most_objects=count // 2)
    part = place.read_bytes()
    with pytest.raises(OutputError, match=r"slide-001.*isn't an earlier export"):
        wsi_unet.export(result, "qupath", place)
    assert place.read_bytes() == part


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_in_the_place_of_a_part_stays(kind: str, result: Path, tmp_path: Path) -> None:
    place = tmp_path / "slide-002.geojson.gz"
    if kind == "file":
        place.write_text("mine")
    elif kind == "folder":
        place.mkdir()
    else:
        (tmp_path / "mine").write_text("mine")
        place.symlink_to("mine")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"slide-002.*isn't an earlier export"):
        export(result, tmp_path, most_objects=300)
    assert sorted(tmp_path.iterdir()) == before


def test_an_interrupted_export_leaves_the_earlier_one(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(result, tmp_path, most_objects=250)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(qupath_features, "PIECE_BYTES", 20_000)
    monkeypatch.setattr("wsi_unet.exports.progress.SECONDS_BETWEEN", 0.0)

    def interrupt(progress: ExportProgress) -> None:
        if progress.done > 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wsi_unet.export(
            result,
            "qupath",
            tmp_path / "slide.geojson.gz",
            options=ExportOptions(most_objects=150),
            on_progress=interrupt,
        )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_is_one_line_and_leaves_nothing(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(self: PartFile, text: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PartFile, "_write", fill)
    with pytest.raises(OutputError, match="No space left on device; what was there before"):
        export(result, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_what_qupath_would_not_read_is_refused(result: Path, tmp_path: Path) -> None:
    for name in ("slide.csv", ".geojson.gz", "slide.gz"):
        with pytest.raises(OptionError, match=r"let it end in \.geojson\.gz"):
            wsi_unet.export(result, "qupath", tmp_path / name)
    with pytest.raises(OptionError, match="`objects_as` is 'cell'; give one of detection, annot"):
        ExportOptions(objects_as="cell")
    with pytest.raises(OptionError, match="`most_objects` is 0"):
        ExportOptions(most_objects=0)
    assert not [*tmp_path.iterdir()]


def test_a_part_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr")
    small, *_, large = sorted(
        (result / "objects" / "nuclei").iterdir(), key=lambda path: path.stat().st_size
    )
    before = small.read_bytes(), large.read_bytes()
    for path, data in ((small, before[1]), (large, before[0])):
        path.write_bytes(data)
        with pytest.raises(OutputError, match="is damaged"):
            export(result, tmp_path)
        small.write_bytes(before[0])
    assert [path.name for path in tmp_path.iterdir()] == ["slide.ome.zarr"]


# ---- where QuPath begins to count ----


def refer(**facts: Any) -> dict[str, Any]:
    return {"path": "/nowhere/slide.mrxs", "reader": "openslide", "fingerprint": "a slide"} | facts


def test_coordinates_begin_where_scanning_did(tmp_path: Path) -> None:
    labels = LABELS[:200, :200]
    result = make_result(
        tmp_path / "slide.ome.zarr", labels=labels, downsample=(2.0, 2.0),
        reference=refer(origin=[31, 57]),
    )  # fmt: skip
    for each, row in zip(export(result, tmp_path), read_rows(result), strict=True):
        moved = shapely.transform(
            shapely.from_wkb(row["geometry"]), lambda points: points - (57, 31)
        )
        assert each.outline.equals(moved)
    assert read_head(tmp_path / "slide.geojson.gz")["origin"] == [57, 31]


@pytest.mark.parametrize("path", ["/nowhere/slide.mrxs", "/nowhere/slide.SCN"])
def test_earlier_results_of_slides_with_bounds_need_their_slide(path: str, tmp_path: Path) -> None:
    reader = "openslide" if path.endswith("mrxs") else "tiffslide"
    reference = refer(path=path, reader=reader)
    result = make_result(tmp_path / "slide.ome.zarr", labels=LABELS[:99, :99], reference=reference)
    with pytest.raises(OutputError, match=f"doesn't say where; put {path} back"):
        export(result, tmp_path)


def test_runs_record_where_scanning_began(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "examples" / "CMU-1-Small-Region.svs"
    with wsi_unet.open_slide(path) as slide:
        assert make_slide_reference(slide, None).origin == (0, 0)
        monkeypatch.setattr(slide._reader, "origin", (31, 57))
        said = json.loads(make_slide_reference(slide, None).model_dump_json())
    assert SlideReference.model_validate_json(json.dumps(said)).origin == (31, 57)
    del said["origin"]  # as earlier versions wrote it
    assert SlideReference.model_validate_json(json.dumps(said)).origin is None


@pytest.mark.parametrize(
    ("stated", "origin"),
    [(("20", "30"), (20, 30)), (("50", "0"), (0, 0)), (("-1", "2.5"), (0, 0)), ((), (0, 0))],
)
def test_bounds_outside_of_the_slide_are_not_believed(
    stated: tuple[str, ...], origin: tuple[int, int]
) -> None:
    bounds = {f"tiffslide.bounds-{axis}": text for axis, text in zip("yx", stated, strict=False)}
    assert read_origin(bounds, "tiffslide", (50, 40)) == origin


def test_earlier_results_of_other_slides_do_not(tmp_path: Path) -> None:
    reference = refer(path="/nowhere/slide.svs", reader="tiffslide")
    result = make_result(tmp_path / "slide.ome.zarr", labels=LABELS[:99, :99], reference=reference)
    assert export(result, tmp_path)


@pytest.mark.parametrize("changed", [False, True])
def test_the_slide_says_where_scanning_began(
    changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openslide import OpenSlide

    stated = property(lambda slide: {"openslide.bounds-x": "57", "openslide.bounds-y": "31"})
    monkeypatch.setattr(OpenSlide, "properties", stated)
    path = ROOT / "examples" / "CMU-1-Small-Region.svs"
    with wsi_unet.open_slide(path, reader="openslide") as slide:
        assert slide.origin == (31, 57)
        fingerprint = slide.fingerprint() + "!" * changed
    reference = refer(path=str(path), fingerprint=fingerprint)
    result = make_result(tmp_path / "slide.ome.zarr", labels=LABELS[:99, :99], reference=reference)
    if changed:
        with pytest.raises(OutputError, match="another slide is there now"):
            export(result, tmp_path)
    else:
        export(result, tmp_path)
        assert read_head(tmp_path / "slide.geojson.gz")["origin"] == [57, 31]


# ---- other readers ----


def test_geopandas_opens_it(result: Path, tmp_path: Path) -> None:
    found = export(result, tmp_path)
    frame = geopandas.read_file(f"/vsigzip/{tmp_path / 'slide.geojson.gz'}")
    assert len(frame) == len(found)
    planar = frame.set_crs(None, allow_override=True)  # GeoJSON is said to be of the Earth
    assert planar.geometry.area.sum() == np.count_nonzero(PART)
    assert frame["id"].tolist() == [each.uuid for each in found]


def test_our_own_reader_takes_it(result: Path, tmp_path: Path) -> None:
    found = export(result, tmp_path)
    read = read_annotations(tmp_path / "slide.geojson.gz")
    assert [each.name for each in read.annotations] == [each.name for each in found]
    report = wsi_unet.evaluate(result, tmp_path / "slide.geojson.gz")
    assert [score.dice for score in report.classes] == [1.0] * 3


def test_regions_that_were_exported_can_be_measured(result: Path, tmp_path: Path) -> None:
    found = export(result, tmp_path, class_name="tumour")
    rows = wsi_unet.measure(result, tmp_path / "slide.geojson.gz").to_pylist()
    own = [row for row in rows if row["class"] == "tumour"]
    assert [row["share"] for row in own] == [1.0] * len(found)
    assert [row["region_class"] for row in own] == ["tumour"] * len(found)
