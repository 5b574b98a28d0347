"""Reading what an output holds from its metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from wsi_unet.errors import OutputError
from wsi_unet.labels.documents import (
    MOST_METADATA_BYTES,
    DamagedError,
    GroupKind,
    parse_json,
    read_array_shape,
    read_bounded,
    read_group_attributes,
)
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.pyramid import Pyramid
from wsi_unet.locations import Location
from wsi_unet.storage.concurrent import map_concurrently
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.opening import open_store
from wsi_unet.storage.store import ByteStore

FORMAT_VERSION = 1

Output = str | os.PathLike[str] | Location
"""An output: a folder or an s3:// URL."""


def open_output(path: Output) -> ByteStore:
    """Open the store of an output.

    Raises:
        OutputError: there is none, or it holds anything else.
    """
    store = open_store(path)
    if not holds_output(store):
        raise OutputError(
            f"{path}: there is no output of wsi-unet here; segment a slide to make one"
        )
    return store


def holds_output(store: ByteStore) -> bool:
    """Return whether the store holds earlier output of wsi-unet (False: it is new or empty).

    Raises:
        OutputError: it holds anything else.
    """
    document = read_bounded(store, "zarr.json", MOST_METADATA_BYTES)
    if document is None:
        for key in store.list(""):
            if not key.startswith(f"{BOOKKEEPING}/"):
                raise OutputError(
                    f"{store}: isn't empty (it holds {key!r}) and was not written by wsi-unet; "
                    "choose another folder"
                )
        return False
    try:
        version = parse_json(document)["attributes"]["wsi_unet"]["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{store}: is a Zarr that wsi-unet did not write; choose another folder"
        ) from error
    if version != FORMAT_VERSION:
        raise OutputError(
            f"{store}: was written in format version {str(version)[:20]}, but this wsi-unet knows "
            f"{FORMAT_VERSION} only; choose another output, or install a version that knows it"
        )
    return True


def read_label_names(store: ByteStore) -> list[str]:
    """Return the names of the label groups of runs, in the order in which they were made.

    Raises:
        OutputError: the list of them is damaged.
    """
    return _read_lists(store)[0]


def read_object_images(store: ByteStore) -> list[str]:
    """Return the names of the label images of objects, which are listed beside label groups.

    Raises:
        OutputError: the list of them is damaged.
    """
    return _read_lists(store)[1]


def _read_lists(store: ByteStore) -> tuple[list[str], list[str]]:
    """Return the names of label groups, and of label images of objects.

    Viewers find both in one list. Which of them are no run's labels is said here and nowhere else.
    """
    try:
        attributes = read_group_attributes(store, "labels", "list")
    except DamagedError as error:
        raise DamagedError(
            f"{store}: 'labels/zarr.json', which lists the labels, is damaged; choose another "
            "output, or remove this one"
        ) from error
    if attributes is None:
        return [], []
    images = list(dict.fromkeys(attributes.get("wsi_unet", {}).get("object_images", [])))
    listed = dict.fromkeys(attributes["ome"]["labels"])
    return [name for name in listed if name not in images], images


def choose_name(path: Output, what: str, names: Sequence[str], name: str | None) -> str:
    """Return the name that was given, or the only one that there is.

    Args:
        path: the output.
        what: what has the names: "labels".
        names: those that there are.
        name: the given one, if any.

    Raises:
        OutputError: there are none, several, or others.
    """
    if not names:
        raise OutputError(f"{path}: there are no {what} here; segment a slide to make some")
    known = ", ".join(names)
    if name is not None:
        if name in names:
            return name
        raise OutputError(f"{path}: there are no {what} {name!r}, only {known}")
    if len(names) > 1:
        raise OutputError(f"{path}: there are several {what}; give `label` one of {known}")
    return names[0]


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
    except DamagedError:
        return label
    return parse_run_name(attributes.get("wsi_unet", {}), label)


def parse_run_name(provenance: Mapping[str, Any], label: str) -> str:
    """Return the name of the run that made a label group; `wsi_unet` of its attributes says it."""
    return str(provenance.get("run", label))


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
    multiscales = attributes.get("ome", {}).get("multiscales")
    return len(multiscales[0]["datasets"]) if multiscales else None


def is_described(store: ByteStore, group: str, pyramid: Pyramid, channels: int | None) -> bool:
    """Return whether the metadata of a group and its arrays are as they were laid out.

    Args:
        store: the output.
        group: the group's key, "labels/nuclei", or "" for the root.
        pyramid: the pyramid of the arrays in that group.
        channels: number of channels of (c, y, x) arrays; None for (y, x) arrays.
    """
    kind: GroupKind = "any" if group == "" else "labels" if channels is None else "channels"
    try:
        attributes = read_group_attributes(store, group, kind) or {}
    except DamagedError:
        return False
    if count_described_levels(attributes) != pyramid.levels or "wsi_unet" not in attributes:
        return False
    leading = () if channels is None else (channels,)

    def is_described_level(level: int) -> bool:
        key = f"{group}/{level}" if group else str(level)
        shape = (*leading, *pyramid.level_shape(level))
        try:
            return read_array_shape(store, key) == (shape, pyramid.shard_side(level))
        except DamagedError:
            return False

    return all(map_concurrently(is_described_level, range(pyramid.levels), store.location))


def parse_frame(attributes: Mapping[str, Any], level: int = 0) -> Frame:
    """Return the frame of a level that a group's attributes describe."""
    multiscale = attributes["ome"]["multiscales"][0]
    scale, translation = multiscale["datasets"][level]["coordinateTransformations"]
    return Frame(
        scale=(scale["scale"][-2], scale["scale"][-1]),
        translation=(translation["translation"][-2], translation["translation"][-1]),
        unit=multiscale["axes"][-1].get("unit"),
    )
