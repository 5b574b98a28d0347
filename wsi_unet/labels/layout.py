"""The tree of the output, laid out in full before the first block is written.

    <output>/
        zarr.json                  the image's metadata, if one is stored
        0 … N-1/                   the image (c, y, x)
        labels/<name>/0 … N-1/     labels (y, x); one group per class where classes overlap
        probability/<name>/0 …     probabilities (c, y, x)
        .wsi_unet/<name>/          progress

Everything stored together has the same number of levels, because OME-Zarr demands it of an image
and its labels. Arrays are described first, then their group, then the list that names the group:
what a reader can find is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from wsi_unet.errors import OutputError
from wsi_unet.labels.contents import (
    FORMAT_VERSION,
    IMAGE_NAME,
    check_name,
    check_output,
    group_attributes,
    groups_of,
    is_described,
    label_names,
    read_frame,
    run_names,
    run_of,
    stored_levels,
)
from wsi_unet.labels.metadata import (
    OME_VERSION,
    Document,
    Frame,
    LabelClass,
    array_document,
    group_document,
    image_label,
    multiscales,
    omero,
)
from wsi_unet.labels.progress import Progress
from wsi_unet.labels.pyramid import Pyramid
from wsi_unet.storage.concurrent import map_ahead
from wsi_unet.storage.store import BOOKKEEPING, Objects

__all__ = [
    "Frame",
    "LabelClass",
    "check_name",
    "check_output",
    "create_image",
    "create_labels",
    "create_probabilities",
    "ensure_root",
    "finish_labels",
    "group_attributes",
    "groups_of",
    "is_described",
    "label_names",
    "read_frame",
    "remove_all",
    "remove_labels",
    "run_names",
    "run_of",
    "stored_levels",
    "unfinish_labels",
]


def ensure_root(objects: Objects, provenance: Mapping[str, JsonValue]) -> None:
    """Make the output ours: the root group, unless there is one with something in it.

    Args:
        objects: the output.
        provenance: of the slide; goes under `wsi_unet`.

    Raises:
        OutputError: if there is something else, or nothing can be written.
    """
    if check_output(objects) and stored_levels(objects) is not None:
        return
    ours: Document = {"format_version": FORMAT_VERSION, **provenance}
    _put_json(objects, "zarr.json", group_document({"wsi_unet": ours}))
    # zarr-python warns about folders that are no nodes whenever a group is listed. As an array
    # (of nothing) the bookkeeping is a node, and no tool looks inside an array for others.
    _put_json(objects, f"{BOOKKEEPING}/zarr.json", array_document((0, 0), 512))


def create_image(objects: Objects, name: str, pyramid: Pyramid, frame: Frame) -> None:
    """Lay out the slide's image (3, y, x) at the root, beside labels or before them.

    Args:
        objects: the output; `ensure_root` was called.
        name: of the slide, for viewers.
        pyramid: of the image; as many levels as the labels have.
        frame: of level 0.

    Raises:
        OutputError: if the labels there have another number of levels, or nothing can be written.
    """
    _check_levels(objects, pyramid)
    _create_arrays(objects, "", pyramid, 3)
    colors = (("R", "#ff0000", True), ("G", "#00ff00", True), ("B", "#0000ff", True))
    attributes = group_attributes(objects, "") or {}
    attributes["ome"] = {
        "version": OME_VERSION,
        "multiscales": multiscales(name, pyramid, frame, "mean", channels=True),
        "omero": omero(colors),
    }
    _put_json(objects, "zarr.json", group_document(attributes))
    for label in label_names(objects):
        group = f"labels/{label}"
        attributes = _label_attributes(objects, label)
        attributes["ome"]["image-label"]["source"] = {"image": "../../"}
        _put_json(objects, f"{group}/zarr.json", group_document(attributes))


def create_labels(
    objects: Objects,
    name: str,
    pyramid: Pyramid,
    frame: Frame,
    classes: Sequence[LabelClass],
    provenance: Mapping[str, JsonValue],
) -> None:
    """Lay out a label group and list it, keeping the others. It starts as not finished.

    Args:
        objects: the output; `ensure_root` was called, and `create_image` if there is an image.
        name: of the group, see `check_name`.
        pyramid: of the labels.
        frame: of level 0.
        classes: what the values mean, 0 included.
        provenance: goes under `wsi_unet` of the group.

    Raises:
        OptionError: if the name can't be used.
        OutputError: if what is there has another number of levels, or nothing can be written.
    """
    check_name(name)
    _check_levels(objects, pyramid)
    group = f"labels/{name}"
    _create_arrays(objects, group, pyramid, None)
    ome: Document = {
        "version": OME_VERSION,
        "multiscales": multiscales(name, pyramid, frame, "mode", channels=False),
        "image-label": image_label(classes, source=_has_image(objects)),
    }
    ours: Document = {**provenance, "finished": None}
    _put_json(objects, f"{group}/zarr.json", group_document({"ome": ome, "wsi_unet": ours}))
    names = label_names(objects)
    if name not in names:
        _put_names(objects, [*names, name])


def create_probabilities(
    objects: Objects,
    name: str,
    pyramid: Pyramid,
    frame: Frame,
    classes: Sequence[LabelClass],
    provenance: Mapping[str, JsonValue],
) -> None:
    """Lay out probabilities (c, y, x): 0 .. 255 for 0 .. 1, one channel per class in order.

    Args:
        objects: the output; `ensure_root` was called.
        name: of the label group they belong to.
        pyramid: of the labels.
        frame: of the labels' level 0.
        classes: the class of each channel; that with value 0 is not shown at first.
        provenance: goes under `wsi_unet` of the group.

    Raises:
        OptionError: if the name can't be used.
        OutputError: if nothing can be written.
    """
    check_name(name)
    group = f"probability/{name}"
    _create_arrays(objects, group, pyramid, len(classes))
    ome: Document = {
        "version": OME_VERSION,
        "multiscales": multiscales(name, pyramid, frame, "mean", channels=True),
        "omero": omero((item.name, item.color, item.value != 0) for item in classes),
    }
    document = group_document({"ome": ome, "wsi_unet": dict(provenance)})
    _put_json(objects, f"{group}/zarr.json", document)
    if objects.get("probability/zarr.json") is None:
        _put_json(objects, "probability/zarr.json", group_document({}))


def finish_labels(objects: Objects, name: str, pixels: Sequence[int], finished: str) -> None:
    """Record that a label group is complete, and what was found.

    Args:
        objects: the output.
        name: of the group.
        pixels: number of level-0 pixels of label value 0, 1, …
        finished: UTC time, ISO 8601.

    Raises:
        OutputError: if there is no such group, or nothing can be written.
    """
    attributes = _label_attributes(objects, name)
    frame = read_frame(attributes)
    for item in attributes["ome"]["image-label"]["properties"]:
        value = item["label-value"]
        item["pixels"] = count = pixels[value] if value < len(pixels) else 0
        area = frame.area_mm2(count)
        if area is not None:
            item["area_mm2"] = round(area, 6)  # to 1 µm²
    attributes["wsi_unet"]["finished"] = finished
    _put_json(objects, f"labels/{name}/zarr.json", group_document(attributes))


def unfinish_labels(objects: Objects, name: str) -> None:
    """Record that a label group is not complete (any more): damage was found in it.

    Raises:
        OutputError: if there is no such group, or nothing can be written.
    """
    attributes = _label_attributes(objects, name)
    for item in attributes["ome"]["image-label"]["properties"]:
        item.pop("pixels", None)
        item.pop("area_mm2", None)
    attributes["wsi_unet"]["finished"] = None
    _put_json(objects, f"labels/{name}/zarr.json", group_document(attributes))


def remove_labels(objects: Objects, name: str) -> None:
    """Remove a run's label groups, its probabilities and its progress; all else stays.

    The progress goes first: an interruption leaves pixels that nobody takes for done.

    Raises:
        OptionError: if no group can have that name.
        OutputError: if something can't be removed.
    """
    check_name(name)
    groups = groups_of(objects, name)
    Progress(objects, name).clear()
    if groups:
        names = label_names(objects)
        _put_names(objects, [other for other in names if other not in groups])
    for group in groups or [name]:
        objects.delete_all(f"labels/{group}")
    objects.delete_all(f"probability/{name}")


def remove_all(objects: Objects) -> None:
    """Remove everything of ours but the root group, which then says nothing about a slide.

    It stays so that the output remains ours, interrupted or not: whatever else somebody has put
    beside our files is neither removed nor a reason to refuse the folder from now on.

    Raises:
        OutputError: if something can't be removed.
    """
    for name in run_names(objects):
        remove_labels(objects, name)
    Progress(objects, IMAGE_NAME).clear()
    for level in range(stored_levels(objects) or 0):
        objects.delete_all(str(level))
    for group in ("labels", "probability"):
        objects.delete_all(group)
    ours: Document = {"format_version": FORMAT_VERSION}
    _put_json(objects, "zarr.json", group_document({"wsi_unet": ours}))


def _label_attributes(objects: Objects, name: str) -> dict[str, Any]:
    attributes = group_attributes(objects, f"labels/{name}")
    if attributes is None:
        raise OutputError(f"{objects}: there are no labels {name!r}")
    return attributes


def _has_image(objects: Objects) -> bool:
    return "multiscales" in (group_attributes(objects, "") or {}).get("ome", {})


def _check_levels(objects: Objects, pyramid: Pyramid) -> None:
    levels = stored_levels(objects)
    if levels not in (None, pyramid.levels):
        raise OutputError(
            f"{objects}: what is stored there has {levels} levels, not {pyramid.levels}; arrays "
            "that lie together must have equally many"
        )


def _create_arrays(objects: Objects, group: str, pyramid: Pyramid, channels: int | None) -> None:
    leading = () if channels is None else (channels,)

    def create(level: int) -> None:
        key = f"{group}/{level}/zarr.json" if group else f"{level}/zarr.json"
        shape = (*leading, *pyramid.level_shape(level))
        _put_json(objects, key, array_document(shape, pyramid.shard_side(level)))

    for _ in map_ahead(create, range(pyramid.levels), str(objects)):
        pass


def _put_names(objects: Objects, names: Sequence[str]) -> None:
    # The second, top-level list is what older viewers look for.
    ome: Document = {"version": OME_VERSION, "labels": [*names]}
    _put_json(objects, "labels/zarr.json", group_document({"ome": ome, "labels": [*names]}))


def _put_json(objects: Objects, key: str, document: Document) -> None:
    objects.put(key, json.dumps(document, indent=1, allow_nan=False).encode())
