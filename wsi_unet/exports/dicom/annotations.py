"""Objects as DICOM bulk annotations: a group per class, a polygon per object."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from highdicom.ann import (
    AnnotationCoordinateTypeValues,
    AnnotationGroup,
    AnnotationGroupGenerationTypeValues,
    GraphicTypeValues,
    Measurements,
    MicroscopyBulkSimpleAnnotations,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from wsi_unet import logs
from wsi_unet.errors import OutputError
from wsi_unet.exports.destination import write_errors, write_file
from wsi_unet.exports.dicom.codes import find_codes, identify_algorithm, to_cielab
from wsi_unet.exports.dicom.instances import (
    ENCODING,
    begin_file,
    finish_instance,
    library_errors_named,
    make_identity,
)
from wsi_unet.exports.dicom.measured import Measure, find_measures, to_values
from wsi_unet.exports.dicom.outer_rings import find_outer_rings
from wsi_unet.exports.dicom.slide_image import SlideImage, open_slide_image
from wsi_unet.exports.dicom.text import cut_text, make_uid
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.results import ExportedGroup, ExportedObjects, ExportedResult

FLOAT32_SIDE = 1 << 18
"""Sides of slides in float32, px: corners are at most 1/128 px off, and whole numbers exact."""

MOST_BYTES = (1 << 32) - 2
"""Most bytes of the coordinates of a group: the longest that a DICOM element can be."""

_GROUPS = 0x006A0002
_AFTER_GROUPS = 0x006A0003
_POINTS, _DOUBLE_POINTS = 0x00660016, 0x00660022
_UNDEFINED = b"\xff\xff\xff\xff"
_STUB = [np.array([[0, 0], [1, 0], [1, 1]], np.float32)]
"""What highdicom describes a group with; the coordinates themselves stay on the disk."""


@dataclass
class ClassAnnotations:
    """The annotations of one class of a label group, while they are gathered.

    Attributes:
        group: the label group.
        value: the class's label value.
        coordinates: a file with x and y of all corners.
        corners: the number of corners of each annotation, by batch.
        measured: values by column, by batch.
        with_holes: number of objects with holes.
    """

    group: ExportedGroup
    value: int
    coordinates: IO[bytes]
    corners: list[NDArray[np.int64]] = field(default_factory=list)
    measured: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    with_holes: int = 0

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.group.source.classes[self.value]

    def __len__(self) -> int:
        return sum(map(len, self.corners))


def write_annotations(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write all objects of a result as Microscopy Bulk Simple Annotations.

    A polygon is an object's outer outline; holes are left out, and a warning says of how many
    objects.

    Raises:
        OptionError: an option is unusable.
        OutputError: the result has no objects, or too many of a class.
        SlideError: the slide is DICOM and isn't where it was, or isn't the same any more.
    """
    found = {group.name: group.open_objects() for group in result.groups}
    image = open_slide_image(result.groups[0], options)
    meter.start(sum(map(len, found.values())), "objects")
    with write_errors(path), ExitStack() as stack:

        def open_scratch() -> IO[bytes]:
            return stack.enter_context(tempfile.TemporaryFile(dir=path.parent))

        dtype = _choose_dtype(image)
        gathered: list[ClassAnnotations] = []
        for group in result.groups:
            classes = {
                value: ClassAnnotations(group, value, open_scratch())
                for value in group.source.classes
            }
            _gather(classes, found[group.name], dtype, meter)
            gathered += [each for each in classes.values() if len(each)]
        if not gathered:
            raise OutputError(f"{result.location}: there are no objects, and DICOM needs some")
        with library_errors_named(result.groups[0]):
            dataset, items = _describe(result, found, image, gathered, dtype)
        with write_file(path) as file:
            stream = begin_file(file, dataset, _GROUPS)
            _write_groups(file, stream, items, gathered, dtype)
            write_dataset(stream, dataset[Tag(_AFTER_GROUPS) :], ENCODING)
    _tell_holes(path, gathered)
    return [path]


def _choose_dtype(image: SlideImage) -> np.dtype[np.float32] | np.dtype[np.float64]:
    sides = image.dataset.TotalPixelMatrixRows, image.dataset.TotalPixelMatrixColumns
    return np.dtype(np.float32) if max(sides) <= FLOAT32_SIDE else np.dtype(np.float64)


def _gather(
    classes: Mapping[int, ClassAnnotations],
    objects: ExportedObjects,
    dtype: np.dtype[np.float32] | np.dtype[np.float64],
    meter: ExportMeter,
) -> None:
    """Sort the objects of a label group by class, each in order of identity."""
    measures = find_measures(objects.schema)
    columns = ["label", "geometry", *(measure.column for measure in measures)]
    for table in objects.read_rows(columns):
        for value, own in classes.items():
            rows = table.filter(pc.equal(table["label"], value))
            if len(rows):
                _add_rows(own, rows, measures, dtype)
        meter.add(len(table))


