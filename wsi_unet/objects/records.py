"""The progress of finding objects: small files beside that of the labels.

    <output>/objects/<label>/<i>.<j>.parquet              the objects that begin in a block
    <output>/.wsi_unet/<run>/objects/<label>/
        stage.json          what the parts were made by; `finished` when all are there
        faces/<i>.<j>.npz   which components touch the block's faces
        parts/<i>.<j>.json  the marker of a part
        image/              the progress of their label image, see `painting.image_files`

A part's marker is put after it, and says what it was made from, so a part is made again when any of
that has changed, when its marker can't be read, and when the part isn't what the marker says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError

from wsi_unet.geometry import BlockIndex, Box
from wsi_unet.labels.documents import Count, StoredDocument, Text
from wsi_unet.labels.names import OBJECTS
from wsi_unet.labels.shards import Checksum, ShardRecord
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.intensities.quantities import Measured
from wsi_unet.objects.reach import PartReach
from wsi_unet.objects.report import ClassObjects, Measure, PartFailure
from wsi_unet.objects.rule import ClassRule
from wsi_unet.storage.concurrent import map_concurrently
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.store import ByteStore, get_bounded

MOST_RECORD_BYTES = 1 << 20
MOST_FACES_BYTES = 1 << 28
CHECKSUM_BYTES = 32
MOST_FAILURES = 100
"""Failed blocks that a stage's record names."""

_PART = re.compile(r"/(\d{1,9})\.(\d{1,9})\.parquet")
_PART_MARKER = re.compile(r"/\d{1,9}\.\d{1,9}\.json")

Value = Annotated[str, Field(pattern=r"^\d{1,3}$")]


class ClassCounts(StoredDocument):
    """The objects of one class.

    Attributes:
        objects: number of them.
        pixels: number of their pixels.
        large: number of those that are large.
        dropped_small: objects that weren't kept because they are smaller than the rule's limit.
        dropped_large: objects that weren't kept because they are larger.
    """

    objects: Count = 0
    pixels: Count = 0
    large: Count = 0
    dropped_small: Count = 0
    dropped_large: Count = 0

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields}
        )


class PartMarker(StoredDocument):
    """The marker of a finished part.

    Attributes:
        inputs: hash of all that it was made from.
        file: the record of its file; `empty` if it has no rows, and isn't stored.
        classes: what it holds by label value.
        reach: how far its objects reach.
        signature: signature of the stage that made it; "" of earlier versions.
    """

    format_version: Literal[1] = 1
    inputs: Checksum
    signature: Checksum | Literal[""] = ""
    file: ShardRecord
    classes: dict[Value, ClassCounts]
    reach: PartReach


class StageRecord(StoredDocument):
    """What the parts of a label group were made by.

    Attributes:
        signature: hash of rule, slide, model and frame.
        rules: the rule of each class, by its name.
        parts: number of parts that are stored once it is finished.
        labels_finished: when the labels were finished that it was made from.
        finished: when all parts were there, UTC; None before.
        blocks: number of blocks that have labels.
        unit: "µm", or "px" (of the slide) where its pixel size isn't known.
        area_mm2: area that was predicted; None where the pixel size isn't known.
        measure: what was measured on the slide.
        values: the columns of what the pixels of objects have.
        classes: what was found of each class, once it is finished.
        failures: blocks that failed when it was last tried; at most `MOST_FAILURES`.
    """

    format_version: Literal[1] = 1
    signature: Checksum
    rules: dict[Text, ClassRule]
    parts: Count = 0
    labels_finished: Text
    finished: Text | None = None
    blocks: Count = 0
    unit: Literal["µm", "px"] = "µm"
    area_mm2: Measure | None = None
    measure: Annotated[tuple[Measured, ...], Field(max_length=2)] = ()
    values: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    classes: Annotated[tuple[ClassObjects, ...], Field(max_length=255)] = ()
    failures: Annotated[tuple[PartFailure, ...], Field(max_length=MOST_FAILURES)] = ()


Record = TypeVar("Record", bound=StoredDocument)


