"""Objects as DICOM bulk annotations, read back by highdicom, checked by dciodvfy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydicom
import pytest
import shapely
from exports.results import LABELS, make_result
from support.dciodvfy import check_dicom
from support.labelled import write_store

import wsi_unet
from wsi_unet import ExportOptions, OptionError, OutputError, SlideError
from wsi_unet.slides import open_slide

Annotations = highdicom.ann.MicroscopyBulkSimpleAnnotations
HOLES = "have holes, which DICOM polygons can't"


def _export(result: Path, place: Path, **options: object) -> Annotations:
    report = wsi_unet.export(result, "dicom-ann", place, options=ExportOptions(**options))  # type: ignore[arg-type]
    assert report.files == (place,)
    return highdicom.ann.annread(place)


def _find(result: Path, name: str, label: str | None = None) -> pa.Table:
    """Return the objects of a class, in order of identity."""
    table = wsi_unet.open_objects(result, label=label).to_table()
    return table.filter(pc.equal(table["class"], name)).sort_by("id")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of odd size, with unequal pixels that are coarser than the slide's."""
    folder = tmp_path_factory.mktemp("result")
    return make_result(
        folder / "slide.ome.zarr", labels=LABELS[:-3, :-5], downsample=(1.5, 3.25), mpp=(0.25, 0.5)
    )


@pytest.mark.parametrize("name", ["nucleus", "tumour"])
def test_polygons_are_the_outlines(name: str, result: Path, tmp_path: Path) -> None:
    (group,) = _export(result, tmp_path / "a.dcm").get_annotation_groups(label=name)
    expected = _find(result, name)
    found = group.get_graphic_data("2D")
    assert group.number_of_annotations == len(found) == len(expected) > 10
    outlines = shapely.from_wkb(expected["geometry"].to_numpy())
    for corners, outline in zip(found, outlines, strict=True):
        assert not np.array_equal(corners[0], corners[-1])
        exteriors = [shapely.Polygon(part.exterior) for part in shapely.get_parts(outline)]
        x, y = corners.astype(np.float64).T
        area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)
        assert area == shapely.union_all(exteriors).area
        assert {*map(tuple, corners.tolist())} <= {
            tuple(corner) for each in exteriors for corner in shapely.get_coordinates(each).tolist()
        }


def test_measurements_are_those_of_the_table(result: Path, tmp_path: Path) -> None:
    units = {
        ("Area", "area_um2"): "um2",
        ("Perimeter", "perimeter_um"): "um",
        ("Major Axis", "major_axis_um"): "um",
        ("solidity", "solidity"): "1",
        ("orientation", "orientation"): "rad",
        ("area px", "area_px"): "{pixels}",
        ("cut", "cut"): "1",
    }
    dataset = _export(result, tmp_path / "a.dcm")
    for name in ("nucleus", "tumour"):
        (group,) = dataset.get_annotation_groups(label=name)
        expected = _find(result, name)
        names, values, codes = group.get_measurements()
        found = {each.meaning: number for number, each in enumerate(names)}
        for (meaning, column), unit in units.items():
            number = found[meaning]
            assert codes[number].value == unit
            wanted = expected[column].cast(pa.float32()).to_numpy()
            assert np.array_equal(values[:, number], wanted, equal_nan=True)


def test_groups_say_what_they_are(result: Path, tmp_path: Path) -> None:
    dataset = _export(result, tmp_path / "a.dcm")
    nucleus, tumour = dataset.get_annotation_groups()
    assert nucleus.annotated_property_type.meaning == "Nucleus"
    assert tumour.annotated_property_type.meaning == "Neoplasm"
    assert nucleus.AnnotationGroupGenerationType == "AUTOMATIC"
    algorithm = nucleus.algorithm_identification
    assert algorithm is not None
    assert algorithm.family.meaning == "Artificial Intelligence"
    assert nucleus.GraphicType == "POLYGON"
    said = json.loads(dataset.private_block(0x09, "WSI_UNET")[1].value)
    assert said["groups"][0]["rules"]["nucleus"]["split"] == "none"


