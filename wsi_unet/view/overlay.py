"""One picture of a result: the slide, the labels' colours and outlines, scale bar and legend."""

from __future__ import annotations

import io
import math
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from wsi_unet import locations
from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.reading import open_image, open_labels
from wsi_unet.view.legend import LegendEntry, draw_scale_bar, with_legend

FILL = 0.28
"""Opacity of a class's colour inside its outline, over the slide's image."""

FILL_ALONE = 0.55
"""The same where there is no image."""

OUTLINE = 0.95
FINER = 1.5
"""Labels are read at least this much finer than the picture, so that outlines are smooth."""

Plane = NDArray[np.float32]


def write_overlay(
    output: str | Path, png: str | Path, name: str | None = None, max_side: int = 2048
) -> Path:
    """Write a picture of the labels over the slide's stored image (or on white without one).

    Only the pyramid levels near the picture's resolution are read, so memory depends on
    `max_side` alone.

    Args:
        output: the output: a folder or an s3:// URL.
        png: file to write.
        name: of the label group; may be left out where there is only one.
        max_side: longer side of the picture without its legend, px; not enlarged beyond the
            labels' own resolution.

    Returns:
        The file written.

    Raises:
        OptionError: if `max_side` is unusable.
        OutputError: if there are no such labels, or the file can't be written.
    """
    if not 64 <= max_side <= 32768:
        raise OptionError(f"max_side {max_side} px: choose 64 to 32768")
    labels = open_labels(output, name)
    size = _picture_size(labels, max_side)
    picture = _background(output, labels, size)
    alone = picture is None
    if picture is None:
        picture = np.full((size[1], size[0], 3), 255, np.float32)
    fine = _level_for(labels.attrs["levels"], labels.shape, round(FINER * max(size)))
    values = open_labels(output, str(labels.name), fine).values
    painted = _paint(picture, values, labels.attrs["colors"], FILL_ALONE if alone else FILL)
    image = Image.fromarray(painted)
    if labels.attrs["unit"] == "micrometer":
        draw_scale_bar(image, _extent(labels)[1] / image.width)
    title = f"{locations.name(locations.resolve(output))}: {_title(labels)}"
    return _save(with_legend(image, title, _legend(labels)), Path(png))


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


def _level_for(levels: int, shape: tuple[int, ...], side: int) -> int:
    """Return the coarsest level whose longer side is at least `side` px, else the finest."""
    longer = max(shape[-2:])
    return max((level for level in range(levels) if -(-longer >> level) >= side), default=0)


def _background(
    output: str | Path, labels: xr.DataArray, size: tuple[int, int]
) -> NDArray[np.float32] | None:
    """Return the stored image on the picture's grid, float32 (h, w, 3) of 0 .. 255."""
    whole = open_image(output)
    if whole is None:
        return None
    level = _level_for(whole.attrs["levels"], whole.shape, max(size))
    stored = open_image(output, level) if level else whole
    assert stored is not None
    pixels = np.moveaxis(stored.values, 0, -1)
    edges = []  # of the labels' extent, in pixels of the stored image
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
        picture: 0 .. 255; changed in place.
        labels: the same area, (rows, columns), usually finer.
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
        covered = _coverage(inside, size)
        outlined = _coverage(inside & ~_eroded(inside, width), size)
        for share, tone in ((covered * fill, color), (outlined * OUTLINE, color)):
            picture += share[..., None] * (tone - picture)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _coverage(mask: NDArray[np.bool_], size: tuple[int, int]) -> Plane:
    """Return which share of each of the picture's pixels `mask` covers, float32 0 .. 1."""
    grey = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    shares = np.asarray(grey.resize(size, Image.Resampling.BOX), np.float32)
    return shares / np.float32(255)


def _eroded(mask: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    """Return `mask` without its outermost `times` pixels; the slide's edge is no outline."""
    for _ in range(times):
        smaller = mask.copy()
        smaller[1:] &= mask[:-1]
        smaller[:-1] &= mask[1:]
        smaller[:, 1:] &= mask[:, :-1]
        smaller[:, :-1] &= mask[:, 1:]
        mask = smaller
    return mask


def _title(labels: xr.DataArray) -> str:
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
