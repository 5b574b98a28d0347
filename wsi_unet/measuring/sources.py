"""What is measured: the finished labels of a result, and the objects found in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from wsi_unet.corrections.reading import EditedObjects, open_edited_objects
from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.grids import Grid, PixelCentres, locate_grid
from wsi_unet.labels.contents import Output, choose_name, open_output, parse_frame, read_label_names
from wsi_unet.locations import Location
from wsi_unet.objects.reading import open_objects
from wsi_unet.objects.records import StageFiles
from wsi_unet.objects.source import LabelSource, read_finished_attributes


@dataclass(frozen=True, eq=False)
class MeasuredLabels:
    """A label group that is measured.

    Attributes:
        result: the result as it was given.
        source: the labels.
        grid: where their pixels lie.
        objects: the objects; None if only areas are measured.
        edited: the corrected objects, whose pixels have the classes that are measured; None: the
            labels are.
        boundaries: label values of classes that others grow into, and so have no objects.
    """

    result: str
    source: LabelSource
    grid: Grid
    objects: ds.Dataset | None
    edited: EditedObjects | None = None
    boundaries: frozenset[int] = frozenset()

    @property
    def classes(self) -> Mapping[int, str]:
        """Names of the classes by label value, background left out."""
        return self.source.classes if self.edited is None else self.edited.classes

    def read(self, box: Box) -> NDArray[np.uint8]:
        """Return the label values (h, w) of a box inside the labels.

        Raises:
            OutputError: they can't be read, or hold a value that is none of their classes.
        """
        return self.source.labels(box) if self.edited is None else self.edited.paint_classes(box)

    @property
    def location(self) -> Location:
        """Where the result is."""
        return self.source.store.location

    @property
    def slide(self) -> str:
        """Name of the slide, "" if it isn't known."""
        return self.source.provenance.slide.name

    @property
    def pixel_area(self) -> float | None:
        """Area of a pixel, µm²; None where the slide's pixel size isn't known."""
        height, width = self.source.pixel_size
        return height * width if self.source.micrometres else None


def open_result(
    output: Output, label: str | None, *, areas_only: bool, edited: bool = False
) -> list[MeasuredLabels]:
    """Open the label groups of a result; nothing but metadata is read.

    Args:
        output: the result: a folder or an s3:// URL.
        label: name of the group; None takes all.
        areas_only: leave the objects out.
        edited: take the objects as people have corrected them.

    Raises:
        OutputError: there is no such result or group, its labels aren't finished, it isn't known
            where the model looked, or there are no current objects, or corrections of them.
    """
    store = open_output(output)
    names = read_label_names(store)
    if label is not None or not names:
        names = [choose_name(output, "labels", names, label)]
    open_table = open_edited_objects if edited else _open_objects
    return [
        MeasuredLabels(
            result=str(output),
            source=source,
            grid=_locate(source),
            objects=None if areas_only else open_table(store.location, source.label),
            edited=EditedObjects.open(store, source.label) if edited else None,
            boundaries=frozenset() if areas_only else _find_boundaries(source),
        )
        for source in LabelSource.open_all(store, names)
    ]


def _find_boundaries(source: LabelSource) -> frozenset[int]:
    """Return the label values of classes that others grow into, and so have no objects."""
    record = StageFiles(source.store, source.run, source.label).read_stage()
    names = set() if record is None else {rule.boundary for rule in record.rules.values()}
    return frozenset(value for value, name in source.classes.items() if name in names)


def _locate(source: LabelSource) -> Grid:
    attributes = read_finished_attributes(source.store, source.label)
    frame, slide = parse_frame(attributes), attributes["wsi_unet"].get("slide", {})
    centres = PixelCentres(frame.translation, frame.scale)
    return locate_grid(source.grid.shape, centres, micrometres=source.micrometres, slide=slide)


def _open_objects(location: Location, name: str) -> ds.Dataset:
    try:
        return open_objects(location, name)
    except OutputError as error:
        raise OutputError(f"{error}, or measure areas alone with `areas_only=True`") from error
