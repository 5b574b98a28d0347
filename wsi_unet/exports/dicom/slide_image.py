"""The DICOM image of a slide that exports refer to: the slide itself, or one made up for it."""

from __future__ import annotations

from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import VLWholeSlideMicroscopyImageStorage
from pydicom.valuerep import DSfloat

from wsi_unet.errors import OptionError, OutputError, SlideError, foreign_errors_as
from wsi_unet.exports.dicom.text import check_patient_id, check_uid, cut_text, make_uid
from wsi_unet.exports.options import OF_ONE_SLIDE, ExportOptions
from wsi_unet.exports.results import ExportedGroup
from wsi_unet.locations import Location
from wsi_unet.objects.intensities.slide_pixels import SlideReference

_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
"""Attributes of type 2: they must be there, and may be empty."""

TILE = 256
"""Side of the tiles of an image that is made up, px."""

_ORIENTATION = [0, -1, 0, -1, 0, 0]
"""Rows run along −y and columns along −x of the slide: its label is at the left, as scanners put
it."""


@dataclass(frozen=True, eq=False)
class SlideImage:
    """The image that an export refers to.

    Attributes:
        dataset: its header.
        spacing: (y, x) size of its pixels, mm; None where that isn't known.
        real: whether the slide is that DICOM image.
    """

    dataset: Dataset
    spacing: tuple[float, float] | None
    real: bool


def open_slide_image(group: ExportedGroup, options: ExportOptions) -> SlideImage:
    """Return the image of the slide that the labels of a group are of.

    Raises:
        OptionError: an option is unusable, or says what the slide says itself.
        SlideError: the slide is DICOM and isn't where it was, or isn't the same any more.
        OutputError: nothing says what the slide is.
    """
    reference = group.source.slide.reference
    if reference is not None and reference.reader == "dicom":
        for name in OF_ONE_SLIDE:
            if getattr(options, name) is not None:
                raise OptionError(
                    f"`{name}` can't be given: {reference.path} is DICOM and says it itself",
                    option=name,
                )
        return _read_slide_image(reference)
    return _make_slide_image(group, options)


def _read_slide_image(reference: SlideReference) -> SlideImage:
    """Return the header of the finest level of a DICOM slide."""
    from wsi_unet.slides.readers.dicom import DicomReader

    path = reference.path
    reader = DicomReader(Location.parse(path), reference.series)
    try:
        if reader.fingerprint() != reference.fingerprint:
            raise SlideError(
                f"{path} isn't the slide that was segmented, so what is exported wouldn't belong "
                "to it; put that slide there"
            )
        files, shape = reader.files, reader.levels[0].shape
    finally:
        reader.close()
    with foreign_errors_as(SlideError, f"{path}: its header can't be read"):
        for file in files:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
            if _is_level(dataset, shape):
                break
        else:
            raise SlideError(f"{path}: no file holds its finest level by itself")
        dataset.decode()
        _complete(dataset, path)
        return SlideImage(dataset, _read_spacing(dataset), real=True)


def _is_level(dataset: Dataset, shape: tuple[int, int]) -> bool:
    """Return whether a file is the slide's level of a shape."""
    kind = [str(part).upper() for part in dataset.get("ImageType", ())]
    own = dataset.get("TotalPixelMatrixRows"), dataset.get("TotalPixelMatrixColumns")
    return kind[2:3] == ["VOLUME"] and own == shape


def _complete(dataset: Dataset, path: str) -> None:
    """Add what may be empty and isn't there; refuse a slide without what references need."""
    for keyword in _MAY_BE_EMPTY:
        if keyword not in dataset:
            setattr(dataset, keyword, "")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if not dataset.get(keyword):
            raise SlideError(f"{path}: it has no {keyword}, which what is exported must refer to")
    if "TotalPixelMatrixOriginSequence" not in dataset:
        dataset.TotalPixelMatrixOriginSequence = Sequence([_make_origin()])


