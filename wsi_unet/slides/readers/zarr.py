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
from collections.abc import Mapping
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
from wsi_unet.slides.readers.zarr_metadata import (
    Node,
    array_axes,
    compression_name,
    describe_zarr,
    first_image,
    image_axes,
    is_zarr,
    load_node,
    pixel_size,
    refuse_fluorescence,
)
from wsi_unet.slides.slide import Reader
from wsi_unet.slides.sources.folder import Folder
from wsi_unet.slides.sources.opening import open_folder
from wsi_unet.slides.window_memory import LARGE_TILE
from wsi_unet.storage.concurrent import map_concurrently

_NOT_A_CHUNK = re.compile(r"(^|/)(\.[^/]*|zarr\.json|[^/]*\.partial)$")
"""Names of files that hold metadata, or that are being written."""

MAX_LEVELS = 64
"""Levels that are looked at: each has at most half the side of the one before."""
SAMPLED_CHUNKS = 64
SAMPLED_BYTES = 2**16
"""How many chunks per level, and how many bytes of each, count for the fingerprint."""


class ZarrReader(Reader):
    """Reads one image of a Zarr folder."""

    name = "zarr"
    vendor = None

    def __init__(self, location: Location) -> None:
        """Open a folder that holds an OME-Zarr image or a plain array.

        Raises:
            SlideError: it holds neither, or the pixels aren't 8-bit grey or RGB in one plane.
        """
        self._location = location
        self._lock = threading.Lock()
        node, folder = self._find_image(open_folder(location))
        if node.is_array:
            self._image: Mapping[str, Any] = {}
            self._folders, self._nodes = [folder], [node]
            self._axes = array_axes(location, node)
        else:
            self._image = first_image(node)
            names = [str(dataset["path"]) for dataset in self._image["datasets"][:MAX_LEVELS]]
            self._folders = [folder.subfolder(name) for name in names]
            self._nodes = list(map_concurrently(load_node, self._folders, location))
            self._axes = image_axes(location, self._image, self._nodes[0])
            refuse_fluorescence(location, node)
        levels = zip(self._folders, self._nodes, strict=True)
        self._arrays = list(map_concurrently(self._open, levels, location))
        shapes = [self._shape(array) for array in self._arrays]
        self.levels = make_levels(shapes, [self._tile(array) for array in self._arrays])
        self.mpp = pixel_size(self._image, self._axes)
        self.compression = compression_name(self._nodes[0].document)
        self.properties = describe_zarr(self._image, node, self._axes)

    def _find_image(self, folder: Folder) -> tuple[Node, Folder]:
        node = load_node(folder)
        if node.is_array or first_image(node):
            return node, folder
        inner = folder.subfolder("0")
        attributes = node.attributes.get("ome", node.attributes)
        if (
            "bioformats2raw.layout" in attributes
            and is_zarr(inner)
            and first_image(load_node(inner))
        ):
            return load_node(inner), inner
        kind = "an HCS plate" if "plate" in attributes else "a Zarr group without an OME-Zarr image"
        raise SlideError(
            f"{folder.location}: is {kind}; give the path of one image or array inside it"
        )

    def _open(self, level: tuple[Folder, Node]) -> zarr.Array[Any]:
        folder, node = level
        location = folder.location
        with foreign_errors_as(SlideError, f"{location}: zarr can't open this array"):
            array = zarr.open_array(
                folder.store(), mode="r", zarr_format=2 if node.version == 2 else 3
            )
        if array.dtype != np.uint8:
            raise SlideError(
                f"{self._location}: its pixels are {array.dtype}; only uint8 is supported, so "
                "convert it to 8-bit RGB first"
            )
        if array.ndim != len(self._axes) or 0 in array.shape:
            raise SlideError(f"{location}: shape {array.shape} doesn't fit the axes {self._axes}")
        sides = dict(zip(self._axes, array.shape, strict=True))
        stacked = {axis: sides[axis] for axis in sides if axis not in "cyx" and sides[axis] != 1}
        if stacked:
            raise SlideError(
                f"{self._location}: is a stack ({stacked}); only single planes are supported, so "
                "extract one first"
            )
        if sides.get("c", 1) not in (1, 3, 4):
            raise SlideError(
                f"{self._location}: has {sides['c']} channels (multi-channel fluorescence?); only "
                "grey, RGB and RGBA are supported, so make an RGB image of it first"
            )
        # Whole chunks are decoded, whatever lies in them along the other axes.
        beside = math.prod(array.chunks) // max(1, math.prod(self._tile(array)))
        if beside > max(4, *array.shape):
            raise SlideError(
                f"{location}: its chunks {array.chunks} are far larger than its shape "
                f"{array.shape}; write it again with smaller chunks"
            )
        return array

    def _shape(self, array: zarr.Array[Any]) -> Shape:
        return array.shape[self._axes.index("y")], array.shape[self._axes.index("x")]

    def _tile(self, array: zarr.Array[Any]) -> Shape:
        return array.chunks[self._axes.index("y")], array.chunks[self._axes.index("x")]

    @override
    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box; absent chunks hold the fill value."""
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
            pixels = np.asarray(self._arrays[level][selection])
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
        for folder, node in zip(self._folders, self._nodes, strict=True):
            digest.update(json.dumps(node.document, sort_keys=True).encode())
            chunks = _chunks(folder)
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
