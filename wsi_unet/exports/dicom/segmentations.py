"""Labels at one level as a DICOM segmentation: a label map in tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from highdicom import (
    DimensionOrganizationTypeValues,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
)
from highdicom.enum import CoordinateSystemNames
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import RLELossless

from wsi_unet.colour import Colour
from wsi_unet.errors import OptionError, OutputError
from wsi_unet.exports.destination import write_file
from wsi_unet.exports.dicom.codes import find_codes, identify_algorithm, to_cielab
from wsi_unet.exports.dicom.frames import count_tiles, write_frames
from wsi_unet.exports.dicom.instances import (
    begin_file,
    finish_instance,
    library_errors_named,
    make_identity,
)
from wsi_unet.exports.dicom.measured import SCHEME
from wsi_unet.exports.dicom.slide_image import SlideImage, open_slide_image
from wsi_unet.exports.dicom.text import cut_text, make_uid
from wsi_unet.exports.options import ExportOptions
from wsi_unet.exports.progress import ExportMeter
from wsi_unet.exports.pyramids.tiles import TILE
from wsi_unet.exports.results import NOT_PREDICTED, ExportedGroup, ExportedLevel, ExportedResult

TYPICAL_MPP = 2.0
"""Pixel size of the level that is taken where none is named, µm: what viewers of regions need."""

MOST_PIXELS = 2_000_000_000
"""Pixels of a level that is exported: frames are found by offsets of 32 bits."""

_NOT_PREDICTED_LABEL = NOT_PREDICTED.capitalize()
_NOT_PREDICTED_COLOUR: Colour = (128, 128, 128)
_NOT_PREDICTED_CODES = (
    Code("309825002", "SCT", "Spatial and Relational Concept"),
    Code("NOT_PREDICTED", SCHEME, _NOT_PREDICTED_LABEL),
)
_PIXEL_DATA = 0x7FE00010


def write_segmentation(
    result: ExportedResult, path: Path, options: ExportOptions, meter: ExportMeter
) -> list[Path]:
    """Write the labels at one level as a Label Map Segmentation, run-length encoded.

    Values are those of the labels; pixels that the model didn't look at have a segment of their
    own, as far as there are any.

    Raises:
        OptionError: there is no such level, it has too many pixels, or an option is unusable.
        OutputError: the result has several label groups, its pixel size isn't known, or a shard is
            damaged.
        SlideError: the slide is DICOM and isn't where it was, or isn't the same any more.
    """
    group = result.only_group
    number = _choose_level(group, options.level)
    level = group.open_level(number)
    image = open_slide_image(group, options)
    not_predicted = group.find_not_predicted_value()
    with library_errors_named(group):
        dataset = _describe(result, group, level, image, not_predicted)
    meter.start(level.shape[0] * level.shape[1], "px")
    with write_file(path) as file:
        begin_file(file, dataset, _PIXEL_DATA)
        write_frames(file, level, not_predicted, meter)
    return [path]


def _choose_level(group: ExportedGroup, wanted: int | None) -> int:
    """Return the level to export: the one that is wanted, or the one nearest to `TYPICAL_MPP`.

    Raises:
        OptionError: there is no such level, or it has too many pixels.
        OutputError: its pixel size isn't known.
    """
    levels = [group.open_level(number) for number in range(group.levels)]
    if wanted is not None:
        group.open_level(wanted)  # or it refuses
    if not group.source.micrometres:
        raise OutputError(
            f"{group.source.store}: the slide's pixel size isn't known, and DICOM segmentations "
            "need it; segment again with `mpp`"
        )
    affordable = [n for n, level in enumerate(levels) if math.prod(level.shape) <= MOST_PIXELS]
    if wanted is None:
        return min(affordable, key=lambda number: _measure_distance(levels[number]))
    if wanted not in affordable:
        pixels = math.prod(levels[wanted].shape)
        raise OptionError(
            f"`level` {wanted} has {pixels:,} pixels, and a DICOM segmentation can have "
            f"{MOST_PIXELS:,}; give {min(affordable)} or more",
            option="level",
        )
    return wanted


def _measure_distance(level: ExportedLevel) -> float:
    """Return how far, on a scale of factors, the pixel size of a level is from `TYPICAL_MPP`."""
    height, width = level.mpp or (TYPICAL_MPP, TYPICAL_MPP)
    return abs(math.log(height * width / TYPICAL_MPP**2))


def _describe(
    result: ExportedResult,
    group: ExportedGroup,
    level: ExportedLevel,
    image: SlideImage,
    not_predicted: int | None,
) -> Segmentation:
    """Return the segmentation without its pixels.

    highdicom describes it as if slide and labels were one empty tile, since it would hold all tiles
    in memory; then the size is set.
    """
    provenance = result.describe()
    identity = make_identity(
        group, image, "SEG", [provenance, level.stored.level], f"Classes of {group.name}"
    )
    height, width = _find_spacing(level, image)
    dataset = Segmentation(
        source_images=[_shrink(image.dataset)],
        pixel_array=np.zeros((1, TILE, TILE), np.uint8),
        segmentation_type=SegmentationTypeValues.LABELMAP,
        segment_descriptions=_describe_segments(group, not_predicted),
        transfer_syntax_uid=RLELossless,
        pixel_measures=PixelMeasuresSequence((height, width), slice_thickness=0.001),
        plane_orientation=PlaneOrientationSequence(
            CoordinateSystemNames.SLIDE, list(image.dataset.ImageOrientationSlide)
        ),
        plane_positions=[_find_position(image)],
        omit_empty_frames=False,
        dimension_organization_type=DimensionOrganizationTypeValues.TILED_FULL,
        tile_pixel_array=True,
        tile_size=(TILE, TILE),
        **identity,
    )
    del dataset.PixelData
    rows, columns = level.shape
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = rows, columns
    dataset.NumberOfFrames = count_tiles(level.shape)
    organization = make_uid(identity["sop_instance_uid"], "dimensions")
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    finish_instance(dataset, provenance)
    return dataset


def _shrink(image: Dataset) -> Dataset:
    """Return an image's header as if it were a single tile."""
    tile = Dataset()
    tile.update(image)
    tile.Rows = tile.Columns = TILE
    tile.TotalPixelMatrixRows = tile.TotalPixelMatrixColumns = TILE
    tile.NumberOfFrames = 1
    tile.DimensionOrganizationType = "TILED_FULL"
    if "PerFrameFunctionalGroupsSequence" in tile:
        del tile.PerFrameFunctionalGroupsSequence
    return tile


