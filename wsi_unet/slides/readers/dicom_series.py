"""The series in DICOM files: each is an image of its own, of which one is the slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from wsi_unet.geometry import Shape
from wsi_unet.slides.series import Series, is_associated

WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""The SOP class of whole-slide images."""
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""What the files of one pyramid have in common, to wsidicom as well."""
_TAGS = (
    *_IDENTITY,
    "SOPClassUID",
    "SeriesDescription",
    "ImageType",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
)


@dataclass
class DicomSeries:
    """The files of one series that hold levels of a slide.

    Attributes:
        name: its description; "" if it has none.
        shapes: (rows, columns) of each file's level, px.
        files: the files.
    """

    name: str
    shapes: list[Shape] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def describe(self) -> Series:
        """Return what it is, for choosing among several."""
        finest = max(self.shapes, key=lambda shape: shape[0] * shape[1])
        return Series(self.name, finest, len(set(self.shapes)), is_associated(self.name))


def find_series(files: Sequence[Path]) -> list[DicomSeries]:
    """Return the series of whole-slide images among DICOM files, in the order of the files."""
    found: dict[tuple[str, ...], DicomSeries] = {}
    for path in files:
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            kind = [str(part).upper() for part in dataset.get("ImageType", ())]
            if dataset.get("SOPClassUID") != WHOLE_SLIDE_IMAGE or kind[2:3] != ["VOLUME"]:
                continue
            shape = int(dataset.TotalPixelMatrixRows), int(dataset.TotalPixelMatrixColumns)
        except Exception:  # whatever damage leads to; wsidicom passes over such files, too
            continue
        identity = tuple(str(dataset.get(tag, "")) for tag in _IDENTITY)
        name = str(dataset.get("SeriesDescription") or "")
        series = found.setdefault(identity, DicomSeries(name))
        series.shapes.append(shape)
        series.files.append(path)
    return list(found.values())
