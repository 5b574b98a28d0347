"""Laying out label images of objects: one number per object, in groups that viewers list as labels.

    <output>/labels/<label>.objects/0 … N-1/    uint32 (y, x), with the levels of labels/<label>

Such an image is listed once it is complete, so whatever is found in the list can be shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from wsi_unet.errors import OutputError
from wsi_unet.labels.contents import parse_frame, read_label_names, read_object_images
from wsi_unet.labels.documents import DamagedError, read_array_shape, read_group_attributes
from wsi_unet.labels.group_files import create_arrays, has_image, put_json, put_names
from wsi_unet.labels.metadata import OME_VERSION, Document, describe_group, describe_multiscales
from wsi_unet.labels.names import object_image_name
from wsi_unet.labels.pyramid import UINT32, Pyramid
from wsi_unet.storage.store import ByteStore


def check_free(store: ByteStore, label: str) -> None:
    """Refuse a label group whose objects' image would have the name of another label group.

    Raises:
        OutputError: there is one.
    """
    name = object_image_name(label)
    if name in read_label_names(store):
        raise OutputError(
            f"{store}: 'labels/{name}' are the labels of a run, so the objects of {label!r} can't "
            "be painted there; segment one of the two into another output"
        )


def create_object_image(
    store: ByteStore, label: str, pyramid: Pyramid, provenance: Mapping[str, JsonValue]
) -> None:
    """Describe the label image of a label group's objects; it isn't listed yet.

    Args:
        store: the output.
        label: the label group.
        pyramid: its pyramid.
        provenance: stored under `wsi_unet` of the group; `signature` says what it is painted from.

    Raises:
        OutputError: there is no such label group, or nothing can be written.
    """
    labels = read_group_attributes(store, f"labels/{label}", "labels")
    if labels is None:
        raise OutputError(f"{store}: there are no labels {label!r}")
    name = object_image_name(label)
    create_arrays(store, f"labels/{name}", pyramid, None, UINT32)
    frame = parse_frame(labels)
    ome: Document = {
        "version": OME_VERSION,
        "multiscales": describe_multiscales(name, pyramid, frame, "mode", channels=False),
        # No colours: viewers give each number one of their own.
        "image-label": {"source": {"image": "../../"}} if has_image(store) else {},
    }
    document = describe_group({"ome": ome, "wsi_unet": dict(provenance)})
    put_json(store, f"labels/{name}/zarr.json", document)


def read_signature(store: ByteStore, label: str, pyramid: Pyramid) -> str | None:
    """Return what a label group's object image is painted from; None if it isn't described."""
    group = f"labels/{object_image_name(label)}"
    try:
        attributes = read_group_attributes(store, group, "object image")
        for level in range(pyramid.levels):
            shape = read_array_shape(store, f"{group}/{level}", UINT32)
            if shape != (pyramid.level_shape(level), pyramid.shard_side(level)):
                return None
    except DamagedError:
        return None
    return None if attributes is None else str(attributes["wsi_unet"]["signature"])


def list_object_image(store: ByteStore, label: str) -> None:
    """List the object image of a label group, which is complete."""
    images, name = read_object_images(store), object_image_name(label)
    if name not in images:
        put_names(store, read_label_names(store), [*images, name])


def remove_object_image(store: ByteStore, label: str) -> None:
    """Remove the object image of a label group, complete or not; labels of that name stay.

    Raises:
        OutputError: something can't be removed.
    """
    names, images, name = (
        read_label_names(store),
        read_object_images(store),
        object_image_name(label),
    )
    if name in images:
        put_names(store, names, [other for other in images if other != name])
    if name not in names:
        store.delete_all(f"labels/{name}")


def add_source(store: ByteStore, name: str) -> None:
    """Say in an object image that the slide's image is stored beside it."""
    key = f"labels/{name}"
    try:
        attributes = read_group_attributes(store, key, "object image")
    except DamagedError:  # whoever finds objects again paints it anew
        return
    if attributes is not None:
        attributes["ome"]["image-label"] = {"source": {"image": "../../"}}
        put_json(store, f"{key}/zarr.json", describe_group(attributes))
