"""The images of a Zarr: one array, those that a group lists, or those that converters number.

bioformats2raw writes every image of its source, macros and labels too, into a group of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_unet.errors import SlideError
from wsi_unet.slides.readers.zarr_metadata import (
    Node,
    array_axes,
    find_node,
    image_axes,
    list_images,
    load_node,
    refuse_fluorescence,
)
from wsi_unet.slides.series import Series, is_associated
from wsi_unet.slides.sources.folder import Folder

MAX_IMAGES = 1000
"""Images that are looked at; bioformats2raw numbers them from 0 on."""


@dataclass(frozen=True)
class ZarrImage:
    """One image of a Zarr.

    Attributes:
        folder: the group or array that holds it.
        node: the metadata of that.
        described: what the group says about it; empty for a plain array.
    """

    folder: Folder
    node: Node
    described: Mapping[str, Any]

    def series(self) -> Series:
        """Return what it is, from its metadata, and why it can't be a slide.

        Raises:
            SlideError: its metadata can't be read.
        """
        location = self.folder.location
        finest = self.node
        if self.described:
            finest = load_node(self.folder.subfolder(str(self.described["datasets"][0]["path"])))
        name = str(self.described.get("name") or "")
        shape, refusal = (0, 0), None
        try:
            axes = (
                image_axes(location, self.described, finest)
                if self.described
                else array_axes(location, finest)
            )
            sides = dict(zip(axes, finest.document["shape"], strict=True))
            shape = int(sides["y"]), int(sides["x"])
            refuse_samples(
                sides, str(finest.document.get("data_type", finest.document.get("dtype")))
            )
            refuse_fluorescence(self.node, axes, finest.document["shape"])
        except (SlideError, KeyError, TypeError, ValueError) as error:
            refusal = str(error).removeprefix(f"{location}: ")
        levels = len(self.described["datasets"]) if self.described else 1
        return Series(name, shape, levels, is_associated(name), refusal)


def find_images(folder: Folder) -> list[ZarrImage]:
    """Return the images of a Zarr.

    Raises:
        SlideError: it holds none.
    """
    node = load_node(folder)
    if node.is_array:
        return [ZarrImage(folder, node, {})]
    own = [ZarrImage(folder, node, described) for described in list_images(node)]
    attributes = node.attributes.get("ome", node.attributes)
    if not own and "bioformats2raw.layout" in attributes:
        own = list(_converted(folder))
    if not own:
        kind = "an HCS plate" if "plate" in attributes else "a Zarr group without an OME-Zarr image"
        raise SlideError(
            f"{folder.location}: is {kind}; give the path of one image or array inside it"
        )
    return own


def _converted(folder: Folder) -> Iterator[ZarrImage]:
    """Yield the images of bioformats2raw: those that it lists, else those numbered from 0 on."""
    listed = _listed(folder)
    nodes = _load_listed(folder, listed) if listed else _find_numbered(folder)
    for inner, node in nodes:
        for described in list_images(node)[:1]:
            yield ZarrImage(inner, node, described)


def _listed(folder: Folder) -> list[str]:
    """Return the paths of images as the group OME lists them; none if it doesn't."""
    ome = find_node(folder.subfolder("OME"))
    attributes = ome.attributes if ome is not None else {}
    paths = attributes.get("ome", attributes).get("series")
    return [
        path
        for path in (paths if isinstance(paths, list) else [])[:MAX_IMAGES]
        if isinstance(path, str) and not {"", ".", ".."} & set(path.split("/"))
    ]


def _load_listed(folder: Folder, names: Sequence[str]) -> Iterator[tuple[Folder, Node]]:
    for inner in map(folder.subfolder, names):
        yield inner, load_node(inner)


def _find_numbered(folder: Folder) -> Iterator[tuple[Folder, Node]]:
    for number in range(MAX_IMAGES):
        inner = folder.subfolder(str(number))
        node = find_node(inner)
        if node is None:
            return
        yield inner, node


def refuse_samples(sides: Mapping[str, int], dtype: str) -> None:
    """Refuse an array whose values aren't 8-bit grey or RGB in one plane.

    Args:
        sides: its length along each axis.
        dtype: its data type, as numpy or Zarr spell it.

    Raises:
        SlideError: without the path; the message says what it is.
    """
    if dtype not in ("uint8", "|u1"):
        raise SlideError(
            f"its pixels are {dtype}; only uint8 is supported, so convert it to 8-bit RGB first"
        )
    stacked = {axis: sides[axis] for axis in sides if axis not in "cyx" and sides[axis] != 1}
    if stacked:
        raise SlideError(
            f"is a stack ({stacked}); only single planes are supported, so extract one first"
        )
    if sides.get("c", 1) not in (1, 3, 4):
        raise SlideError(
            f"has {sides['c']} channels (multi-channel fluorescence?); only grey, RGB and RGBA are "
            "supported, so make an RGB image of it first"
        )
