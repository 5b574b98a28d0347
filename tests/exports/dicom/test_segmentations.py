"""Labels as DICOM segmentations, read back by highdicom and pydicom, checked by dciodvfy."""

from __future__ import annotations

import json
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from exports.results import LABELS, SHAPE, make_result
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.pixels.decoders.rle import _rle_decode_frame
from pydicom.uid import SegmentationStorage
from support.dciodvfy import check_dicom
from support.labelled import write_store

import wsi_unet
from wsi_unet import ExportOptions, OptionError, OutputError
from wsi_unet.exports.dicom import segmentations
from wsi_unet.exports.dicom.frames import encode_frame

REGION = [100, 40, 500, 900]


def _export(result: Path, place: Path, **options: object) -> highdicom.seg.Segmentation:
    report = wsi_unet.export(result, "dicom-seg", place, options=ExportOptions(**options))  # type: ignore[arg-type]
    assert report.files == (place,)
    return highdicom.seg.segread(place)


def _read(segmentation: highdicom.seg.Segmentation) -> NDArray[np.uint8]:
    """Return all its pixels."""
    pixels: NDArray[np.uint8] = segmentation.get_total_pixel_matrix(combine_segments=True)
    return pixels


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of odd size, with unequal pixels that are coarser than the slide's."""
    folder = tmp_path_factory.mktemp("result")
    return make_result(
        folder / "slide.ome.zarr", labels=LABELS[:-3, :-5], downsample=(1.5, 3.25), mpp=(0.25, 0.5)
    )


@pytest.mark.parametrize("level", [0, 1])
def test_pixels_are_those_of_the_level(level: int, result: Path, tmp_path: Path) -> None:
    found = _read(_export(result, tmp_path / "a.dcm", level=level))
    assert np.array_equal(found, wsi_unet.open_labels(result, level=level).to_numpy())


def test_pydicom_reads_the_frames(result: Path, tmp_path: Path) -> None:
    dataset = _export(result, tmp_path / "a.dcm", level=0)
    frames = pydicom.dcmread(tmp_path / "a.dcm").pixel_array
    assert frames.shape == (dataset.NumberOfFrames, 512, 512) == (6, 512, 512)
    rows = [np.concatenate([*frames[start : start + 3]], axis=1) for start in (0, 3)]
    whole = np.concatenate(rows)
    expected = np.zeros_like(whole)
    expected[: SHAPE[0] - 3, : SHAPE[1] - 5] = LABELS[:-3, :-5]
    assert np.array_equal(whole, expected)


def test_levels_lie_where_they_are_on_the_slide(result: Path, tmp_path: Path) -> None:
    for level in (0, 1):
        dataset = _export(result, tmp_path / "a.dcm", level=level)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        spacing = [float(side) for side in shared.PixelMeasuresSequence[0].PixelSpacing]
        scale = 1 << level
        assert spacing == [0.25 * 1.5 / 1000 * scale, 0.5 * 3.25 / 1000 * scale]
        origin = dataset.TotalPixelMatrixOriginSequence[0]
        assert (origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem) == (
            0,
            0,
        )


@pytest.mark.parametrize(("mpp", "level"), [((0.5, 0.5), 2), ((1.0, 1.0), 1), ((8.0, 8.0), 0)])
def test_the_level_nearest_to_2_um_is_taken(
    mpp: tuple[float, float], level: int, tmp_path: Path
) -> None:
    store = write_store(tmp_path / "a.ome.zarr", np.zeros((1500, 1500), np.uint8), mpp=mpp)
    found = _export(store, tmp_path / "a.dcm")
    assert found.TotalPixelMatrixRows == wsi_unet.open_labels(store, level=level).shape[0]


def test_segments_say_what_they_are(result: Path, tmp_path: Path) -> None:
    dataset = _export(result, tmp_path / "a.dcm")
    assert dataset.segment_numbers == [1, 2]
    nucleus, tumour = (dataset.get_segment_description(number) for number in (1, 2))
    assert (nucleus.segment_label, tumour.segment_label) == ("nucleus", "tumour")
    assert nucleus.segmented_property_type.meaning == "Nucleus"
    assert tumour.segmented_property_category.meaning == "Morphologically Abnormal Structure"
    shown = CIELabColor.from_dicom_value([*nucleus.RecommendedDisplayCIELabValue]).to_rgb()
    assert np.allclose(shown, (0x2A, 0x6F, 0xDB), atol=1)
    algorithm = nucleus.algorithm_identification
    assert algorithm is not None
    assert algorithm.family.meaning == "Artificial Intelligence"


