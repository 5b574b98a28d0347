"""The progress of painting a label image of objects: a marker beside the others, per block.

    <output>/.wsi_unet/<run>/objects/<label>/image/
        <i>.<j>.json    the shards of a painted block
        tail.json       those of the small levels

A marker is put after the shards that it describes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.documents import StoredDocument
from wsi_unet.labels.shards import Checksum, ShardRecord
from wsi_unet.objects.records import StageFiles
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.store import get_bounded

MOST_MARKER_BYTES = 1 << 24

ShardKey = Annotated[str, Field(max_length=300)]


class PaintedMarker(StoredDocument):
    """The marker of what is painted.

    Attributes:
        signature: hash of the table that it was painted from.
        shards: the records of its shards, by key.
    """

    format_version: Literal[1] = 1
    signature: Checksum
    shards: dict[ShardKey, ShardRecord]


@dataclass(frozen=True)
class ImageFiles:
    """The progress files of the label image of a label group's objects.

    Attributes:
        files: the files of the objects.
    """

    files: StageFiles

    @property
    def _folder(self) -> str:
        return f"{BOOKKEEPING}/{self.files.run}/objects/{self.files.label}/image"

    def is_painted(self, block: BlockIndex | None, signature: str) -> bool:
        """Return whether a block was painted from a table, and its shards are intact; reads them.

        Args:
            block: the block; None for the small levels.
            signature: hash of the table.
        """
        store, marker = self.files.store, self._read(block)
        if marker is None or marker.signature != signature:
            return False
        return all(shard.is_intact(store, key) for key, shard in marker.shards.items())

    def is_lost(self, key: str, index: BlockIndex) -> bool:
        """Return whether a shard that isn't stored was stored once.

        Args:
            key: its key.
            index: its index, which is that of its block unless it belongs to the small levels.
        """
        markers = (self._read(block) for block in (index, None))
        shards = (marker.shards.get(key) for marker in markers if marker is not None)
        return any(shard is not None and not shard.empty for shard in shards)

    def mark(
        self, block: BlockIndex | None, signature: str, shards: dict[str, ShardRecord]
    ) -> None:
        """Record that a block is painted, after its shards were put."""
        marker = PaintedMarker(signature=signature, shards=shards)
        self.files.store.put(self._key(block), marker.model_dump_json().encode())

    def clear(self) -> None:
        """Remove all markers."""
        self.files.store.delete_all(self._folder)

    def _read(self, block: BlockIndex | None) -> PaintedMarker | None:
        data = get_bounded(self.files.store, self._key(block), MOST_MARKER_BYTES)
        try:
            return None if data is None else PaintedMarker.model_validate_json(data)
        except ValidationError:
            return None

    def _key(self, block: BlockIndex | None) -> str:
        name = "tail" if block is None else f"{block[0]}.{block[1]}"
        return f"{self._folder}/{name}.json"
