"""Drawing a result: the slide, the labels' colours and outlines, a scale bar and a legend."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.contents import open_output
from wsi_unet.labels.reading import open_image, open_labels
from wsi_unet.locations import Location
from wsi_unet.png_files import PngWriter
from wsi_unet.view.groups import LabelGroup, find_outlined, list_entries, open_groups
from wsi_unet.view.layers import Canvas, Edges, Layer, PixelGrid, array_reader, slide_mpp
from wsi_unet.view.legend import PAPER, draw_legend, draw_scale_bar
from wsi_unet.view.object_outlines import are_visible, open_objects_of, read_level
from wsi_unet.view.painting import Band, paint_classes, paint_dashes, paint_objects
from wsi_unet.wording import write_size

FILL = 0.28
"""Opacity of a class's colour inside its outline, over the slide's image."""

FILL_ON_WHITE = 0.55
"""Opacity of a class's colour inside its outline, on white."""

OVERSAMPLING = 1.5
"""Labels are read at least this much finer than the picture, so that outlines are smooth."""

BAND_PIXELS = 1 << 20
"""Pixels of the picture that are painted at once."""

Region = tuple[int, int, int, int]
"""(x, y, width, height), full-resolution px of the slide."""


def write_overlay(
    output: str | os.PathLike[str] | Location,
    png: str | os.PathLike[str],
    label: str | Sequence[str] | None = None,
    max_side: int = 2048,
    region: Region | None = None,
) -> Path:
    """Write a picture of the labels over the slide's stored image, or on white if there is none.

    A dashed line surrounds what the model looked at, where that isn't the whole slide. Where
    `find_objects` has split or selected objects and they are large enough to be seen, each has an
    outline of its own; otherwise outlines are those of the classes. The picture is painted band by
    band from the pyramid levels near its resolution, so memory depends neither on the slide's size
    nor, beyond some rows, on the picture's.

    Args:
        output: a folder or an s3:// URL with a result.
        png: the file to write.
        label: name of a label group, or names of several; None draws all there are.
        max_side: longest side of the picture without its legend, px; it is smaller if the labels
            have fewer pixels.
        region: (x, y, width, height) of the part to draw, full-resolution px of the slide; None
            draws the whole slide.

    Returns:
        The path of the file.

    Raises:
        OptionError: `max_side` or `region` is unusable.
        OutputError: there are no such labels, or the file can't be written.
    """
    if not 64 <= max_side <= 32768:
        raise OptionError(f"`max_side={max_side}`: choose 64 to 32768 px", option="max_side")
    location = Location.parse(output)
    groups = open_groups(location, label)
    canvas = _place_canvas(groups, region, max_side)
    parts = ", ".join(group.name for group in groups)
    finished = all(group.labels.attrs["finished"] for group in groups)
    title = f"{location.name}: {parts}{'' if finished else '  (not finished: parts are missing)'}"
    legend = draw_legend(canvas.size, title, list_entries(groups, whole=region is None))
    painter = _Painter(location, groups, canvas)

    def write(file: BinaryIO) -> None:
        width, height = canvas.size
        writer = PngWriter(file, legend.width, height + legend.height)
        left = (legend.width - width) // 2
        rows = max(1, BAND_PIXELS // width)
        for top in range(0, height, rows):
            painted = painter.paint(range(top, min(top + rows, height)))
            sheet = np.full((len(painted), legend.width, 3), PAPER, np.uint8)
            sheet[:, left : left + width] = painted
            writer.write(sheet)
        writer.write(np.asarray(legend))
        writer.close()

    return _save(write, Path(png))


def _place_canvas(groups: Sequence[LabelGroup], region: Region | None, max_side: int) -> Canvas:
    """Return the part of the slide to draw, and the size of the picture, with square pixels.

    Raises:
        OptionError: the region lies outside of the slide.
    """
    labels, grid = groups[0].labels, groups[0].grid
    edges = grid.extent((labels.shape[0], labels.shape[1]))
    if region is not None:
        edges = _clip(region, edges)
    y0, x0, y1, x1 = edges
    (mpp_y, mpp_x), sides = slide_mpp(labels), []
    for group in groups:
        step_y, step_x = group.grid.step
        sides += [(y1 - y0) / step_y, (x1 - x0) / step_x]
    height, width = (y1 - y0) * mpp_y, (x1 - x0) * mpp_x
    longer = max(1, min(max_side, round(max(sides))))
    pixel = max(height, width) / longer
    return Canvas(edges, (max(1, round(width / pixel)), max(1, round(height / pixel))))


def _clip(region: Region, edges: Edges) -> Edges:
    x, y, width, height = region
    y0, x0, y1, x1 = max(y, edges[0]), max(x, edges[1]), y + height, x + width
    clipped = (y0, x0, min(y1, edges[2]), min(x1, edges[3]))
    if clipped[2] <= y0 or clipped[3] <= x0:
        shape = round(edges[2] - edges[0]), round(edges[3] - edges[1])
        raise OptionError(
            f"`region={region}` lies outside the slide, which is {write_size(shape)}; give "
            "full-resolution pixels X,Y,W,H inside it",
            option="region",
        )
    return clipped


class _Painter:
    """Paints the bands of a picture, from top to bottom."""

    def __init__(self, location: Location, groups: Sequence[LabelGroup], canvas: Canvas) -> None:
        self._canvas = canvas
        self._image = _open_image_layer(location, canvas)
        self._fill = FILL_ON_WHITE if self._image is None else FILL
        self._labels = [_LabelLayers.open(location, group, canvas) for group in groups]
        self._areas = [_open_area_layer(group, canvas) for group in find_outlined(groups)]
        labels = groups[0].labels
        known = labels.attrs["unit"] == "micrometer"
        extent = (canvas.edges[3] - canvas.edges[1]) * slide_mpp(labels)[1]
        self._pixel_size = extent / canvas.size[0] if known else None

    def paint(self, rows: range) -> NDArray[np.uint8]:
        """Return RGB of some rows, uint8 (rows, width, 3)."""
        band: Band = np.full((3, len(rows), self._canvas.size[0]), 255, np.float32)
        if self._image is not None:
            enlarged = max(self._canvas.scale_of(self._image.grid)) < 1
            method = Image.Resampling.BICUBIC if enlarged else Image.Resampling.LANCZOS
            band = self._image.read(rows).resize_colours(method)
        for layers in self._labels:
            layers.paint(band, rows, self._fill)
        for layer in self._areas:
            paint_dashes(band, layer.read(rows), _line_width(layer), rows.start)
        np.rint(band, out=band)
        painted = np.ascontiguousarray(np.moveaxis(band.astype(np.uint8), 0, -1))
        if self._pixel_size is None:
            return painted
        image = Image.fromarray(painted)
        draw_scale_bar(image, self._pixel_size, self._canvas.size, rows.start)
        return np.asarray(image)


@dataclass(frozen=True)
class _LabelLayers:
    """The layers of a label group.

    Attributes:
        labels: its labels.
        objects: numbers of its objects, where each has an outline of its own.
        colors: "#rrggbb" by label value.
    """

    labels: Layer
    objects: Layer | None
    colors: Mapping[int, str]

    @classmethod
    def open(cls, location: Location, group: LabelGroup, canvas: Canvas) -> _LabelLayers:
        labels = _open_label_layer(location, group, canvas)
        objects = _open_object_layer(location, group, canvas)
        return cls(labels, objects, group.labels.attrs["colors"])

    def paint(self, band: Band, rows: range, fill: float) -> None:
        """Blend some rows over a band, which is changed in place."""
        width = _line_width(self.labels)
        outline = width if self.objects is None else None
        paint_classes(band, self.labels.read(rows), self.colors, fill, outline)
        if self.objects is not None:
            paint_objects(band, self.objects.read(rows), self.colors, width)


def _open_image_layer(location: Location, canvas: Canvas) -> Layer | None:
    finest = open_image(location)
    if finest is None:
        return None
    level = canvas.choose_level(PixelGrid.of(finest), finest.attrs["levels"], 1)
    image = open_image(location, level) if level else finest
    assert image is not None
    grid, shape = PixelGrid.of(image), (image.shape[1], image.shape[2])
    margin = math.ceil(3 * max(1.0, *canvas.scale_of(grid))) + 1  # what Lanczos' filter reaches
    return Layer(array_reader(image), shape, grid, canvas, margin, planes=3)


def _open_label_layer(location: Location, group: LabelGroup, canvas: Canvas) -> Layer:
    level = canvas.choose_level(group.grid, group.labels.attrs["levels"], OVERSAMPLING)
    labels = open_labels(location, group.name, level) if level else group.labels
    shape = labels.shape[0], labels.shape[1]
    return _with_margin(Layer(array_reader(labels), shape, PixelGrid.of(labels), canvas, 0))


def _open_object_layer(location: Location, group: LabelGroup, canvas: Canvas) -> Layer | None:
    """Return the layer of a group's objects; None where outlines are those of the classes."""
    record, pixel = group.record, group.labels.attrs["pixel_size"]
    if record is None or not are_visible(record, pixel, max(canvas.scale_of(group.grid))):
        return None
    objects = open_objects_of(open_output(location), group.name)
    if objects is None:
        return None
    level = canvas.choose_level(group.grid, group.labels.attrs["levels"], OVERSAMPLING)
    shape = -(-objects.grid.shape[0] >> level), -(-objects.grid.shape[1] >> level)
    grid, read = group.grid.at_level(level), partial(read_level, objects, level)
    return _with_margin(Layer(read, shape, grid, canvas, 0, planes=np.dtype(np.uint64).itemsize))


def _open_area_layer(group: LabelGroup, canvas: Canvas) -> Layer:
    area, levels = group.area, group.labels.attrs["levels"]
    assert area is not None
    level = canvas.choose_level(group.grid, levels, OVERSAMPLING)
    shape = -(-area.shape[0] >> level), -(-area.shape[1] >> level)
    grid = group.grid.at_level(level)
    return _with_margin(Layer(lambda box: area.read(box, level), shape, grid, canvas, 0))


def _with_margin(layer: Layer) -> Layer:
    layer.margin = _line_width(layer) + 2
    return layer


def _line_width(layer: Layer) -> int:
    """Return the width of outlines, px of the layer."""
    scale = layer.canvas.scale_of(layer.grid)[0]
    return max(1, math.ceil(scale * max(1.0, max(layer.canvas.size) / 1400)))


def _save(write: Callable[[BinaryIO], None], path: Path) -> Path:
    """Write a file by way of a temporary one, so that it is whole or not there.

    Raises:
        OutputError: it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: can't write the picture: {error.strerror or error}; choose another file"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