def test_holes_are_told(result: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = _export(result, tmp_path / "a.dcm")
    holes = total = 0
    for group in dataset.get_annotation_groups():
        outlines = shapely.from_wkb(_find(result, group.label)["geometry"].to_numpy())
        own = sum(any(len(part.interiors) for part in shapely.get_parts(each)) for each in outlines)
        told = f"{own} of {len(outlines)} have holes, which areas leave out."
        assert group.AnnotationGroupDescription.endswith(told)
        holes, total = holes + own, total + len(outlines)
    assert f"{holes:,} of {total:,} objects {HOLES}" in caplog.text


def test_several_label_groups_are_told_apart(tmp_path: Path) -> None:
    result = tmp_path / "slide.ome.zarr"
    make_result(result)
    write_store(result, np.minimum(LABELS, 1), name="cells", classes=("background", "cell"))
    wsi_unet.find_objects(result, label="cells")
    groups = _export(result, tmp_path / "a.dcm").get_annotation_groups()
    assert [group.label for group in groups] == [
         "nuclei: nucleus", "nuclei: tumour", "cells: cell",
    ]  # fmt: skip
    (only,) = _export(result, tmp_path / "b.dcm", label="cells").get_annotation_groups()
    assert (only.label, len(only.get_graphic_data("2D"))) == (
        "cell", len(_find(result, "cell", "cells")),
    )  # fmt: skip


def test_slides_of_unknown_pixel_size_are_measured_in_pixels(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", mpp=None)
    (group,) = _export(result, tmp_path / "a.dcm").get_annotation_groups(label="nucleus")
    names, values, units = group.get_measurements()
    number = [each.meaning for each in names].index("Perimeter")
    assert units[number].value == "{pixels}"
    expected = _find(result, "nucleus")["perimeter_px"].cast(pa.float32()).to_numpy()
    assert np.array_equal(values[:, number], expected)


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    found = set()
    for block in (512, 1024):
        result = make_result(tmp_path / f"{block}" / "slide.ome.zarr", block=block)
        _export(result, tmp_path / "a.dcm")
        found.add((tmp_path / "a.dcm").read_bytes())
    assert len(found) == 1


def test_corners_of_very_large_slides_are_doubles(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", slide_shape=(700, 1 << 18))
    (group,) = _export(result, tmp_path / "a.dcm").get_annotation_groups(label="tumour")
    assert "DoublePointCoordinatesData" not in group
    result = make_result(tmp_path / "larger.ome.zarr", slide_shape=(700, (1 << 18) + 1))
    (wide,) = _export(result, tmp_path / "b.dcm").get_annotation_groups(label="tumour")
    assert "PointCoordinatesData" not in wide
    for narrow, corners in zip(
        group.get_graphic_data("2D"), wide.get_graphic_data("2D"), strict=True
    ):
        assert corners.dtype == np.float64
        assert np.array_equal(narrow, corners)


def test_no_objects_are_refused(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", labels=np.zeros((300, 300), np.uint8))
    with pytest.raises(OutputError, match="there are no objects"):
        wsi_unet.export(result, "dicom-ann", tmp_path / "a.dcm")
    assert not (tmp_path / "a.dcm").exists()


def test_too_many_are_refused(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_unet.exports.dicom.annotations.MOST_BYTES", 10_000)
    with pytest.raises(OutputError, match="outlines of 'nucleus' take more than the 4 GiB"):
        wsi_unet.export(result, "dicom-ann", tmp_path / "a.dcm")
    assert not [*tmp_path.iterdir()]


def test_dciodvfy_finds_no_errors(result: Path, tmp_path: Path) -> None:
    dataset = _export(result, tmp_path / "a.dcm")
    errors = check_dicom(tmp_path / "a.dcm")
    # The release of 2022 says this of every group in two dimensions, where it isn't there either.
    assert all("CommonZCoordinateValue" not in group for group in dataset.AnnotationGroupSequence)
    assert not [line for line in errors if "CommonZCoordinateValue" not in line]


@pytest.mark.parametrize("name", ["dicom-seg", "dicom-ann"])
def test_a_missing_extra_is_named(
    name: str, result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(OptionError, match=r"need highdicom .*pip install 'wsi-unet\[dicom\]'"):
        wsi_unet.export(result, name, tmp_path / "a.dcm")


class TestDicomSlide:
    """The slide itself is DICOM."""

    @pytest.fixture
    def slide(self, shared_data: Path) -> Path:
        return shared_data / "slides" / "camelyon_jpeg.dcm"

    @pytest.fixture
    def result(self, slide: Path, tmp_path: Path) -> Path:
        with open_slide(slide) as opened:
            assert opened.mpp is not None
            options: dict[str, Any] = {
                "labels": LABELS[: opened.shape[0] // 2, : opened.shape[1] // 2],
                "downsample": (2.0, 2.0),
                "mpp": (opened.mpp.y, opened.mpp.x),
                "slide_shape": opened.shape,
                "reference": {
                    "path": str(slide), "reader": "dicom", "fingerprint": opened.fingerprint(),
                },
            }  # fmt: skip
        return make_result(tmp_path / "in" / "slide.ome.zarr", **options)

    @pytest.mark.parametrize("name", ["dicom-seg", "dicom-ann"])
    def test_exports_refer_to_it(
        self, name: str, slide: Path, result: Path, tmp_path: Path
    ) -> None:
        wsi_unet.export(result, name, tmp_path / "a.dcm")
        found, original = pydicom.dcmread(tmp_path / "a.dcm"), pydicom.dcmread(slide)
        assert found.StudyInstanceUID == original.StudyInstanceUID
        (series,) = found.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == original.SeriesInstanceUID
        (image,) = series.ReferencedInstanceSequence
        assert image.ReferencedSOPInstanceUID == original.SOPInstanceUID
        assert found.SpecimenDescriptionSequence[0].SpecimenIdentifier == (
            original.SpecimenDescriptionSequence[0].SpecimenIdentifier
        )

    def test_segmentations_lie_on_it(self, slide: Path, result: Path, tmp_path: Path) -> None:
        wsi_unet.export(result, "dicom-seg", tmp_path / "a.dcm", options=ExportOptions(level=0))
        found, original = highdicom.seg.segread(tmp_path / "a.dcm"), pydicom.dcmread(slide)
        assert found.FrameOfReferenceUID == original.FrameOfReferenceUID
        assert found.ImageOrientationSlide == original.ImageOrientationSlide
        own, other = (
            each.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
            for each in (found, original)
        )
        assert [float(side) for side in own] == pytest.approx([2 * float(side) for side in other])
        pixels = found.get_total_pixel_matrix(combine_segments=True)
        assert np.array_equal(pixels, wsi_unet.open_labels(result).to_numpy())

    def test_what_it_says_itself_is_not_given(self, result: Path, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"`patient_id` can't be given: .* is DICOM and says"):
            _export(result, tmp_path / "a.dcm", patient_id="P1")

    def test_another_slide_is_refused(self, slide: Path, tmp_path: Path) -> None:
        reference = {"path": str(slide), "reader": "dicom", "fingerprint": "another"}
        result = make_result(tmp_path / "in" / "slide.ome.zarr", reference=reference)
        with pytest.raises(SlideError, match="isn't the slide that was segmented"):
            _export(result, tmp_path / "a.dcm")

    def test_a_slide_that_is_gone_is_named(self, tmp_path: Path) -> None:
        gone = tmp_path / "gone.dcm"
        reference = {"path": str(gone), "reader": "dicom", "fingerprint": "x"}
        result = make_result(tmp_path / "in" / "slide.ome.zarr", reference=reference)
        with pytest.raises(SlideError, match=r"gone\.dcm"):
            _export(result, tmp_path / "a.dcm")
        assert not (tmp_path / "a.dcm").exists()
