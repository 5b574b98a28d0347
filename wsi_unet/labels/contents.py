"""What an output holds, read from its metadata."""

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
        OptionError: if it can't be a folder's name, or is reserved for the image's progress, the
            metadata or the lock.
    """
    if not LABEL_NAME.fullmatch(name) or name in (IMAGE_NAME, "zarr.json", LOCK_NAME):
        raise OptionError(
            f"{name!r} can't name a label group: use up to 64 letters, digits, '.', '_' and '-', "
            f"beginning with a letter or digit, and not {IMAGE_NAME!r}"
        )
    return name


def holds_output(store: ByteStore) -> bool:
    """Return whether the output holds earlier results of ours (False: it is new or empty).

    Raises:
        OutputError: if there is anything else; nothing is touched.
    """
    document = store.get("zarr.json")
    if document is None:
        for key in store.list(""):
            if not key.startswith(f"{BOOKKEEPING}/"):
                raise OutputError(
                    f"{store}: the folder isn't empty (it holds {key!r}) and was not written by "
                    "wsi-unet; choose another output"
                )
        return False
    try:
        ours = json.loads(document)["attributes"]["wsi_unet"]
        version = ours["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{store}: is a Zarr that wsi-unet did not write; choose another output"
        ) from error
    if version != FORMAT_VERSION:
        raise OutputError(
            f"{store}: was written in format version {version}, this wsi-unet knows "
            f"{FORMAT_VERSION}; choose another output or install that version"
        )
    return True


def read_label_names(store: ByteStore) -> list[str]:
    """Return the names of the label groups, in the order they were made."""
    attributes = read_group_attributes(store, "labels")
    if attributes is None:
        return []
    ome = attributes.get("ome")
    names = ome.get("labels") if isinstance(ome, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise OutputError(f"{store}: 'labels/zarr.json' is damaged; start again with --overwrite")
    return names


def read_run_names(store: ByteStore) -> list[str]:
    """Return the names of the runs that made the label groups, in the order they were made."""
    return list(dict.fromkeys(read_run_name(store, name) for name in read_label_names(store)))


def read_run_groups(store: ByteStore, run: str) -> list[str]:
    """Return the names of the label groups that a run made, in the order they were made."""
    return [name for name in read_label_names(store) if read_run_name(store, name) == run]


def read_run_name(store: ByteStore, label: str) -> str:
    """Return the name of the run that made a label group.

    It is the group's own for most, and for one whose metadata is lost or damaged.
    """
    try:
        attributes = read_group_attributes(store, f"labels/{label}") or {}
    except OutputError:
        return label
    return str(attributes.get("wsi_unet", {}).get("run", label))


def read_level_count(store: ByteStore) -> int | None:
    """Return the number of levels that everything in this output has; None if nothing is there.

    New arrays must have as many: make their `Pyramid` with it.
    """
    for group in ("", *(f"labels/{name}" for name in read_label_names(store))):
        levels = count_described_levels(read_group_attributes(store, group) or {})
        if levels is not None:
            return levels
    return None


def count_described_levels(attributes: Mapping[str, Any]) -> int | None:
    """Return how many levels a group's attributes describe, None if they don't describe any."""
    try:
        return len(attributes["ome"]["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError):
        return None


def is_described(store: ByteStore, group: str, pyramid: Pyramid, channels: int | None) -> bool:
    """Whether a group and its arrays are described as they were laid out.

    Args:
        store: the output.
        group: "labels/nuclei", or "" for the root.
        pyramid: of the arrays in that group.
        channels: number of channels of (c, y, x) arrays; None for (y, x) ones.
    """
    try:
        attributes = read_group_attributes(store, group) or {}
    except OutputError:
        return False
    if count_described_levels(attributes) != pyramid.levels or "wsi_unet" not in attributes:
        return False
    leading = () if channels is None else (channels,)

    def same(level: int) -> bool:
        key = f"{group}/{level}/zarr.json" if group else f"{level}/zarr.json"
        shape = (*leading, *pyramid.level_shape(level))
        return bool(_document(store, key) == describe_array(shape, pyramid.shard_side(level)))

    return all(map_concurrently(same, range(pyramid.levels), str(store)))


def _document(store: ByteStore, key: str) -> Any:
    """Return a JSON document, None if it is missing or damaged."""
    try:
        return json.loads(store.get(key) or b"null")
    except ValueError:
        return None


def read_group_attributes(store: ByteStore, group: str) -> dict[str, Any] | None:
    """Return the attributes of a group ("" for the root), None if there is no such group.

    Raises:
        OutputError: if its metadata is damaged.
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
            f"{store}: {key!r} is damaged; compute the labels anew with --overwrite"
        ) from error


def parse_frame(attributes: Mapping[str, Any], level: int = 0) -> Frame:
    """Return the frame of a level from a group's attributes."""
    multiscale = attributes["ome"]["multiscales"][0]
    scale, translation = multiscale["datasets"][level]["coordinateTransformations"]
    return Frame(
        scale=(scale["scale"][-2], scale["scale"][-1]),
        translation=(translation["translation"][-2], translation["translation"][-1]),
        unit=multiscale["axes"][-1].get("unit"),
    )
