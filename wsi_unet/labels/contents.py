"""Reading what an output holds from its metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.labels.metadata import Frame, describe_array
from wsi_unet.labels.pyramid import Pyramid
from wsi_unet.storage.concurrent import map_concurrently
from wsi_unet.storage.keys import BOOKKEEPING, LOCK_NAME
from wsi_unet.storage.store import ByteStore

FORMAT_VERSION = 1
IMAGE_NAME = "image"
LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_label_name(name: str) -> str:
    """Return `name` if a label group can have it.

    Raises:
        OptionError: it can't be a folder's name, or it is reserved for the image's progress, the
            metadata or the lock.
    """
    if not LABEL_NAME.fullmatch(name) or name in (IMAGE_NAME, "zarr.json", LOCK_NAME):
        raise OptionError(
            f"{name!r} can't name a label group: use up to 64 letters, digits, '.', '_' and '-', "
            f"beginning with a letter or digit, and not {IMAGE_NAME!r}"
        )
    return name


def holds_output(store: ByteStore) -> bool:
    """Return whether the store holds earlier output of wsi-unet (False: it is new or empty).

    Raises:
        OutputError: it holds anything else.
    """
    document = store.get("zarr.json")
    if document is None:
        for key in store.list(""):
            if not key.startswith(f"{BOOKKEEPING}/"):
                raise OutputError(
                    f"{store}: isn't empty (it holds {key!r}) and was not written by wsi-unet; "
                    "choose another folder"
                )
        return False
    try:
        ours = json.loads(document)["attributes"]["wsi_unet"]
        version = ours["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{store}: is a Zarr that wsi-unet did not write; choose another folder"
        ) from error
    if version != FORMAT_VERSION:
        raise OutputError(
            f"{store}: was written in format version {version}, but this wsi-unet knows "
            f"{FORMAT_VERSION} only; choose another output, or install a version that knows it"
        )
    return True


def read_label_names(store: ByteStore) -> list[str]:
    """Return the names of the label groups, in the order in which they were made.

    Raises:
        OutputError: the list of them is damaged.
    """
    attributes = read_group_attributes(store, "labels")
    if attributes is None:
        return []
    ome = attributes.get("ome")
    names = ome.get("labels") if isinstance(ome, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OutputError(
            f"{store}: 'labels/zarr.json' is damaged; start again with `overwrite=True`"
        )
    return names


def read_run_names(store: ByteStore) -> list[str]:
    """Return the names of the runs that made the label groups, in the order of the groups."""
    return list(dict.fromkeys(read_run_name(store, name) for name in read_label_names(store)))


def read_run_groups(store: ByteStore, run: str) -> list[str]:
    """Return the names of the label groups that a run made, in the order in which it did."""
    return [name for name in read_label_names(store) if read_run_name(store, name) == run]


def read_run_name(store: ByteStore, label: str) -> str:
    """Return the name of the run that made a label group.

    Most runs have the name of their group; so does that of a group whose metadata is lost or
    damaged.
    """
    try:
        attributes = read_group_attributes(store, f"labels/{label}") or {}
    except OutputError:
        return label
    return str(attributes.get("wsi_unet", {}).get("run", label))


def read_level_count(store: ByteStore) -> int | None:
    """Return the number of levels of every pyramid in the output; None if there is none.

    New pyramids must have as many.
    """
    for group in ("", *(f"labels/{name}" for name in read_label_names(store))):
        levels = count_described_levels(read_group_attributes(store, group) or {})
        if levels is not None:
            return levels
    return None


def count_described_levels(attributes: Mapping[str, Any]) -> int | None:
    """Return the number of levels that a group's attributes describe, None for none."""
    try:
        return len(attributes["ome"]["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError):
        return None


def is_described(store: ByteStore, group: str, pyramid: Pyramid, channels: int | None) -> bool:
    """Return whether the metadata of a group and its arrays are as they were laid out.

    Args:
        store: the output.
        group: the group's key, "labels/nuclei", or "" for the root.
        pyramid: the pyramid of the arrays in that group.
        channels: number of channels of (c, y, x) arrays; None for (y, x) arrays.
    """
    try:
        attributes = read_group_attributes(store, group) or {}
    except OutputError:
        return False
    if count_described_levels(attributes) != pyramid.levels or "wsi_unet" not in attributes:
        return False
    leading = () if channels is None else (channels,)

    def is_described_level(level: int) -> bool:
        key = f"{group}/{level}/zarr.json" if group else f"{level}/zarr.json"
        shape = (*leading, *pyramid.level_shape(level))
        return bool(_read_document(store, key) == describe_array(shape, pyramid.shard_side(level)))

    return all(map_concurrently(is_described_level, range(pyramid.levels), store.location))


def _read_document(store: ByteStore, key: str) -> Any:
    """Return the JSON document at `key`, None if it is missing or damaged."""
    try:
        return json.loads(store.get(key) or b"null")
    except ValueError:
        return None


def read_group_attributes(store: ByteStore, group: str) -> dict[str, Any] | None:
    """Return the attributes of a group ("" for the root), None if there is no such group.

    Raises:
        OutputError: its metadata is damaged.
    """
    key = f"{group}/zarr.json" if group else "zarr.json"
    data = store.get(key)
    if data is None:
        return None
    try:
        document = json.loads(data)
        return dict(document["attributes"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{store}: {key!r} is damaged; compute the labels again with `overwrite=True`"
        ) from error


def parse_frame(attributes: Mapping[str, Any], level: int = 0) -> Frame:
    """Return the frame of a level that a group's attributes describe."""
    multiscale = attributes["ome"]["multiscales"][0]
    scale, translation = multiscale["datasets"][level]["coordinateTransformations"]
    return Frame(
        scale=(scale["scale"][-2], scale["scale"][-1]),
        translation=(translation["translation"][-2], translation["translation"][-1]),
        unit=multiscale["axes"][-1].get("unit"),
    )
