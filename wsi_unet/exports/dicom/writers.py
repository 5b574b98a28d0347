"""The writers of the DICOM formats, which need the extra `dicom`."""

from __future__ import annotations

from pathlib import Path

from wsi_unet.errors import OptionError
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.results import ExportedResult

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
"""SOP class of Label Map Segmentations."""

ANNOTATIONS = "1.2.840.10008.5.1.4.1.1.91.1"
"""SOP class of Microscopy Bulk Simple Annotations."""


def export_dicom_seg(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write the labels at one level as a DICOM segmentation; see `write_segmentation`."""
    _require_extra()
    from wsi_unet.exports.dicom.segmentations import write_segmentation

    return write_segmentation(result, path, options, meter)


def export_dicom_ann(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write the objects as DICOM bulk annotations; see `write_annotations`."""
    _require_extra()
    from wsi_unet.exports.dicom.annotations import write_annotations

    return write_annotations(result, path, options, meter)


def is_dicom_seg(path: Path) -> bool:
    """Return whether a file is a segmentation that `export_dicom_seg` wrote."""
    return _is_instance(path, SEGMENTATION)


def is_dicom_ann(path: Path) -> bool:
    """Return whether a file holds annotations that `export_dicom_ann` wrote."""
    return _is_instance(path, ANNOTATIONS)


def _is_instance(path: Path, sop_class: str) -> bool:
    _require_extra()
    from wsi_unet.exports.dicom.instances import is_instance

    return path.is_file() and is_instance(path, sop_class)


def _require_extra() -> None:
    """Import what DICOM needs.

    Raises:
        OptionError: it isn't installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f"the DICOM formats need highdicom ({error}); pip install 'wsi-unet[dicom]'",
            option="format",
        ) from error