def _find_spacing(level: ExportedLevel, image: SlideImage) -> tuple[float, float]:
    """Return the (y, x) size of a level's pixels in the slide's frame of reference, mm."""
    if image.spacing is not None:
        height, width = level.downsample
        return image.spacing[0] * height, image.spacing[1] * width
    assert level.mpp is not None  # `_choose_level` refuses others
    return level.mpp[0] / 1000, level.mpp[1] / 1000


def _find_position(image: SlideImage) -> PlanePositionSequence:
    """Return where the first pixel is: where the slide's is, as in all levels of a pyramid."""
    origin = image.dataset.TotalPixelMatrixOriginSequence[0]
    offsets = (
        float(origin.XOffsetInSlideCoordinateSystem),
        float(origin.YOffsetInSlideCoordinateSystem),
        float(origin.get("ZOffsetInSlideCoordinateSystem") or 0),
    )
    return PlanePositionSequence(CoordinateSystemNames.SLIDE, offsets, (1, 1))


def _describe_segments(
    group: ExportedGroup, not_predicted: int | None
) -> Sequence[SegmentDescription]:
    """Return the segments in order of their values; highdicom adds the background."""
    found = {
        value: (name, find_codes(name), group.colours[value])
        for value, name in group.source.classes.items()
    }
    if not_predicted is not None:
        found[not_predicted] = _NOT_PREDICTED_LABEL, _NOT_PREDICTED_CODES, _NOT_PREDICTED_COLOUR
    return [
        SegmentDescription(
            segment_number=value,
            segment_label=cut_text(name) or f"class {value}",
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=identify_algorithm(group),
            display_color=to_cielab(colour),
        )
        for value, (name, (category, kind), colour) in sorted(found.items())
    ]
