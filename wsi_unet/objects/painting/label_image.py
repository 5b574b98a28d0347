"""Painting the label image of a label group's objects: dense numbers in order of identity."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from wsi_unet.cores import usable_cores
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.contents import count_described_levels
from wsi_unet.labels.documents import read_group_attributes
from wsi_unet.labels.names import object_image_name
from wsi_unet.labels.object_images import (
    check_free,
    create_object_image,
    list_object_image,
    read_signature,
    remove_object_image,
)
from wsi_unet.labels.pyramid import UINT32, Pyramid, reduce_mode
from wsi_unet.labels.writer import build_tail, write_block
from wsi_unet.objects.painting.image_files import ImageFiles
from wsi_unet.objects.painting.numbering import DenseNumbering
from wsi_unet.objects.painting.stored import StoredObjects
from wsi_unet.objects.records import StageFiles
from wsi_unet.storage.concurrent import map_in_threads

IMAGE_VERSION = 1
"""Changes when the same table gives other pixels, so that blocks are painted again."""

PIXEL_BYTES = 16
"""Bytes of memory per pixel of a block that is painted and encoded."""

MEMORY = 1 << 30
"""Bytes that blocks in work may take; one is always in work."""

OnBlock = Callable[[int, int], None]
"""Called with the number of blocks that are painted, and of all."""


def paint_block(
    objects: StoredObjects, numbering: DenseNumbering, block: BlockIndex
) -> NDArray[np.uint32]:
    """Return the numbers (h, w) of a block's pixels; 0 where there is no object.

    Raises:
        OutputError: a part isn't what was written.
    """
    return objects.paint(objects.grid.core(block), numbering.number, UINT32)


def write_object_image(objects: StoredObjects, on_block: OnBlock) -> str:
    """Paint what is missing of a label group's object image, complete it and list it.

    Memory depends on the size of a block and on the objects of a row of blocks. Blocks that were
    painted from the same table, and are intact, stay.

    Args:
        objects: the objects.
        on_block: called after each block, in this thread; what it raises ends the painting, and
            what is painted stays.

    Returns:
        The image's name.

    Raises:
        OutputError: a part isn't what was written, there are too many objects, labels of a run
            have the image's name, or something can't be written.
    """
    store, label = objects.store, objects.label
    check_free(store, label)
    pyramid = _find_pyramid(objects)
    numbering, files = DenseNumbering(objects), ImageFiles(objects.files)
    signature = sign_image(objects)
    group = f"labels/{object_image_name(label)}"
    if read_signature(store, label, pyramid) != signature:
        clear_object_image(objects.files)
        provenance: dict[str, JsonValue] = {
            "objects_of": label,
            "run": objects.files.run,
            "objects": numbering.total,
            "signature": signature,
        }
        create_object_image(store, label, pyramid, provenance)

    def write(block: BlockIndex) -> None:
        if not files.is_painted(block, signature):
            painted = paint_block(objects, numbering, block)
            shards = write_block(store, group, pyramid, block, painted, reduce_mode, UINT32)
            files.mark(block, signature, shards)

    blocks = [block for block in objects.grid if objects.find_parts(objects.grid.core(block))]
    threads = max(1, min(usable_cores(), MEMORY // (PIXEL_BYTES * objects.grid.side**2)))
    for done, _ in enumerate(map_in_threads(write, blocks, threads), start=1):
        on_block(done, len(blocks))
    if not files.is_painted(None, signature):
        shards = build_tail(store, group, pyramid, reduce_mode, dtype=UINT32)
        files.mark(None, signature, shards)
    list_object_image(store, label)
    return object_image_name(label)


def sign_image(objects: StoredObjects) -> str:
    """Return the signature of the label image that is painted from objects."""
    return hashlib.sha256(f"{IMAGE_VERSION} {objects.signature}".encode()).hexdigest()


def clear_object_image(files: StageFiles) -> None:
    """Remove the label image of a label group's objects, which are found anew; and its progress.

    Raises:
        OutputError: something can't be removed.
    """
    remove_object_image(files.store, files.label)
    ImageFiles(files).clear()


def _find_pyramid(objects: StoredObjects) -> Pyramid:
    """Return the pyramid of the labels."""
    attributes = read_group_attributes(objects.store, f"labels/{objects.label}", "labels") or {}
    return Pyramid(objects.grid.shape, objects.grid.side, count_described_levels(attributes) or 0)
