"""OME-Zarr images (0.4 and 0.5) and plain Zarr arrays (format 2 and 3).

Metadata is read directly from a few small JSON files (`zarr_metadata`); zarr-python only reads
pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.colour import to_rgb
from wsi_unet.errors import SlideError, foreign_errors_as, os_errors_as
from wsi_unet.geometry import Box, Shape
from wsi_unet.locations import Location
from wsi_unet.slides.levels import make_levels
from wsi_unet.slides.readers.zarr_codecs import bound_unpacking, most_stored
from wsi_unet.slides.readers.zarr_gaps import LevelArray
from wsi_unet.slides.readers.zarr_metadata import (
    Node,
    array_axes,
    compression_name,
    describe_zarr,
    image_axes,
    load_node,
    pixel_size,
    refuse_fluorescence,
)
from wsi_unet.slides.readers.zarr_series import ZarrImage, find_images, refuse_samples
from wsi_unet.slides.series import choose_series, mention_others
from wsi_unet.slides.slide import Reader
from wsi_unet.slides.sources.folder import Folder
from wsi_unet.slides.sources.opening import open_folder
from wsi_unet.slides.window_memory import LARGE_TILE
from wsi_unet.storage.concurrent import map_concurrently

_NOT_A_CHUNK = re.compile(r"(^|/)(\.[^/]*|zarr\.json|[^/]*\.partial)$")
"""Names of files that hold metadata, or that are being written."""

LONGEST_SIDE = 1 << 40
"""Longest side of an array, chunk or shard, px; zarr divides by sides in floating point."""
MAX_LEVELS = 64
"""Levels that are looked at: each has at most half the side of the one before."""
SAMPLED_CHUNKS = 64
SAMPLED_BYTES = 2**16
"""How many chunks per level, and how many bytes of each, count for the fingerprint."""


class ZarrReader(Reader):
    """Reads one image of a Zarr folder."""

    name = "zarr"
    vendor = None

    def __init__(self, location: Location, series: str | None = None) -> None:
        """Open a folder that holds OME-Zarr images or a plain array.

        Args:
            location: the folder.
            series: number or name of the image to read; None for the largest.

        Raises:
            SlideError: it holds neither, or the pixels aren't 8-bit grey or RGB in one plane.
        """
        self._location = location
        self._lock = threading.Lock()
        chosen = self._choose(find_images(open_folder(location)), series)
        node, folder = chosen.node, chosen.folder
        self._image = chosen.described
        if not self._image:
            self._folders, self._nodes = [folder], [node]
            self._axes = array_axes(location, node)
        else:
            names = [str(dataset["path"]) for dataset in self._image["datasets"][:MAX_LEVELS]]
            self._folders = [folder.subfolder(name) for name in names]
            self._nodes = list(map_concurrently(load_node, self._folders, location))
            self._axes = image_axes(location, self._image, self._nodes[0])
        levels = zip(self._folders, self._nodes, strict=True)
        opened = list(map_concurrently(self._open, levels, location))
        try:
            refuse_fluorescence(node, self._axes, opened[0].shape)
        except SlideError as error:
            raise SlideError(f"{location}: {error}") from error
        self._arrays = [LevelArray(array, self._axes) for array in opened]
        channels = dict(zip(self._axes, opened[0].shape, strict=True)).get("c", 1)
        self.colours = 1 if channels == 1 else 3
        shapes = [self._shape(array) for array in opened]
        self.levels = make_levels(shapes, [self._tile(array) for array in opened])
        self.mpp, unclear = pixel_size(self._image, self._axes)
        self.warnings += unclear
        self.compression = compression_name(self._nodes[0].document)
        self.properties = describe_zarr(self._image, node, self._axes)

    def _choose(self, images: Sequence[ZarrImage], wanted: str | None) -> ZarrImage:
        """Return the image to read, and keep the list of all."""
        if len(images) == 1 and wanted is None:
            return images[0]
        self.series = tuple(image.series() for image in images)
        try:
            number = choose_series(self.series, wanted)
        except SlideError as error:
            raise SlideError(f"{self._location}: {error}") from error
        if wanted is None:
            self.warnings += mention_others(self.series, number)
        return images[number]

    def _open(self, level: tuple[Folder, Node]) -> zarr.Array[Any]:
        folder, node = level
        location, store = folder.location, folder.store()
        with foreign_errors_as(SlideError, f"{location}: zarr can't open this array"):
            array = zarr.open_array(store, mode="r", zarr_format=2 if node.version == 2 else 3)
        sides = (*array.shape, *array.chunks, *(array.shards or ()))
        if array.ndim != len(self._axes) or 0 in array.shape:
            raise SlideError(f"{location}: shape {array.shape} doesn't fit the axes {self._axes}")
        if not all(0 < side <= LONGEST_SIDE for side in sides):
            raise SlideError(f"{location}: its shape, chunks or shards can't be those of an image")
        try:
            refuse_samples(dict(zip(self._axes, array.shape, strict=True)), str(array.dtype))
        except SlideError as error:
            raise SlideError(f"{self._location}: {error}") from error
        # Whole chunks are decoded, whatever lies in them along the other axes.
        beside = math.prod(array.chunks) // max(1, math.prod(self._tile(array)))
        if beside > max(4, *array.shape):
            raise SlideError(
                f"{location}: its chunks {array.chunks} are far larger than its shape "
                f"{array.shape}; write it again with smaller chunks"
            )
        store.most_bytes = most_stored(array)
        try:
            return bound_unpacking(array)
        except SlideError as error:
            raise SlideError(f"{location}: {error}") from error

    def _shape(self, array: zarr.Array[Any]) -> Shape:
        return array.shape[self._axes.index("y")], array.shape[self._axes.index("x")]

    def _tile(self, array: zarr.Array[Any]) -> Shape:
        return array.chunks[self._axes.index("y")], array.chunks[self._axes.index("x")]

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box; absent chunks are white if it is in colour."""
        down, across = self.levels[level].tile
        if down * across < LARGE_TILE:
            return self._read(level, box)
        result = np.empty((*box.shape, 3), np.uint8)
        with self._lock:  # one large chunk at a time: each takes far more memory than the box
            for y in range(box.y0 // down * down, box.y1, down):
                for x in range(box.x0 // across * across, box.x1, across):
                    piece = Box(y, x, y + down, x + across).intersection(box)
                    result[piece.relative_to(box).slices()] = self._read(level, piece)
        return result

    def _read(self, level: int, box: Box) -> NDArray[np.uint8]:
        rows, columns = box.slices()
        picks = {"y": rows, "x": columns, "c": slice(None)}
        selection = tuple(picks.get(axis, 0) for axis in self._axes)
        where = self._folders[level].location
        with foreign_errors_as(SlideError, f"{where}: {box} can't be read, a chunk may be damaged"):
            pixels = self._arrays[level].read(selection)
        kept = [axis for axis in self._axes if axis in picks]
        if "c" not in kept:
            return np.ascontiguousarray(to_rgb(pixels.transpose(_order(kept, "yx"))[..., None]))
        return np.ascontiguousarray(to_rgb(pixels.transpose(_order(kept, "yxc"))))

    @override
    def fingerprint(self) -> str:
        """Return a hash of the image's metadata, its chunks' names and sizes, and some content.

        The content is the start of chunks spread over each level, since the sizes of uncompressed
        chunks never change. Labels in the same folder don't count.
        """
        digest = hashlib.sha256(json.dumps(self._image, sort_keys=True).encode())
        levels = zip(self._folders, self._nodes, self._arrays, strict=True)
        for folder, node, array in levels:
            digest.update(json.dumps(node.document, sort_keys=True).encode())
            chunks = _chunks(folder)
            if array.shows_gaps(len(chunks)):
                digest.update(b"white gaps")  # earlier versions showed them black
            for name, size in chunks:
                digest.update(f"{name} {size}\n".encode())
            sampled = [name for name, _ in chunks[:: -(-len(chunks) // SAMPLED_CHUNKS) or 1]]
            for start in map_concurrently(partial(_start, folder), sampled, self._location):
                digest.update(start)
        return digest.hexdigest()

    @override
    def close(self) -> None:
        pass  # nothing stays open between reads


def _start(folder: Folder, name: str) -> bytes:
    with os_errors_as(SlideError, folder.location / name):
        return folder.read(name, SAMPLED_BYTES) or b""


def _chunks(folder: Folder) -> list[tuple[str, int]]:
    """Return the name (relative, with "/") and the size of every stored chunk, sorted."""
    try:
        files = sorted(folder.sizes())
    except OSError as error:
        where = error.filename or folder.location
        raise SlideError(f"{where}: can't be read: {error.strerror or error}") from error
    return [(file, size) for file, size in files if not _NOT_A_CHUNK.search(file)]


def _order(axes: list[str], wanted: str) -> list[int]:
    return [axes.index(axis) for axis in wanted]
