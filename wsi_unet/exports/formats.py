"""The formats that results are exported in, and which options each takes; nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ExportFormat:
    """A format that results are exported in.

    Attributes:
        suffix: what the names of its files or folders end in.
        summary: what it is, in a few words.
        options: the options that it takes, beside `label`.
        folder: whether an export is a folder rather than a file.
    """

    suffix: str
    summary: str
    options: frozenset[str] = frozenset()
    folder: bool = False


FORMATS: Mapping[str, ExportFormat] = {
    "csv": ExportFormat(".csv", "the table of objects, for spreadsheets"),
    "parquet": ExportFormat(".parquet", "the table of objects in one GeoParquet file"),
    "png": ExportFormat(
        ".png", "one class at one level, as a mask", frozenset({"level", "class_name"})
    ),
    "ome-tiff": ExportFormat(
        ".ome.tiff", "labels, a picture of them, probabilities or the image", frozenset({"what"})
    ),
    "ome-zarr-0.4": ExportFormat(
        ".v04.ome.zarr", "all arrays, for programs that don't read OME-Zarr 0.5", folder=True
    ),
    "qupath": ExportFormat(
        ".geojson.gz",
        "objects as QuPath's detections and annotations",
        frozenset({"class_name", "objects_as", "most_objects"}),
    ),
    "dicom-seg": ExportFormat(
        ".seg.dcm",
        "labels at one level as a DICOM segmentation",
        frozenset({"level", "patient_id", "study_uid", "frame_of_reference_uid"}),
    ),
    "dicom-ann": ExportFormat(
        ".ann.dcm",
        "objects as DICOM bulk annotations",
        frozenset({"patient_id", "study_uid"}),
    ),
    "spatialdata": ExportFormat(
        ".spatialdata.zarr", "labels, objects and image for SpatialData", folder=True
    ),
}
"""Every format by its name, in the order in which they are listed."""
