"""What writes each format, and what knows its files again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_unet.exports.destination import Recognise
from wsi_unet.exports.dicom.writers import (
    export_dicom_ann,
    export_dicom_seg,
    is_dicom_ann,
    is_dicom_seg,
)
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.pictures import export_png, is_png
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.pyramids.ome_tiff import export_ome_tiff, is_ome_tiff
from wsi_unet.exports.pyramids.ome_zarr import export_ome_zarr_04, is_ome_zarr_04
from wsi_unet.exports.qupath.export import export_qupath
from wsi_unet.exports.qupath.parts import is_qupath
from wsi_unet.exports.results import ExportedResult
from wsi_unet.exports.spatialdata.writing import export_spatialdata, is_spatialdata
from wsi_unet.exports.tables import export_csv, export_parquet, is_csv, is_parquet

Write = Callable[[ExportedResult, Path, ExportOptions, ExportMeter], list[Path]]
"""Writes a result to a path; returns the files or folders that it made."""


@dataclass(frozen=True)
class Writer:
    """What knows a format.

    Attributes:
        write: writes a result, whole or not at all.
        recognise: says whether a file or folder is an earlier export in the format.
    """

    write: Write
    recognise: Recognise


WRITERS: Mapping[str, Writer] = {
    "csv": Writer(export_csv, is_csv),
    "parquet": Writer(export_parquet, is_parquet),
    "png": Writer(export_png, is_png),
    "ome-tiff": Writer(export_ome_tiff, is_ome_tiff),
    "ome-zarr-0.4": Writer(export_ome_zarr_04, is_ome_zarr_04),
    "qupath": Writer(export_qupath, is_qupath),
    "dicom-seg": Writer(export_dicom_seg, is_dicom_seg),
    "dicom-ann": Writer(export_dicom_ann, is_dicom_ann),
    "spatialdata": Writer(export_spatialdata, is_spatialdata),
}
"""The writer of each of `FORMATS`."""
