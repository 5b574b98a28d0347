"""Drawing a result: the slide, the labels' colours and outlines, a scale bar and a legend."""

from __future__ import annotations

import io
import math
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.reading import open_image, open_labels
from wsi_unet.locations import Location
from wsi_unet.view.legend import LegendEntry, add_legend, draw_scale_bar

FILL = 0.28
"""Opacity of a class's colour inside its outline, over the slide's image."""

FILL_ON_WHITE = 0.55
"""Opacity of a class's colour inside its outline, on white."""

OUTLINE = 0.95
"""Opacity of outlines."""

OVERSAMPLING = 1.5
"""Labels are read at least this much finer than the picture, so that outlines are smooth."""

Plane = NDArray[np.float32]


def write_overlay(
    output: str | os.PathLike[str] | Location,
    png: str | os.PathLike[str],
    name: str | None = None,
    max_side: int = 2048,
) -> Path:
    """Write a picture of the labels over the slide's stored image, or on white if there is none.

    Only the pyramid levels near the picture's resolution are read, so memory depends on
    `max_side` alone.

    Args:
        output: a folder or an s3:// URL with a result.
        png: the file to write.
        name: name of the label group; may be left out if there is only one.
        max_side: longest side of the picture without its legend, px; it is smaller if the labels
            have fewer pixels.

    Returns:
        The path of the file.

    Raises:
        OptionError: `max_side` is unusable.
        OutputError: there are no such labels, or the file can't be written.
    """
    if not 64 <= max_side <= 32768:
        raise OptionError(f"`max_side={max_side}`: choose 64 to 32768 px", option="max_side")
    location = Location.parse(output)
    labels = open_labels(location, name)
    size = _picture_size(labels, max_side)
    picture, fill = _read_image(location, labels, size), FILL
    if picture is None:
        picture, fill = np.full((size[1], size[0], 3), 255, np.float32), FILL_ON_WHITE
    level = _choose_level(labels.attrs["levels"], labels.shape, round(OVERSAMPLING * max(size)))
    values = open_labels(location, str(labels.name), level).values
    painted = _paint(picture, values, labels.attrs["colors"], fill)
    image = Image.fromarray(painted)
    if labels.attrs["unit"] == "micrometer":
        draw_scale_bar(image, _extent(labels)[1] / image.width)
    title = f"{location.name}: {_describe(labels)}"
    return _save(add_legend(image, title, _legend(labels)), Path(png))


def _extent(labels: xr.DataArray) -> tuple[float, float]:
    """Return (height, width) in the unit of the coordinates."""
    y, x = labels.attrs["pixel_size"]
    return labels.shape[0] * y, labels.shape[1] * x


def _picture_size(labels: xr.DataArray, max_side: int) -> tuple[int, int]:
    """Return (width, height) with square pixels and at most `max_side` px a side."""
    height, width = _extent(labels)
    longer = min(max_side, max(labels.shape))
    pixel = max(height, width) / longer
    return max(1, round(width / pixel)), max(1, round(height / pixel))


def _choose_level(levels: int, shape: tuple[int, ...], side: int) -> int:
    """Return the coarsest level whose longer side is at least `side` px, or else the finest."""
    longer = max(shape[-2:])
    return max((level for level in range(levels) if -(-longer >> level) >= side), default=0)


def _read_image(
    location: Location, labels: xr.DataArray, size: tuple[int, int]
) -> NDArray[np.float32] | None:
    """Return the stored image on the picture's grid, float32 (h, w, 3) from 0 to 255."""
    finest = open_image(location)
    if finest is None:
        return None
    level = _choose_level(finest.attrs["levels"], finest.shape, max(size))
    stored = open_image(location, level) if level else finest
    assert stored is not None
    pixels = np.moveaxis(stored.values, 0, -1)
    edges = []  # where the labels begin and end, in px of the stored image
    for dim, index in (("x", 1), ("y", 0)):
        step = stored.attrs["pixel_size"][index]
        first = float(stored[dim][0]) - step / 2
        label_step = labels.attrs["pixel_size"][index]
        start = float(labels[dim][0]) - label_step / 2
        stop = start + label_step * labels.sizes[dim]
        edges.append([(edge - first) / step for edge in (start, stop)])
    (x0, x1), (y0, y1) = edges
    box = (max(0.0, x0), max(0.0, y0), min(x1, pixels.shape[1]), min(y1, pixels.shape[0]))
    enlarged = size[0] > pixels.shape[1]
    method = Image.Resampling.BICUBIC if enlarged else Image.Resampling.LANCZOS
    resized = Image.fromarray(pixels).resize(size, method, box=box)
    return np.asarray(resized, np.float32)


def _paint(
    picture: NDArray[np.float32], labels: NDArray[np.uint8], colors: dict[int, str], fill: float
) -> NDArray[np.uint8]:
    """Blend the classes' colours over `picture` (h, w, 3), with darker outlines.

    Args:
        picture: 0 to 255; changed in place.
        labels: (rows, columns) of the same area, usually finer.
        colors: "#rrggbb" by label value.
        fill: opacity inside the outlines.
    """
    size = (picture.shape[1], picture.shape[0])
    width = max(1, math.ceil(labels.shape[0] / size[1] * max(1.0, max(size) / 1400)))
    for value in np.unique(labels):
        if value == 0 or int(value) not in colors:
            continue
        color = np.array(list(bytes.fromhex(colors[int(value)][1:])), np.float32)
        inside = labels == value
        inside_share = _downscale_mask(inside, size)
        outline_share = _downscale_mask(inside & ~_erode(inside, width), size)
        for opacity in (inside_share * fill, outline_share * OUTLINE):
            picture += opacity[..., None] * (color - picture)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _downscale_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> Plane:
    """Return the share of each of the picture's pixels that `mask` covers, float32 0 to 1."""
    grey = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    shares = np.asarray(grey.resize(size, Image.Resampling.BOX), np.float32)
    return shares / np.float32(255)


def _erode(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Return `mask` without its outermost `times` pixels; the slide's edge isn't an outline."""
    for _ in range(times):
        smaller = mask.copy()
        smaller[1:] &= mask[:-1]
        smaller[:-1] &= mask[1:]
        smaller[:, 1:] &= mask[:, :-1]
        smaller[:, :-1] &= mask[:, 1:]
        mask = smaller
    return mask


def _describe(labels: xr.DataArray) -> str:
    state = "" if labels.attrs["finished"] else "  (not finished: parts are missing)"
    return f"{labels.name}{state}"


def _legend(labels: xr.DataArray) -> list[LegendEntry]:
    attributes: dict[str, Any] = labels.attrs
    entries = []
    for value, name in attributes["classes"].items():
        if value == 0:
            continue
        area = attributes["areas_mm2"].get(value)
        color = bytes.fromhex(attributes["colors"][value][1:])
        pixels = attributes["pixels"].get(value)
        remark = "" if pixels is None else f"{100 * pixels / labels.size:.3g} % of the pixels"
        if area is not None:
            remark = f"{area:.3g} mm²"
        entries.append(LegendEntry((color[0], color[1], color[2]), name, remark))
    return entries


def _save(image: Image.Image, path: Path) -> Path:
    encoded = io.BytesIO()
    image.save(encoded, "png")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.write_bytes(encoded.getvalue())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: can't write the picture: {error.strerror or error}; choose another file"
        ) from error
    return path
