"""Laying out the output's tree, in full before the first block is written.

    <output>/
        zarr.json                  the image's metadata, if one is stored
        0 … N-1/                   the image (c, y, x)
        labels/<name>/0 … N-1/     labels (y, x); one group per class where classes overlap
        labels/<name>.objects/     numbers of their objects, see `object_images`
        probability/<name>/0 …     probabilities (c, y, x)
        .wsi_unet/<name>/          progress

All arrays of an output have the same number of levels, because OME-Zarr demands it of an image and
its labels. Arrays are described first, then their group, then the list that names the group: what
a reader can find is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from wsi_unet.errors import OutputError
from wsi_unet.labels.contents import (
    FORMAT_VERSION,
    holds_output,
    parse_frame,
    read_label_names,
    read_level_count,
    read_object_images,
    read_run_groups,
    read_run_names,
)
from wsi_unet.labels.documents import DamagedError, read_group_attributes
from wsi_unet.labels.group_files import (
    check_levels,
    create_arrays,
    has_image,
    hide_folder,
    put_json,
    put_names,
)
from wsi_unet.labels.metadata import (
    OME_VERSION,
    Document,
    Frame,
    StoredClass,
    describe_channels,
    describe_classes,
    describe_group,
    describe_multiscales,
)
from wsi_unet.labels.names import (
    IMAGE_NAME,
    OBJECTS,
    OBJECTS_SUFFIX,
    check_label_name,
    edited_name,
)
from wsi_unet.labels.object_images import add_source, remove_object_image
from wsi_unet.labels.progress import Progress
from wsi_unet.labels.pyramid import MOST_LEVELS, Pyramid
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.store import ByteStore


def ensure_root(store: ByteStore, provenance: Mapping[str, JsonValue]) -> None:
    """Write the root group, which marks an output of wsi-unet, unless it is there and not empty.

    Args:
        store: the output.
        provenance: the slide's provenance, stored under `wsi_unet`.

    Raises:
        OutputError: something else is there, or nothing can be written.
    """
    if holds_output(store) and read_level_count(store) is not None:
        return
    ours: Document = {"format_version": FORMAT_VERSION, **provenance}
    put_json(store, "zarr.json", describe_group({"wsi_unet": ours}))
    hide_folder(store, BOOKKEEPING)


def create_image(store: ByteStore, name: str, pyramid: Pyramid, frame: Frame) -> None:
    """Lay out the slide's image (3, y, x) at the root, before the labels or after them.

    Args:
        store: the output; `ensure_root` was called.
        name: name of the slide, for viewers.
        pyramid: pyramid of the image; with as many levels as the labels have.
        frame: frame of level 0.

    Raises:
        OutputError: the labels have another number of levels, or nothing can be written.
    """
    check_levels(store, pyramid)
    create_arrays(store, "", pyramid, 3)
    colors = (("R", "#ff0000", True), ("G", "#00ff00", True), ("B", "#0000ff", True))
    attributes = read_group_attributes(store, "") or {}
    attributes["ome"] = {
        "version": OME_VERSION,
        "multiscales": describe_multiscales(name, pyramid, frame, "mean", channels=True),
        "omero": describe_channels(colors),
    }
    put_json(store, "zarr.json", describe_group(attributes))
    for label in read_label_names(store):
        group = f"labels/{label}"
        attributes = _label_attributes(store, label)
        attributes["ome"]["image-label"]["source"] = {"image": "../../"}
        put_json(store, f"{group}/zarr.json", describe_group(attributes))
    for image in read_object_images(store):
        add_source(store, image)


def create_labels(
    store: ByteStore,
    name: str,
    pyramid: Pyramid,
    frame: Frame,
    classes: Sequence[StoredClass],
    provenance: Mapping[str, JsonValue],
) -> None:
    """Lay out a label group and list it beside the others. It starts as not finished.

    Args:
        store: the output; `ensure_root` was called, and `create_image` if there is an image.
        name: name of the group, see `check_label_name`.
        pyramid: pyramid of the labels.
        frame: frame of level 0.
        classes: the meaning of the values, 0 included.
        provenance: the run's provenance, stored under `wsi_unet` of the group.

    Raises:
        OptionError: the name can't be used.
        OutputError: stored arrays have another number of levels, or nothing can be written.
    """
    check_label_name(name)
    check_levels(store, pyramid)
    group = f"labels/{name}"
    if name.endswith(OBJECTS_SUFFIX):
        remove_object_image(store, name.removesuffix(OBJECTS_SUFFIX))
    create_arrays(store, group, pyramid, None)
    ome: Document = {
        "version": OME_VERSION,
        "multiscales": describe_multiscales(name, pyramid, frame, "mode", channels=False),
        "image-label": describe_classes(classes, has_image=has_image(store)),
    }
    ours: Document = {**provenance, "finished": None}
    put_json(store, f"{group}/zarr.json", describe_group({"ome": ome, "wsi_unet": ours}))
    names = read_label_names(store)
    if name not in names:
        put_names(store, [*names, name], read_object_images(store))


def create_probabilities(
    store: ByteStore,
    name: str,
    pyramid: Pyramid,
    frame: Frame,
    classes: Sequence[StoredClass],
    provenance: Mapping[str, JsonValue],
) -> None:
    """Lay out probabilities (c, y, x): 0 to 255 for 0 to 1, one channel per class in order.

    Args:
        store: the output; `ensure_root` was called.
        name: name of the label group that they belong to.
        pyramid: pyramid of the labels.
        frame: frame of the labels' level 0.
        classes: the class of each channel; viewers hide the one with value 0 at first.
        provenance: the run's provenance, stored under `wsi_unet` of the group.

    Raises:
        OptionError: the name can't be used.
        OutputError: nothing can be written.
    """
    check_label_name(name)
    group = f"probability/{name}"
    create_arrays(store, group, pyramid, len(classes))
    ome: Document = {
        "version": OME_VERSION,
        "multiscales": describe_multiscales(name, pyramid, frame, "mean", channels=True),
        "omero": describe_channels((item.name, item.color, item.value != 0) for item in classes),
    }
    document = describe_group({"ome": ome, "wsi_unet": dict(provenance)})
    put_json(store, f"{group}/zarr.json", document)
    if store.get("probability/zarr.json") is None:
        put_json(store, "probability/zarr.json", describe_group({}))


def mark_finished(store: ByteStore, name: str, pixels: Sequence[int], finished: str) -> None:
    """Record that a label group is complete, with the area of each class.

    Args:
        store: the output.
        name: name of the group.
        pixels: number of level-0 pixels of label value 0, 1, …
        finished: UTC time, ISO 8601.

    Raises:
        OutputError: there is no such group, or nothing can be written.
    """
    attributes = _label_attributes(store, name)
    frame = parse_frame(attributes)
    for item in attributes["ome"]["image-label"]["properties"]:
        value = item["label-value"]
        item["pixels"] = count = pixels[value] if value < len(pixels) else 0
        area = frame.area_mm2(count)
        if area is not None:
            item["area_mm2"] = round(area, 6)  # to 1 µm²
    attributes["wsi_unet"]["finished"] = finished
    put_json(store, f"labels/{name}/zarr.json", describe_group(attributes))


def mark_unfinished(store: ByteStore, name: str) -> None:
    """Record that a label group is no longer complete, since damage was found in it.

    Raises:
        OutputError: there is no such group, or nothing can be written.
    """
    attributes = _label_attributes(store, name)
    for item in attributes["ome"]["image-label"]["properties"]:
        item.pop("pixels", None)
        item.pop("area_mm2", None)
    attributes["wsi_unet"]["finished"] = None
    put_json(store, f"labels/{name}/zarr.json", describe_group(attributes))


def remove_run(store: ByteStore, name: str) -> None:
    """Remove a run's label groups, probabilities and progress; everything else stays.

    The progress goes first, so that pixels left by an interruption aren't taken for done.

    Raises:
        OptionError: no run can have that name.
        OutputError: something can't be removed.
    """
    check_label_name(name)
    groups = read_run_groups(store, name)
    Progress(store, name).clear()
    if groups:
        names = read_label_names(store)
        kept = [other for other in names if other not in groups]
        put_names(store, kept, read_object_images(store))
    for group in groups or [name]:
        remove_object_image(store, group)
        store.delete_all(f"labels/{group}")
        store.delete_all(f"{OBJECTS}/{group}")
        if edited_name(group) not in read_label_names(store):  # else they are another run's
            store.delete_all(f"{OBJECTS}/{edited_name(group)}")
    if not any(key != f"{OBJECTS}/zarr.json" for key in store.list(OBJECTS)):
        store.delete_all(OBJECTS)
    store.delete_all(f"probability/{name}")


def remove_all(store: ByteStore) -> None:
    """Remove all that wsi-unet wrote but the root group, which then says nothing about a slide.

    The root group stays so that the output is still recognised, interrupted or not: other files in
    the folder are neither removed, nor a reason to refuse the folder from now on.

    Raises:
        OutputError: something can't be removed.
    """
    for name in read_run_names(store):
        remove_run(store, name)
    Progress(store, IMAGE_NAME).clear()
    try:
        levels = read_level_count(store) or 0
    except DamagedError:
        levels = MOST_LEVELS
    for level in range(levels):
        store.delete_all(str(level))
    for group in ("labels", OBJECTS, "probability"):
        store.delete_all(group)
    ours: Document = {"format_version": FORMAT_VERSION}
    put_json(store, "zarr.json", describe_group({"wsi_unet": ours}))


def _label_attributes(store: ByteStore, name: str) -> dict[str, Any]:
    attributes = read_group_attributes(store, f"labels/{name}", "labels")
    if attributes is None:
        raise OutputError(f"{store}: there are no labels {name!r}")
    return attributes