def test_where_the_model_did_not_look_is_no_background(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", regions=[REGION])
    dataset = _export(result, tmp_path / "a.dcm", level=0)
    assert dataset.get_segment_description(255).segment_label == "Not predicted"
    seen = np.zeros(SHAPE, np.bool_)
    y0, x0, y1, x1 = REGION
    seen[y0:y1, x0:x1] = True
    assert np.array_equal(_read(dataset), np.where(seen, LABELS, 255))


def test_classes_that_nobody_knows_are_tissue(tmp_path: Path) -> None:
    name = "Ä\\B " + "x" * 80
    result = make_result(tmp_path / "slide.ome.zarr", classes=("background", name, "tumour"))
    dataset = _export(result, tmp_path / "a.dcm")
    segment = dataset.get_segment_description(1)
    assert segment.segment_label == "Ä B " + "x" * 59
    assert segment.segmented_property_type.meaning == "Tissue"


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    found = set()
    for block in (512, 1024):
        result = make_result(tmp_path / f"{block}" / "slide.ome.zarr", block=block)
        _export(result, tmp_path / "a.dcm", level=0)
        found.add((tmp_path / "a.dcm").read_bytes())
    assert len(found) == 1


def test_it_says_where_it_comes_from(result: Path, tmp_path: Path) -> None:
    dataset = _export(result, tmp_path / "a.dcm")
    said = json.loads(dataset.private_block(0x09, "WSI_UNET")[1].value)
    assert said["groups"][0]["fingerprint"] == "a slide"
    assert f"{dataset.ContentDate}{dataset.ContentTime}" == "20260102030405"
    assert dataset.Manufacturer == "wsi-unet"


def test_uids_belong_together_and_can_be_given(result: Path, tmp_path: Path) -> None:
    first = _export(result, tmp_path / "a.dcm", level=0)
    second = _export(result, tmp_path / "b.dcm", level=1)
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    given = _export(
        result, tmp_path / "c.dcm", level=0, patient_id="P 1", study_uid="1.2.3",
        frame_of_reference_uid="2.25.7",
    )  # fmt: skip
    assert given.PatientID == "P 1"
    assert (given.StudyInstanceUID, given.FrameOfReferenceUID) == ("1.2.3", "2.25.7")
    assert given.SOPInstanceUID != first.SOPInstanceUID


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(level=9), "have levels 0 to"),
        (ExportOptions(study_uid="1.02"), "`study_uid` is '1.02', which is no DICOM UID"),
        (ExportOptions(frame_of_reference_uid=""), "which is no DICOM UID"),
        (ExportOptions(study_uid="1." + "2" * 63), "at most 64"),
        (ExportOptions(patient_id="a\\b"), "none of them a backslash"),
        (ExportOptions(patient_id=" "), "DICOM takes 1 to 64 bytes"),
    ],
)
def test_refusals(options: ExportOptions, message: str, result: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        wsi_unet.export(result, "dicom-seg", tmp_path / "a.dcm", options=options)
    assert not [*tmp_path.iterdir()]


def test_pixels_of_unknown_size_are_refused(tmp_path: Path) -> None:
    result = make_result(tmp_path / "slide.ome.zarr", mpp=None)
    with pytest.raises(OutputError, match=r"pixel size isn't known, .* segment again with `mpp`"):
        wsi_unet.export(result, "dicom-seg", tmp_path / "a.dcm")


def test_levels_that_are_too_large_are_refused(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentations, "MOST_PIXELS", 300_000)
    with pytest.raises(OptionError, match=r"`level` 0 has 763,215 pixels, .* give 1 or more"):
        wsi_unet.export(result, "dicom-seg", tmp_path / "a.dcm", options=ExportOptions(level=0))


@pytest.mark.parametrize("name", ["patient_id", "study_uid", "frame_of_reference_uid"])
def test_a_cohort_is_not_one_slide(name: str, tmp_path: Path) -> None:
    for stem in ("a", "b"):
        write_store(tmp_path / "in" / f"{stem}.ome.zarr", LABELS[:100, :100])
    options = ExportOptions(**{name: "1.2.3"})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=f"`{name}` can be true of one slide only"):
        wsi_unet.export(tmp_path / "in", "dicom-seg", tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_damaged_files_are_not_replaced(result: Path, tmp_path: Path) -> None:
    _export(result, tmp_path / "a.dcm", level=0)
    whole = (tmp_path / "a.dcm").read_bytes()
    wrong = whole.replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x16\x00UY", 1)
    assert wrong != whole
    for damaged in (whole[:140], whole[:300], wrong, b"DICM" * 40):
        (tmp_path / "a.dcm").write_bytes(damaged)
        with pytest.raises(OutputError, match="isn't an earlier export"):
            wsi_unet.export(result, "dicom-seg", tmp_path / "a.dcm")
        assert (tmp_path / "a.dcm").read_bytes() == damaged


@pytest.mark.parametrize("kind", ["noise", "blank", "runs"])
def test_frames_are_run_length_encoded(kind: str) -> None:
    random = np.random.default_rng(1)
    tile = {
        "noise": random.integers(0, 256, (64, 512), np.uint8),
        "blank": np.zeros((512, 512), np.uint8),
        "runs": random.integers(0, 3, (512, 16), np.uint8).repeat(32, 1),
    }[kind]
    decoded = _rle_decode_frame(encode_frame(tile), tile.shape[0], tile.shape[1], 1, 8)
    assert np.array_equal(np.frombuffer(decoded, np.uint8).reshape(tile.shape), tile)


def test_dciodvfy_finds_no_errors(result: Path, tmp_path: Path) -> None:
    """As of 2022 it knows segmentations, but not those that are label maps or in full tiles."""
    dataset = _export(result, tmp_path / "a.dcm")
    known = SegmentationStorage
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = known
    dataset.save_as(tmp_path / "b.dcm")
    unknown = (
        "SegmentNumber",  # of the background, 0
        "Unrecognized enumerated value = <LABELMAP>",
        "PatientOrientation",  # not of slides, which have ImageOrientationSlide
        "Module=<PlanePositionMacro>",
        "Module=<PlaneOrientationMacro>",
        "Module=<PlanePositionSlideMacro>",  # absent where tiles are full
        "Module=<SegmentationMacro>",  # absent in label maps
        "Module=<MultiFrameFunctionalGroupsForSegmentation>",
    )
    errors = check_dicom(tmp_path / "b.dcm")
    assert not [line for line in errors if not any(each in line for each in unknown)]