def _read_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Return the (y, x) size of a pixel as the image states it, mm."""
    for shared in dataset.get("SharedFunctionalGroupsSequence", ()):
        for measures in shared.get("PixelMeasuresSequence", ()):
            spacing = measures.get("PixelSpacing")
            if spacing and min(map(float, spacing)) > 0:
                return float(spacing[0]), float(spacing[1])
    return None


def _make_slide_image(group: ExportedGroup, options: ExportOptions) -> SlideImage:
    """Return the header of an image that stands for a slide which isn't DICOM.

    Its UIDs are made of the slide's fingerprint, so that all exports of the slide belong together.
    """
    slide = group.source.provenance.slide
    if not slide.fingerprint:
        raise OutputError(
            f"{group.source.store}: nothing says which slide the labels are of, and DICOM must "
            "refer to it; segment again"
        )
    height, width = group.source.downsample
    rows, columns = slide.shape or (
        round(group.source.grid.shape[0] * height),
        round(group.source.grid.shape[1] * width),
    )
    spacing = None
    if group.source.micrometres:
        y, x = group.source.pixel_size
        spacing = y / height / 1000, x / width / 1000
    dataset = Dataset()
    for keyword in _MAY_BE_EMPTY:
        setattr(dataset, keyword, "")
    dataset.PositionReferenceIndicator = "SLIDE_CORNER"
    if options.patient_id is not None:
        dataset.PatientID = check_patient_id(options.patient_id)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    dataset.Modality = "SM"
    _add_uids(dataset, slide.fingerprint, options)
    _add_specimen(dataset, cut_text(slide.name) or slide.fingerprint[:16], slide.fingerprint)
    _add_pixels(dataset, rows, columns)
    if spacing is not None:
        _add_spacing(dataset, spacing)
    return SlideImage(dataset, spacing, real=False)


def _add_uids(dataset: Dataset, fingerprint: str, options: ExportOptions) -> None:
    dataset.SOPInstanceUID = make_uid(fingerprint, "image")
    dataset.SeriesInstanceUID = make_uid(fingerprint, "series")
    dataset.StudyInstanceUID = make_uid(fingerprint, "study")
    dataset.FrameOfReferenceUID = make_uid(fingerprint, "frame of reference")
    if options.study_uid is not None:
        dataset.StudyInstanceUID = check_uid(options.study_uid, "study_uid")
    if options.frame_of_reference_uid is not None:
        given = options.frame_of_reference_uid
        dataset.FrameOfReferenceUID = check_uid(given, "frame_of_reference_uid")


def _add_specimen(dataset: Dataset, name: str, fingerprint: str) -> None:
    """Add the Specimen module: a glass slide that is named after its file."""
    kind = Dataset()
    kind.CodeValue, kind.CodingSchemeDesignator = "433466003", "SCT"
    kind.CodeMeaning = "Microscope slide"
    specimen = Dataset()
    specimen.SpecimenIdentifier = name
    specimen.SpecimenUID = make_uid(fingerprint, "specimen")
    specimen.IssuerOfTheSpecimenIdentifierSequence = Sequence()
    specimen.SpecimenPreparationSequence = Sequence()
    dataset.ContainerIdentifier = name
    dataset.IssuerOfTheContainerIdentifierSequence = Sequence()
    dataset.ContainerTypeCodeSequence = Sequence([kind])
    dataset.SpecimenDescriptionSequence = Sequence([specimen])


def _add_pixels(dataset: Dataset, rows: int, columns: int) -> None:
    """Add the size of the image and where it is on the slide."""
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.Rows = dataset.Columns = TILE
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = rows, columns
    dataset.NumberOfFrames = -(-rows // TILE) * -(-columns // TILE)
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.ImageOrientationSlide = _ORIENTATION
    dataset.TotalPixelMatrixOriginSequence = Sequence([_make_origin()])


def _add_spacing(dataset: Dataset, spacing: tuple[float, float]) -> None:
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [DSfloat(side, auto_format=True) for side in spacing]
    measures.SliceThickness = 0.001
    shared.PixelMeasuresSequence = Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])


def _make_origin() -> Dataset:
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = 0
    origin.YOffsetInSlideCoordinateSystem = 0
    origin.ZOffsetInSlideCoordinateSystem = 0
    return origin
