"""Writing the documents that describe groups and arrays, and the list of the label groups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from wsi_unet.errors import OutputError
from wsi_unet.labels.contents import read_level_count
from wsi_unet.labels.documents import read_group_attributes
from wsi_unet.labels.metadata import OME_VERSION, Document, describe_array, describe_group
from wsi_unet.labels.pyramid import CHUNK, UINT8, Pyramid
from wsi_unet.storage.concurrent import map_concurrently
from wsi_unet.storage.store import ByteStore
from wsi_unet.wording import count


def has_image(store: ByteStore) -> bool:
    """Return whether the slide's image is described."""
    return "multiscales" in (read_group_attributes(store, "") or {}).get("ome", {})


def check_levels(store: ByteStore, pyramid: Pyramid) -> None:
    """Refuse a pyramid with another number of levels than what is stored.

    Raises:
        OutputError: it has.
    """
    levels = read_level_count(store)
    if levels not in (None, pyramid.levels):
        raise OutputError(
            f"{store}: what is stored has {count(levels, 'level')}, not {pyramid.levels}; all "
            "arrays of an output must have the same number of levels"
        )


def create_arrays(
    store: ByteStore,
    group: str,
    pyramid: Pyramid,
    channels: int | None,
    dtype: np.dtype[Any] = UINT8,
) -> None:
    """Describe the arrays of a pyramid, (y, x) or with channels (c, y, x)."""
    leading = () if channels is None else (channels,)

    def create(level: int) -> None:
        key = f"{group}/{level}/zarr.json" if group else f"{level}/zarr.json"
        shape = (*leading, *pyramid.level_shape(level))
        put_json(store, key, describe_array(shape, pyramid.shard_side(level), dtype))

    for _ in map_concurrently(create, range(pyramid.levels), store.location):
        pass


def hide_folder(store: ByteStore, folder: str) -> None:
    """Describe a folder of a group that holds other things than Zarr nodes.

    Whenever a group is listed, zarr-python warns about folders that aren't nodes. As an (empty)
    array such a folder is a node, and no tool looks inside an array for others.
    """
    key = f"{folder}/zarr.json"
    if store.size(key) is None:
        put_json(store, key, describe_array((0, 0), CHUNK))


def put_names(store: ByteStore, names: Sequence[str], object_images: Sequence[str]) -> None:
    """List label groups, and label images of objects after them.

    Args:
        store: the output.
        names: the label groups of runs.
        object_images: the label images of objects.
    """
    listed = [*names, *object_images]
    attributes: Document = {"ome": {"version": OME_VERSION, "labels": [*listed]}}
    # The second, top-level list is what older viewers look for.
    attributes["labels"] = [*listed]
    if object_images:
        attributes["wsi_unet"] = {"object_images": [*object_images]}
    put_json(store, "labels/zarr.json", describe_group(attributes))


def put_json(store: ByteStore, key: str, document: Document) -> None:
    """Store a document."""
    store.put(key, json.dumps(document, indent=1, allow_nan=False).encode())
