"""The metadata of Zarr folders, read directly from their few small JSON documents.

OME-Zarr 0.4 is stored in the attributes of a Zarr v2 group, 0.5 under "ome" in those of a v3 group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_unet.errors import SlideError, os_errors_as
from wsi_unet.locations import Location
from wsi_unet.samples import find_other_names
from wsi_unet.slides.levels import PixelSize
from wsi_unet.slides.pixel_size import to_micrometres
from wsi_unet.slides.sources.folder import Folder

DOCUMENTS = ("zarr.json", ".zarray", ".zgroup")
"""A folder that holds one of these is a Zarr node."""

MOST_BYTES = 1 << 24
"""The most bytes of a document."""

_RGB = ["FF0000", "00FF00", "0000FF"]


def is_zarr(folder: Folder) -> bool:
    """Return whether a folder is a Zarr node.

    Raises:
        SlideError: it can't be read.
    """
    return _read_document(folder) is not None


def _read_document(folder: Folder) -> tuple[str, bytes] | None:
    """Return the name and the bytes of the document that makes a folder a Zarr node."""
    for name in DOCUMENTS:
        data = _read(folder, name)
        if data is not None:
            return name, data
    return None


def _read(folder: Folder, name: str) -> bytes | None:
    with os_errors_as(SlideError, folder.location / name):
        data = folder.read(name, MOST_BYTES + 1)
    if data is not None and len(data) > MOST_BYTES:
        raise SlideError(
            f"{folder.location / name}: has more than {MOST_BYTES >> 20} MiB, which no document of "
            "a Zarr has; the Zarr is damaged"
        )
    return data


@dataclass(frozen=True)
class Node:
    """The metadata of a Zarr array or group.

    Attributes:
        document: the node's JSON document ("zarr.json", ".zarray" or ".zgroup").
        attributes: the user's attributes.
        version: of the Zarr format, 2 or 3.
    """

    document: Mapping[str, Any]
    attributes: Mapping[str, Any]
    version: int

    @property
    def is_array(self) -> bool:
        """Whether it is an array rather than a group."""
        return "shape" in self.document


def load_node(folder: Folder) -> Node:
    """Return a node's metadata.

    Raises:
        SlideError: there is none, or it isn't a Zarr document.
    """
    node = find_node(folder)
    if node is None:
        raise SlideError(
            f"{folder.location}: isn't a Zarr array or group (no {', '.join(DOCUMENTS)})"
        )
    return node


def find_node(folder: Folder) -> Node | None:
    """Return a node's metadata; None if the folder isn't a Zarr node.

    Raises:
        SlideError: it can't be read, or isn't a Zarr document.
    """
    found = _read_document(folder)
    if found is None:
        return None
    name, data = found
    document = _parse(folder, name, data)
    if name == "zarr.json":
        attributes = document.get("attributes", {})
        return Node(document, attributes if isinstance(attributes, dict) else {}, 3)
    separate = _read(folder, ".zattrs")
    return Node(document, {} if separate is None else _parse(folder, ".zattrs", separate), 2)


def _parse(folder: Folder, name: str, data: bytes) -> dict[str, Any]:
    file = folder.location / name
    try:
        document = json.loads(data)
    except ValueError as error:
        raise SlideError(f"{file}: isn't valid JSON ({error}); the Zarr is damaged") from error
    if not isinstance(document, dict):
        raise SlideError(f"{file}: isn't a Zarr document; the Zarr is damaged")
    return document


def list_images(node: Node) -> list[Mapping[str, Any]]:
    """Return the images that a group describes; a malformed one is left out."""
    described = node.attributes.get("ome", node.attributes)
    images = described.get("multiscales") if isinstance(described, dict) else None
    return [image for image in images if _is_image(image)] if isinstance(images, list) else []


def _is_image(image: object) -> bool:
    datasets = image.get("datasets") if isinstance(image, dict) else None
    return (
        isinstance(datasets, list)
        and bool(datasets)
        and all(isinstance(dataset, dict) and "path" in dataset for dataset in datasets)
    )


def image_axes(location: Location, image: Mapping[str, Any], finest: Node) -> str:
    """Return one letter for each dimension of an image; before OME-Zarr 0.3 always "tczyx"."""
    axes = image.get("axes")
    if axes is None:
        return "tczyx"[-len(finest.document.get("shape", ())) :]
    names = [axis.get("name", "?") if isinstance(axis, dict) else axis for axis in axes]
    letters = "".join(str(name)[:1].lower() for name in names)
    if len(set(letters)) != len(names) or not {"y", "x"} <= set(letters):
        raise SlideError(f"{location}: axes {names} aren't those of an image with y and x")
    return letters


def array_axes(location: Location, node: Node) -> str:
    """Return one letter for each dimension of a plain array, from its names or its shape."""
    shape = tuple(node.document.get("shape", ()))
    names = node.document.get("dimension_names") or node.attributes.get("_ARRAY_DIMENSIONS")
    if isinstance(names, list) and len(names) == len(shape):
        letters = "".join(str(name)[:1].lower().replace("s", "c") for name in names)
        if {"y", "x"} <= set(letters) <= set("tczyx") and len(set(letters)) == len(letters):
            return letters
    spare = len(shape) - 3
    if len(shape) == 2:
        return "yx"
    if 0 <= spare <= 2 and all(side == 1 for side in shape[:spare]):
        if shape[-1] in (1, 3, 4):
            return "tz"[:spare] + "yxc"
        if shape[spare] in (1, 3, 4):
            return "tz"[:spare] + "cyx"
    raise SlideError(
        f"{location}: an array of shape {shape} isn't an image: (y, x), (y, x, c) or (c, y, x) "
        "with 1, 3 or 4 channels is"
    )


def refuse_fluorescence(node: Node, axes: str, shape: Sequence[int]) -> None:
    """Refuse three or four channels that aren't red, green and blue, or that with alpha.

    Args:
        node: the image, which may state colours and names of its channels.
        axes: one letter for each of its dimensions.
        shape: its lengths along them.

    Raises:
        SlideError: without the path. Four channels must be the last axis, as in arrays of pixels,
            or the last one must be called alpha.
    """
    channels = list(_stated_channels(node))
    colours = [str(channel.get("color", "")).lstrip("#").upper()[:6] for channel in channels]
    names = [str(channel.get("label") or "") for channel in channels]
    others = find_other_names(names)
    if len(names) in (3, 4) and others:
        raise SlideError(
            f"its channels are called {', '.join(others)}: fluorescence, not RGB? Make an RGB "
            "image of it first"
        )
    alpha = names[3:] and names[3].strip().lower() in ("a", "alpha")
    if dict(zip(axes, shape, strict=True)).get("c") == 4 and axes[-1] != "c" and not alpha:
        raise SlideError(
            "has 4 channels, and the last isn't called alpha: multi-channel fluorescence? Make an "
            "RGB image of it first"
        )
    if len(colours) in (3, 4) and all(colours) and colours[:3] != _RGB:
        raise SlideError(
            f"its channels are coloured {', '.join(colours)}: fluorescence, not RGB; make an RGB "
            "image of it first"
        )


def _stated_channels(node: Node) -> Iterator[Mapping[str, Any]]:
    described = node.attributes.get("ome", node.attributes)
    omero = described.get("omero") if isinstance(described, dict) else None
    channels = omero.get("channels") if isinstance(omero, dict) else None
    for channel in channels if isinstance(channels, list) else ():
        if isinstance(channel, dict):
            yield channel


def pixel_size(image: Mapping[str, Any], axes: str) -> tuple[PixelSize | None, tuple[str, ...]]:
    """Return µm per px of the finest level: its scale times the image's, in the axes' units.

    Returns:
        The pixel size, None if it isn't stated; and a line if it is and can't be understood.
    """
    if not image or not isinstance(image.get("axes"), list):
        return None, ()
    units = {axis["name"][:1]: axis.get("unit") for axis in image["axes"] if isinstance(axis, dict)}
    scales = list(_scales(image["datasets"][0])) + list(_scales(image))
    if not scales or any(len(scale) != len(axes) for scale in scales):
        return None, ()
    factors = {axis: math.prod(scale[axes.index(axis)] for scale in scales) for axis in "yx"}
    sides = {axis: to_micrometres(factors[axis], units.get(axis)) for axis in "yx"}
    if sides["y"] is not None and sides["x"] is not None:
        return PixelSize(sides["y"], sides["x"]), ()
    if not any(units.get(axis) for axis in "yx"):
        return None, ()
    stated = ", ".join(f"{axis} {factors[axis]:.6g} {units.get(axis)!r}" for axis in "yx")
    return None, (f"its pixel size is unknown: its axes state {stated}",)


def _scales(described: Mapping[str, Any]) -> Iterator[list[float]]:
    for transformation in described.get("coordinateTransformations") or ():
        if transformation.get("type") == "scale":
            yield transformation["scale"]


def compression_name(document: Mapping[str, Any]) -> str | None:
    """Return the name of the last codec that compresses bytes."""
    if document.get("compressor"):
        return str(document["compressor"].get("id"))
    codecs = document.get("codecs") or []
    for codec in codecs:
        if codec.get("name") == "sharding_indexed":
            codecs = codec["configuration"]["codecs"]
    names = [codec["name"] for codec in codecs if codec.get("name") not in ("bytes", "crc32c")]
    return str(names[-1]) if names else None


def describe_zarr(image: Mapping[str, Any], node: Node, axes: str) -> dict[str, str]:
    """Return the `Slide.properties` of a Zarr."""
    properties = {"zarr.format": str(node.version), "zarr.axes": axes}
    version = image.get("version") or node.attributes.get("ome", {}).get("version")
    if version:
        properties["ome.version"] = str(version)
    if image.get("name"):
        properties["ome.name"] = str(image["name"])
    return properties
