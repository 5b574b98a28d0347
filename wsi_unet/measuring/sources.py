"""What is measured: the finished labels of a result, and the objects found in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow.dataset as ds

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid
from wsi_unet.ground_truth.grids import Grid, PixelCentres, locate_grid
from wsi_unet.labels.contents import (
    Output,
    choose_name,
    open_output,
    parse_frame,
    parse_run_name,
    read_label_names,
)
from wsi_unet.labels.predicted import StoredArea
from wsi_unet.labels.progress import Progress
from wsi_unet.labels.stored_level import StoredLevel, open_level
from wsi_unet.locations import Location
from wsi_unet.objects.reading import open_objects
from wsi_unet.objects.source import read_finished_attributes
from wsi_unet.predicted_area import PredictedArea
from wsi_unet.storage.store import ByteStore


@dataclass(frozen=True, eq=False)
class MeasuredLabels:
    """A label group that is measured.

    Attributes:
        result: the result as it was given.
        location: where that is.
        label: name of the group.
        slide: name of the slide, "" if it isn't known.
        grid: where their pixels lie.
        pixels: their values.
        predicted: where the model looked.
        classes: names of the classes by label value, background left out.
        pixel_area: area of a pixel, µm²; None where the slide's pixel size isn't known.
        objects: the objects; None if only areas are measured.
    """

    result: str
    location: Location
    label: str
    slide: str
    grid: Grid
    pixels: StoredLevel
    predicted: PredictedArea
    classes: Mapping[int, str]
    pixel_area: float | None
    objects: ds.Dataset | None


def open_result(output: Output, label: str | None, *, areas_only: bool) -> list[MeasuredLabels]:
    """Open the label groups of a result; nothing but metadata is read.

    Args:
        output: the result: a folder or an s3:// URL.
        label: name of the group; None takes all.
        areas_only: leave the objects out.

    Raises:
        OutputError: there is no such result or group, its labels aren't finished, it isn't known
            where the model looked, or there are no current objects.
    """
    store = open_output(output)
    names = read_label_names(store)
    if label is not None or not names:
        names = [choose_name(output, "labels", names, label)]
    return [_open_group(output, store, name, areas_only=areas_only) for name in names]


def _open_group(output: Output, store: ByteStore, name: str, *, areas_only: bool) -> MeasuredLabels:
    attributes = read_finished_attributes(store, name)
    provenance, frame = attributes["wsi_unet"], parse_frame(attributes)
    slide = provenance.get("slide", {})
    levels = len(attributes["ome"]["multiscales"][0]["datasets"])
    pixels = open_level(store, f"labels/{name}", 0, levels, channels=False)
    centres = PixelCentres(frame.translation, frame.scale)
    known = frame.unit is not None
    properties = attributes["ome"]["image-label"]["properties"]
    return MeasuredLabels(
        result=str(output),
        location=store.location,
        label=name,
        slide=str(slide.get("name", "")),
        grid=locate_grid(pixels.plane, centres, micrometres=known, slide=slide),
        pixels=pixels,
        predicted=_read_predicted(store, parse_run_name(provenance, name), pixels),
        classes={item["label-value"]: item["class"] for item in properties if item["label-value"]},
        pixel_area=frame.scale[0] * frame.scale[1] if known else None,
        objects=None if areas_only else _open_objects(store.location, name),
    )


def _read_predicted(store: ByteStore, run: str, pixels: StoredLevel) -> PredictedArea:
    progress = Progress(store, run)
    record = progress.read_run()
    if record is None:
        raise OutputError(
            f"{store}: the progress of {run!r} isn't kept beside the labels, so nothing says "
            "where the model looked; copy the folder .wsi_unet too, or segment again"
        )
    grid = BlockGrid(pixels.plane, pixels.side)
    return StoredArea.open(progress, record, grid, finished=True).read()


def _open_objects(location: Location, name: str) -> ds.Dataset:
    try:
        return open_objects(location, name)
    except OutputError as error:
        raise OutputError(f"{error}, or measure areas alone with `areas_only=True`") from error