def _add_rows(
    own: ClassAnnotations,
    rows: pa.Table,
    measures: Sequence[Measure],
    dtype: np.dtype[np.float32] | np.dtype[np.float64],
) -> None:
    """Add objects of a class.

    Raises:
        OutputError: their coordinates are more than a DICOM element can hold.
    """
    rings = find_outer_rings(shapely.from_wkb(rows["geometry"].to_numpy()))
    own.coordinates.write(rings.coordinates.astype(dtype).tobytes())
    if own.coordinates.tell() > MOST_BYTES:
        raise OutputError(
            f"{own.group.source.store}: the outlines of {own.name!r} take more than the 4 GiB that "
            "DICOM can hold in a group; export them as parquet"
        )
    own.corners.append(rings.corners)
    own.with_holes += rings.with_holes
    for measure in measures:
        own.measured.setdefault(measure.column, []).append(to_values(rows[measure.column]))


def _describe(
    result: ExportedResult,
    found: Mapping[str, ExportedObjects],
    image: SlideImage,
    gathered: Sequence[ClassAnnotations],
    dtype: np.dtype[np.float32] | np.dtype[np.float64],
) -> tuple[Dataset, list[Dataset]]:
    """Return the instance, and its groups without coordinates."""
    provenance = result.describe(found)
    identity = make_identity(
        result.groups[0],
        image,
        "ANN",
        provenance,
        f"Objects of {', '.join(group.name for group in result.groups)}",
    )
    several = len(result.groups) > 1
    items = [
        _describe_group(number, own, found[own.group.name], several=several)
        for number, own in enumerate(gathered, 1)
    ]
    dataset = MicroscopyBulkSimpleAnnotations(
        source_images=[image.dataset],
        annotation_coordinate_type=AnnotationCoordinateTypeValues.SCOORD,
        annotation_groups=items,
        **identity,
    )
    finish_instance(dataset, provenance)
    return dataset, [*items]


def _describe_group(
    number: int, own: ClassAnnotations, objects: ExportedObjects, *, several: bool
) -> AnnotationGroup:
    """Return the description of a class's annotations, with their indices and measurements."""
    label = f"{own.group.name}: {own.name}" if several else own.name
    category, kind = find_codes(own.name)
    item = AnnotationGroup(
        number=number,
        uid=make_uid(objects.record.signature, own.group.name, own.value, "annotations"),
        label=cut_text(label) or f"class {own.value}",
        annotated_property_category=category,
        annotated_property_type=kind,
        graphic_type=GraphicTypeValues.POLYGON,
        graphic_data=_STUB,
        algorithm_type=AnnotationGroupGenerationTypeValues.AUTOMATIC,
        algorithm_identification=identify_algorithm(own.group),
        measurements=None,
        description=(
            f"{label}: outer outlines of objects, in order of identity. {own.with_holes} of "
            f"{len(own)} have holes, which areas leave out."
        ),
        display_color=to_cielab(own.group.colours[own.value]),
    )
    del item.PointCoordinatesData
    item.NumberOfAnnotations = len(own)
    corners = np.concatenate(own.corners)
    starts = 1 + 2 * (np.cumsum(corners) - corners)
    item.LongPrimitivePointIndexList = starts.astype("<i4").tobytes()
    item.MeasurementsSequence = _measure(own, objects)
    return item


def _measure(own: ClassAnnotations, objects: ExportedObjects) -> list[Measurements]:
    """Return what is measured of a class's objects, and known of any of them."""
    made = []
    for measure in find_measures(objects.schema):
        values = np.concatenate(own.measured[measure.column])
        if not np.isnan(values).all():
            made.append(measure.make(values))
    return made


def _write_groups(
    file: BinaryIO,
    stream: DicomIO,
    items: Sequence[Dataset],
    gathered: Sequence[ClassAnnotations],
    dtype: np.dtype[np.float32] | np.dtype[np.float64],
) -> None:
    """Write the element AnnotationGroupSequence; coordinates are copied from their files."""
    tag, vr = (_POINTS, b"OF") if dtype.itemsize == 4 else (_DOUBLE_POINTS, b"OD")
    file.write(_encode_tag(_GROUPS) + b"SQ\0\0" + _UNDEFINED)
    for item, own in zip(items, gathered, strict=True):
        file.write(_encode_tag(0xFFFEE000) + _UNDEFINED)
        write_dataset(stream, item[: Tag(tag)], ENCODING)
        length = own.coordinates.tell()
        file.write(_encode_tag(tag) + vr + b"\0\0" + struct.pack("<I", length))
        own.coordinates.seek(0)
        shutil.copyfileobj(own.coordinates, file, 1 << 20)
        write_dataset(stream, item[Tag(tag) :], ENCODING)
        file.write(_encode_tag(0xFFFEE00D) + bytes(4))
    file.write(_encode_tag(0xFFFEE0DD) + bytes(4))


def _encode_tag(tag: int) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def _tell_holes(path: Path, gathered: Sequence[ClassAnnotations]) -> None:
    """Tell the user what polygons couldn't hold."""
    holes = sum(own.with_holes for own in gathered)
    if holes:
        logs.warn(
            f"{path}: {holes:,} of {sum(map(len, gathered)):,} objects have holes, which DICOM "
            "polygons can't; their outer outlines are written, and their areas leave holes out",
            holes=holes,
        )