@dataclass(frozen=True)
class StageFiles:
    """The files of one label group's objects.

    Attributes:
        store: the output.
        run: name of the run that made the labels.
        label: name of the label group.
    """

    store: ByteStore
    run: str
    label: str

    @property
    def folder(self) -> str:
        """Key of the parts' folder."""
        return f"{OBJECTS}/{self.label}"

    def part_key(self, block: BlockIndex) -> str:
        """Return the key of a part."""
        return f"{self.folder}/{block[0]}.{block[1]}.parquet"

    def _key(self, name: str) -> str:
        return f"{BOOKKEEPING}/{self.run}/objects/{self.label}/{name}"

    def _block_key(self, kind: str, block: BlockIndex, ending: str) -> str:
        return self._key(f"{kind}/{block[0]}.{block[1]}.{ending}")

    def read_stage(self) -> StageRecord | None:
        """Return the stage's record, None if there is no sound one."""
        return self._read(StageRecord, self._key("stage.json"))

    def write_stage(self, record: StageRecord) -> None:
        """Store the stage's record."""
        self.store.put(self._key("stage.json"), record.model_dump_json().encode())

    def read_faces(self, block: BlockIndex, core: Box, labels: str) -> Faces | None:
        """Return a block's faces if they were found in these labels (a checksum), else None."""
        data = get_bounded(self.store, self._block_key("faces", block, "npz"), MOST_FACES_BYTES)
        if data is None or data[:CHECKSUM_BYTES] != _seal(labels, data[CHECKSUM_BYTES:]):
            return None
        return Faces.from_bytes(data[CHECKSUM_BYTES:], core)

    def write_faces(self, block: BlockIndex, labels: str, faces: Faces) -> None:
        """Store a block's faces, with the checksum of the labels that they were found in."""
        data = faces.to_bytes()
        self.store.put(self._block_key("faces", block, "npz"), _seal(labels, data) + data)

    def read_stored_marker(self, block: BlockIndex) -> PartMarker | None:
        """Return the marker of a part, None if there is no sound one; the part isn't looked at."""
        return self._read(PartMarker, self._block_key("parts", block, "json"))

    def find_part_record(self, key: str, signature: str) -> ShardRecord | None:
        """Return the record of the part under a key; None if a stage has made no such part.

        Args:
            key: one of `list_parts`.
            signature: signature of the stage.
        """
        name = _PART.fullmatch(key.removeprefix(self.folder))
        marker = None if name is None else self.read_stored_marker((int(name[1]), int(name[2])))
        if marker is None or marker.signature not in ("", signature):
            return None
        return marker.file

    def read_part_marker(self, block: BlockIndex, inputs: str) -> PartMarker | None:
        """Return the marker of a part that was made from `inputs` and is intact, else None.

        It reads the part.
        """
        marker = self.read_stored_marker(block)
        if marker is None or marker.inputs != inputs:
            return None
        return marker if marker.file.is_intact(self.store, self.part_key(block)) else None

    def check_parts(self, signature: str, *, contents: bool) -> Iterator[bool]:
        """Yield of each part that a stage made whether it is stored as its marker says.

        Args:
            signature: signature of the stage.
            contents: read the parts too, rather than only compare their lengths.
        """
        folder = self._key("parts")
        stored = self.store.list(folder)
        keys = (key for key in stored if _PART_MARKER.fullmatch(key.removeprefix(folder)))

        def check(key: str) -> bool | None:
            marker = self._read(PartMarker, key)
            if marker is None or marker.signature not in ("", signature):
                return None
            row, column = key[len(folder) + 1 :].split(".")[:2]
            part, file = self.part_key((int(row), int(column))), marker.file
            if contents:
                return file.is_intact(self.store, part)
            return self.store.size(part) == (None if file.empty else file.length)

        found = map_concurrently(check, keys, self.store.location)
        return (sound for sound in found if sound is not None)

    def write_part(self, block: BlockIndex, data: bytes | None, marker: PartMarker) -> None:
        """Store a part (None: it has no rows), then its marker."""
        if data is None:
            self.store.delete(self.part_key(block))
        else:
            self.store.put(self.part_key(block), data)
        key = self._block_key("parts", block, "json")
        self.store.put(key, marker.model_dump_json().encode())

    def forget_other_blocks(self, blocks: Container[BlockIndex]) -> None:
        """Remove the markers of blocks that aren't among `blocks`: their labels are gone."""
        folder = self._key("parts")
        for key in [*self.store.list(folder)]:
            name = key.removeprefix(folder)
            if _PART_MARKER.fullmatch(name):
                row, column = name[1:].split(".")[:2]
                if (int(row), int(column)) not in blocks:
                    self.store.delete(key)

    def list_parts(self) -> list[str]:
        """Return the keys of the parts that are stored."""
        return [key for key in self.store.list(self.folder) if key.endswith(".parquet")]

    def _read(self, kind: type[Record], key: str) -> Record | None:
        data = get_bounded(self.store, key, MOST_RECORD_BYTES)
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError:
            return None


def _seal(labels: str, data: bytes) -> bytes:
    return hashlib.sha256(labels.encode() + data).digest()
