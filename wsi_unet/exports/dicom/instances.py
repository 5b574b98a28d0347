"""What all DICOM instances of ours have: identity, equipment, dates, provenance; writing them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filereader import read_partial
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.tag import BaseTag, Tag

from wsi_unet._version import __version__
from wsi_unet.errors import OutputError, foreign_errors_as
from wsi_unet.exports.dicom.slide_image import SlideImage
from wsi_unet.exports.dicom.text import cut_text, make_uid
from wsi_unet.exports.provenance import encode, is_ours
from wsi_unet.exports.results import ExportedGroup
from wsi_unet.objects.provenance import CREATOR

PRIVATE_GROUP, PRIVATE_CREATOR, PROVENANCE = 0x0009, "WSI_UNET", 0x01
"""Where an instance keeps provenance, as JSON: (0009,xx01) of the private creator WSI_UNET."""

ENCODING = ["utf8"]
"""Of all texts: the character set ISO_IR 192."""


class Identity(TypedDict):
    """Arguments that every instance of ours is made with."""

    series_instance_uid: str
    series_number: int
    sop_instance_uid: str
    instance_number: int
    manufacturer: str
    manufacturer_model_name: str
    software_versions: str
    device_serial_number: str
    content_label: str
    content_description: str
    content_creator_name: str
    series_description: str
    content_date: str
    content_time: str
    series_date: str
    series_time: str
    specific_character_set: str


def make_identity(
    group: ExportedGroup, image: SlideImage, kind: str, content: object, description: str
) -> Identity:
    """Return the identity of an instance, made of what it holds: the same for the same.

    Args:
        group: a label group that it is of.
        image: what it refers to.
        kind: "SEG" or "ANN".
        content: all that decides what it holds, as JSON-able values.
        description: what it is, for people.
    """
    source = image.dataset
    parts = (
        kind,
        content,
        str(source.SOPInstanceUID),
        str(source.StudyInstanceUID),
        str(source.FrameOfReferenceUID),
        str(source.PatientID),
    )
    finished = datetime.fromisoformat(group.source.finished)
    date, time = finished.strftime("%Y%m%d"), finished.strftime("%H%M%S")
    return Identity(
        series_instance_uid=make_uid(*parts, "series"),
        series_number=1,
        sop_instance_uid=make_uid(*parts, "instance"),
        instance_number=1,
        manufacturer=CREATOR,
        manufacturer_model_name=CREATOR,
        software_versions=__version__,
        device_serial_number=cut_text(group.source.signature) or "unknown",
        content_label=f"WSI_UNET_{kind}",
        content_description=cut_text(description),
        content_creator_name="",
        series_description=cut_text(description),
        content_date=date,
        content_time=time,
        series_date=date,
        series_time=time,
        specific_character_set="ISO_IR 192",
    )


def finish_instance(dataset: Dataset, provenance: dict[str, Any]) -> None:
    """Date an instance by its content, not by the clock, and add its provenance.

    Args:
        dataset: the instance.
        provenance: where it comes from, as JSON-able values.
    """
    dataset.InstanceCreationDate = dataset.ContentDate
    dataset.InstanceCreationTime = dataset.ContentTime
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        if equipment.get("ManufacturerModelName") == "highdicom":
            equipment.ContributionDateTime = f"{dataset.ContentDate}{dataset.ContentTime}"
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(PROVENANCE, "UT", encode(provenance))


def is_instance(path: Path, sop_class: str) -> bool:
    """Return whether a file is an instance of a SOP class that was written here.

    Raises:
        OSError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            dataset = read_partial(file, stop_when=_is_beyond_provenance)
        block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
        return dataset.get("SOPClassUID") == sop_class and is_ours(block[PROVENANCE].value)
    except OSError:
        raise
    except Exception:  # whatever damage leads to
        return False


def _is_beyond_provenance(tag: BaseTag, vr: str | None, length: int) -> bool:
    """Return whether to stop reading, so that no pixels and annotations are."""
    return tag.group > PRIVATE_GROUP


def begin_file(file: BinaryIO, dataset: Dataset, end: int) -> DicomIO:
    """Write an instance up to a tag.

    Args:
        file: where, from its first byte.
        dataset: the instance.
        end: the tag before which to end.

    Returns:
        what the rest is written to.
    """
    file.write(bytes(128) + b"DICM")
    meta: FileMetaDataset = dataset.file_meta
    stream = DicomIO(file)
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_file_meta_info(stream, meta, enforce_standard=True)
    write_dataset(stream, dataset[: Tag(end)], ENCODING)
    return stream


@contextmanager
def library_errors_named(group: ExportedGroup) -> Iterator[None]:
    """Turn errors of DICOM libraries into one line.

    Raises:
        OutputError: they refuse what is to be written.
    """
    with foreign_errors_as(
        OutputError, f"{group.source.store}: can't be made DICOM with what the slide states"
    ):
        yield
