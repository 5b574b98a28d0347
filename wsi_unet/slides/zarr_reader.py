"""Chunked arrays: OME-Zarr 0.4 and 0.5 images, and plain Zarr arrays of either format.

The metadata documents are read as they are (a few small JSON files); zarr-python only reads
pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_unet.errors import SlideError
from wsi_unet.geometry import Box, Shape
from wsi_unet.slides.colour import to_rgb
from wsi_unet.slides.levels import pyramid
from wsi_unet.slides.zarr_metadata import (
    Node,
    array_axes,
    compression_name,
    describe,
    image_axes,
    is_zarr,
    load_node,
    multiscale,
    pixel_size,
    refuse_coloured,
)

SAMPLED_CHUNKS = 64
SAMPLED_BYTES = 2**16
"""How many chunks per level, and how much of each, count for the fingerprint."""


class ZarrReader:
    """Reads one image out of a Zarr folder, finest level first."""

    name = "zarr"
    vendor = None

    def __init__(self, path: Path) -> None:
        """Open a folder that holds an OME-Zarr image or a plain array.

        Raises:
            SlideError: it holds none, or its pixels aren't 8-bit grey or RGB in one plane.
        """
        self._path = path
        node, folder = self._find_image(path)
        if node.is_array:
            self._image: Mapping[str, Any] = {}
            self._folders = [folder]
            self._axes = array_axes(path, node)
        else:
            self._image = multiscale(node)
            self._folders = [folder / str(one["path"]) for one in self._image["datasets"]]
            self._axes = image_axes(path, self._image, load_node(self._folders[0]))
            refuse_coloured(path, node)
        self._arrays = [self._open(folder) for folder in self._folders]
        shapes = [self._shape(array) for array in self._arrays]
        self.levels = pyramid(shapes, [self._tile(array) for array in self._arrays])
        self.mpp = pixel_size(self._image, self._axes)
        self.compression = compression_name(load_node(self._folders[0]).document)
        self.properties = describe(self._image, node, self._axes)

    def _find_image(self, path: Path) -> tuple[Node, Path]:
        node = load_node(path)
        if node.is_array or multiscale(node):
            return node, path
        inner = path / "0"
        attributes = node.attributes.get("ome", node.attributes)
        if (
            "bioformats2raw.layout" in attributes
            and is_zarr(inner)
            and multiscale(load_node(inner))
        ):
            return load_node(inner), inner
        kind = "an HCS plate" if "plate" in attributes else "a Zarr group without an OME-Zarr image"
        raise SlideError(f"{path}: is {kind}; give the path of one image or array inside it")

    def _open(self, folder: Path) -> zarr.Array[Any]:
        node = load_node(folder)
        try:
            array = zarr.open_array(
                str(folder), mode="r", zarr_format=2 if node.version == 2 else 3
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise SlideError(f"{folder}: zarr can't open this array ({error})") from error
        if array.dtype != np.uint8:
            raise SlideError(
                f"{self._path}: its pixels are {array.dtype}; only uint8 is supported, so convert "
                "it to 8-bit RGB first"
            )
        if array.ndim != len(self._axes) or 0 in array.shape:
            raise SlideError(f"{folder}: shape {array.shape} doesn't fit the axes {self._axes}")
        sides = dict(zip(self._axes, array.shape, strict=True))
        stacked = {axis: sides[axis] for axis in sides if axis not in "cyx" and sides[axis] != 1}
        if stacked:
            raise SlideError(
                f"{self._path}: is a stack ({stacked}); only single planes are supported, so "
                "extract one first"
            )
        if sides.get("c", 1) not in (1, 3, 4):
            raise SlideError(
                f"{self._path}: has {sides['c']} channels (multi-channel fluorescence?); only "
                "grey, RGB and RGBA are supported, so make an RGB image of it first"
            )
        return array

    def _shape(self, array: zarr.Array[Any]) -> Shape:
        return array.shape[self._axes.index("y")], array.shape[self._axes.index("x")]

    def _tile(self, array: zarr.Array[Any]) -> Shape:
        return array.chunks[self._axes.index("y")], array.chunks[self._axes.index("x")]

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return RGB (h, w, 3) of a box inside an existing level.

        Raises:
            SlideError: a chunk can't be read or decoded; absent chunks hold the fill value.
        """
        rows, columns = box.slices()
        picks = {"y": rows, "x": columns, "c": slice(None)}
        selection = tuple(picks.get(axis, 0) for axis in self._axes)
        try:
            pixels = np.asarray(self._arrays[level][selection])
        except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
            raise SlideError(
                f"{self._folders[level]}: {box} can't be read ({error}); a chunk may be damaged"
            ) from error
        kept = [axis for axis in self._axes if axis in picks]
        if "c" not in kept:
            return np.ascontiguousarray(to_rgb(pixels.transpose(_order(kept, "yx"))[..., None]))
        return np.ascontiguousarray(to_rgb(pixels.transpose(_order(kept, "yxc"))))

    def fingerprint(self) -> str:
        """Return digits of the image's metadata, its chunks' names and sizes, and some content.

        The content is the start of chunks spread over each level, since the sizes of uncompressed
        ones never change. Labels that lie in the same folder don't count.

        Raises:
            SlideError: the folder can't be read.
        """
        digest = hashlib.sha256(json.dumps(self._image, sort_keys=True).encode())
        for folder in self._folders:
            document = load_node(folder).document
            digest.update(json.dumps(document, sort_keys=True).encode())
            objects = sorted(_objects(folder))
            for name, size in objects:
                digest.update(f"{name} {size}\n".encode())
            for name, _ in objects[:: -(-len(objects) // SAMPLED_CHUNKS) or 1]:
                digest.update(_start(folder / name))
        return digest.hexdigest()

    def close(self) -> None:
        """Nothing stays open between reads."""


def _start(file: Path) -> bytes:
    try:
        with file.open("rb") as chunk:
            return chunk.read(SAMPLED_BYTES)
    except OSError as error:
        raise SlideError(f"{file}: can't be read: {error.strerror}") from error


def _order(axes: list[str], wanted: str) -> list[int]:
    return [axes.index(axis) for axis in wanted]


def _objects(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name (relative, with /) and size of every stored chunk."""
    for place, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            if name.startswith(".") or name.endswith(".partial") or name == "zarr.json":
                continue
            file = Path(place, name)
            try:
                yield file.relative_to(folder).as_posix(), file.stat().st_size
            except OSError as error:
                _raise(error)


def _raise(error: OSError) -> None:
    raise SlideError(f"{error.filename}: can't be read: {error.strerror}") from error
