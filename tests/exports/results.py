"""A finished result with objects, for the tests of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from objects import shapes
from support.labelled import FINISHED, NamedValue, write_store

import wsi_unet
from wsi_unet.labels.layout import create_image, create_probabilities
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.names import IMAGE_NAME
from wsi_unet.labels.progress import Progress, RunRecord
from wsi_unet.labels.pyramid import Pyramid, reduce_mean
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.storage.local_store import LocalStore

SHAPE = (700, 1100)


def _draw() -> np.ndarray[Any, np.dtype[np.uint8]]:
    labels = np.zeros(SHAPE, np.uint8)
    for y in range(0, SHAPE[0], 130):
        for x in range(0, SHAPE[1], 170):
            part = labels[y : y + 120, x : x + 150]
            part[...] = shapes.touching_discs(160, seed=y + x)[: part.shape[0], : part.shape[1]]
    labels[400:640, 600:1000] = 2  # a region with a hole, across blocks
    labels[500:540, 700:800] = 0
    return labels


LABELS = _draw()
"""Discs of class 1 that touch, and a large region of class 2 with a hole."""


def make_result(path: Path, *, block: int = 512, **options: Any) -> Path:
    """Write a result with `LABELS` and their objects; return its path.

    Args:
        path: where.
        block: side of its blocks.
        options: of `support.labelled.write_store`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_store(path, options.pop("labels", LABELS), block=block, **options)
    wsi_unet.find_objects(path)
    return path


def read_levels(path: Path, label: str | None = None) -> list[NDArray[np.uint8]]:
    """Return the labels of a result at all levels, 255 where the model didn't look."""
    found = []
    for level in range(wsi_unet.open_labels(path, label).attrs["levels"]):
        labels = wsi_unet.open_labels(path, label, level)
        found.append(np.where(labels.predicted.to_numpy(), labels.to_numpy(), np.uint8(255)))
    return found


def add_probabilities(path: Path, label: str | None = None) -> None:
    """Store probabilities beside the labels of a result."""
    labels = wsi_unet.open_labels(path, label)
    names, colours = labels.attrs["classes"], ("#000000", "#2a6fdb", "#db2a6f")
    channels = [NamedValue(value, names[value], colours[value]) for value in names]
    store, pyramid = LocalStore(path), _pyramid(labels)
    frame = Frame(labels.attrs["pixel_size"], (0.0, 0.0), _unit(labels))
    create_probabilities(store, str(labels.name), pyramid, frame, channels, {})
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (len(channels), *labels.shape), np.uint8)
    pixels[:, ~labels.predicted.to_numpy()] = 0
    _write_channels(store, f"probability/{labels.name}", pyramid, pixels)


def add_image(path: Path, downsample: tuple[float, float] = (1.0, 1.0)) -> list[NDArray[np.uint8]]:
    """Store an image of the slide in a result; return it (3, y, x) at each level.

    Args:
        path: the result.
        downsample: (y, x) pixels of the labels per pixel of the image.
    """
    labels = wsi_unet.open_labels(path)
    store, own = LocalStore(path), _pyramid(labels)
    rows, columns = (
        round(side / factor) for side, factor in zip(labels.shape, downsample, strict=True)
    )
    pyramid = Pyramid((rows, columns), own.block, own.levels)
    (y, x), (fy, fx) = labels.attrs["pixel_size"], downsample
    create_image(store, "a slide", pyramid, Frame((y * fy, x * fx), (0.0, 0.0), _unit(labels)))
    pixels = np.random.default_rng(2).integers(0, 256, (3, rows, columns), np.uint8)
    levels = _write_channels(store, "", pyramid, pixels)
    progress = Progress(store, IMAGE_NAME)
    progress.write_run(RunRecord(name=IMAGE_NAME, signature="1", parameters={}, created=FINISHED))
    progress.write_tail({}, "1")
    return levels


def _pyramid(labels: xr.DataArray) -> Pyramid:
    rows, columns = labels.shape
    return Pyramid((rows, columns), max(labels.data.chunksize), labels.attrs["levels"])


def _unit(labels: xr.DataArray) -> Literal["micrometer"] | None:
    return "micrometer" if labels.attrs["unit"] == "micrometer" else None


def _write_channels(
    store: LocalStore, group: str, pyramid: Pyramid, pixels: NDArray[np.uint8]
) -> list[NDArray[np.uint8]]:
    for index in pyramid.grid:
        part = pixels[(slice(None), *pyramid.grid.core(index).slices())]
        write_block(store, group, pyramid, index, part, reduce_mean)
    build_tail(store, group, pyramid, reduce_mean, len(pixels))
    levels = [pixels]
    while len(levels) < pyramid.levels:
        levels.append(reduce_mean(levels[-1]))
    return levels
