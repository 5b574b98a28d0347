"""The progress of a run: small files beside the pixels, one per finished block.

    <output>/.wsi_unet/<label name>/
        run.json               the run's signature and parameters
        mask.png               its tissue mask
        tail.json              the marker of the small levels, built from all blocks together
        blocks/<i>.<j>.json    the marker of a finished block: its counts and its shards
        failures/<i>.<j>.json  a block that failed

A marker is put after the shards that it describes, so a marker that can be read means that its
block was written. One that can't be read (torn by a power cut, or of another format version), or
that can't be true of its block (see `RunLayout`), counts as missing: the block is computed again,
which is always right.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, Field, JsonValue, ValidationError

from wsi_unet.geometry import BlockGrid, BlockIndex, Box
from wsi_unet.labels.documents import (
    Count,
    DamagedError,
    LabelName,
    StoredDocument,
    Text,
    explain_invalid,
    parse_json,
    read_bounded,
)
from wsi_unet.labels.pyramid import LONGEST_SIDE
from wsi_unet.labels.run_layout import RunLayout
from wsi_unet.labels.shards import ShardRecord
from wsi_unet.storage.concurrent import map_concurrently
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.store import ByteStore, get_bounded

__all__ = ["BlockFailure", "BlockMarker", "Progress", "RunRecord", "ShardRecord"]

MOST_MASK_CELLS = 1 << 28
"""The most cells that a tissue mask may have: more than any has, and they fit in memory."""

MOST_RUN_BYTES = 1 << 22
MOST_MARKER_BYTES = 1 << 20
MOST_FAILURE_BYTES = 1 << 16
MOST_MASK_BYTES = MOST_MASK_CELLS // 8 + (1 << 16)
"""The most bytes of each kind of file; a mask of random cells can't be compressed."""

MOST_BOXES = 4096
"""The most boxes of a block's computed part."""

TAIL_SHARD_BYTES = 256
"""The most bytes that a tail's marker has per shard."""

LONGEST_ERROR = 4000
"""The most characters of a failure that are kept."""

Index = Annotated[int, Field(ge=0, le=LONGEST_SIDE)]
Attempts = Annotated[int, Field(ge=0, le=1 << 31)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]
Signature = Annotated[str, Field(max_length=64)]
ShardKey = Annotated[str, Field(max_length=200)]


def _check_disjoint(boxes: tuple[tuple[int, int, int, int], ...]) -> Any:
    """Return boxes that are what `merge_boxes` could return: in bands from top to bottom."""
    last = (0, 0, 0, 0)
    for box in boxes:
        beside = (box[0], box[2]) == (last[0], last[2]) and box[1] >= last[3]
        if box[0] >= box[2] or box[1] >= box[3] or not (beside or box[0] >= last[2]):
            raise ValueError("boxes that overlap, or are empty or in another order")
        last = box
    return boxes


_Boxes = Annotated[
    tuple[tuple[Index, Index, Index, Index], ...],
    Field(max_length=MOST_BOXES),
    AfterValidator(_check_disjoint),
]
MarkedBoxes = _Boxes | None
"""Disjoint boxes (y0, x0, y1, x1) of a block, level-0 px, sorted; None is all of the block."""


class _ProgressRecord(StoredDocument):
    model_config = ConfigDict(extra="forbid")

    format_version: Literal[1] = 1


class RunRecord(_ProgressRecord):
    """A run's identity, and everything that was decided at its start.

    Attributes:
        name: name of the label group, or "image".
        signature: hash of everything that decides pixels, hexadecimal.
        parameters: the resolved parameters, including those that don't decide pixels.
        created: UTC time of the first run, ISO 8601.
    """

    name: LabelName | Literal["image"]
    signature: Signature
    parameters: dict[str, JsonValue]
    created: Text


class BlockMarker(_ProgressRecord):
    """The marker of a finished block.

    Attributes:
        block: (row, column) of the block.
        signature: signature of the run that computed it; with another one it means nothing.
        counts: number of level-0 pixels per label value 0, 1, …; empty for image blocks.
        predicted: number of level-0 pixels that the model predicted (those in tissue).
        seconds: time spent, by activity.
        attempts: how often the block was started in its last run; 1 if it never failed.
        ended: when it ended, by the clock of the worker's machine, in seconds since 1970; 0 if
            that isn't known.
        worker: unique name of the process that computed it.
        boxes: what of the block the run's regions covered; pixels outside are 0 and weren't
            predicted. None is all of it, as for every block that earlier versions computed.
        shards: the records of its shards, by key.
    """

    block: tuple[Index, Index]
    signature: Signature
    counts: tuple[Count, ...]
    predicted: Count = 0
    seconds: Annotated[dict[Text, Seconds], Field(max_length=64)]
    attempts: Attempts
    ended: Seconds = 0.0
    worker: Text = ""
    boxes: MarkedBoxes = None
    shards: dict[ShardKey, ShardRecord]

    def covered(self, grid: BlockGrid) -> tuple[Box, ...]:
        """Return what of the block was computed as disjoint boxes, px of the grid's level 0."""
        core = grid.core(self.block)
        if self.boxes is None:
            return (core,)
        return tuple(Box(*box).intersection(core) for box in self.boxes)

    @property
    def empty(self) -> bool:
        """Whether the block is all background, so that nothing of it is stored."""
        return all(shard.empty for shard in self.shards.values())


class BlockFailure(_ProgressRecord):
    """A block that failed.

    Attributes:
        block: (row, column) of the block.
        error: one line about what went wrong.
        attempts: how often it was tried.
    """

    block: tuple[Index, Index]
    error: str
    attempts: Attempts


BlockRecord = TypeVar("BlockRecord", BlockMarker, BlockFailure)
RecordKind = Literal["blocks", "failures"]
MOST_RECORD_BYTES: dict[RecordKind, int] = {
    "blocks": MOST_MARKER_BYTES,
    "failures": MOST_FAILURE_BYTES,
}

_BLOCK_NAME = re.compile(r"/(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.json")
"""What the name of a block's file is, after its folder."""


class Progress:
    """The progress files of one label group (or of the image, under the name "image").

    Args:
        store: the output.
        name: the run's name.
        layout: what markers can say; None takes those that only have the right form, so nothing in
            them may be relied on.
    """

    def __init__(self, store: ByteStore, name: str, layout: RunLayout | None = None) -> None:
        self.store = store
        self.name = name
        self._layout = layout
        self._root = f"{BOOKKEEPING}/{name}"

    def write_run(self, run: RunRecord) -> None:
        """Store the run's record; must precede its first marker."""
        self.store.put(f"{self._root}/run.json", _to_json(run))

    def read_run(self) -> RunRecord | None:
        """Return the last run's record, None if there was none.

        Raises:
            OutputError: it is damaged or of another version.
        """
        key = f"{self._root}/run.json"
        data = read_bounded(self.store, key, MOST_RUN_BYTES)
        if data is None:
            return None
        try:
            record = RunRecord.model_validate_json(data)
            parse_json(data)  # refuses infinite numbers among the parameters, too
            if record.name != self.name:
                raise ValueError("it is another run's")
        except ValueError as error:
            what = explain_invalid(error) if isinstance(error, ValidationError) else str(error)
            raise DamagedError(
                f"{self.store}: {key} is damaged or of another version of wsi-unet ({what}); "
                f"compute {self.name!r} again with `overwrite=True`"
            ) from error
        return record

    def write_mask(self, mask: NDArray[np.bool_]) -> None:
        """Store the tissue mask (rows, columns) as a PNG with one bit per cell."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(np.asarray(mask, bool)).save(file, "png", optimize=True)
        self.store.put(f"{self._root}/mask.png", file.getvalue())

    def read_mask(self) -> NDArray[np.bool_] | None:
        """Return the tissue mask (rows, columns), None if the run has none.

        Raises:
            OutputError: it is damaged.
        """
        from PIL import PngImagePlugin

        data = read_bounded(self.store, f"{self._root}/mask.png", MOST_MASK_BYTES)
        if data is None:
            return None
        try:
            # Image.open would refuse large masks, by a limit of the whole process.
            with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
                if image.mode != "1" or image.width * image.height > MOST_MASK_CELLS:
                    raise ValueError(f"{image.width} x {image.height} cells of mode {image.mode}")
                return np.asarray(image)
        except Exception as error:  # Pillow may raise anything on a forged file
            raise DamagedError(
                f"{self.store}: {self._root}/mask.png is damaged; compute {self.name!r} again "
                "with `overwrite=True`"
            ) from error

    def write_marker(self, marker: BlockMarker) -> None:
        """Mark a block as done, after its shards were put, and remove its failure."""
        self.store.put(self._key("blocks", marker.block), _to_json(marker))
        self.store.delete(self._key("failures", marker.block))

    def read_marker(self, index: BlockIndex, signature: str) -> BlockMarker | None:
        """Return the marker of a block in runs with `signature`, None if there is none."""
        marker = self._parse_block(BlockMarker, index, self._get_record("blocks", index))
        return marker if marker is not None and self._fits(marker, signature) else None

    def read_markers(self, signature: str) -> Iterator[BlockMarker]:
        """Yield the readable markers of runs with `signature`."""
        for marker in self._read_all(BlockMarker, "blocks"):
            if self._fits(marker, signature):
                yield marker

    def write_failure(self, failure: BlockFailure) -> None:
        """Record that a block failed; a very long error is cut off."""
        short = failure.model_copy(update={"error": failure.error[:LONGEST_ERROR]})
        self.store.put(self._key("failures", failure.block), _to_json(short))

    def read_failures(self) -> Iterator[BlockFailure]:
        """Yield the readable failures; blocks that are done have none."""
        return self._read_all(BlockFailure, "failures")

    def forget_block(self, index: BlockIndex) -> None:
        """Remove the marker and the failure of a block, so that it is computed again."""
        self.store.delete(self._key("blocks", index))
        self.store.delete(self._key("failures", index))

    def clear(self) -> None:
        """Remove all progress; the run's record goes last, so that no marker outlives it.

        Other files stay.
        """
        for kind in ("blocks", "failures", "objects"):
            self.store.delete_all(f"{self._root}/{kind}")
        for name in ("tail.json", "mask.png", "run.json"):
            self.store.delete(f"{self._root}/{name}")

    def write_tail(self, shards: dict[str, ShardRecord], signature: str) -> None:
        """Store the marker of what `build_tail` wrote, so that it can be checked as blocks are."""
        marker = BlockMarker(
            block=(0, 0), signature=signature, counts=(), seconds={}, attempts=1, shards=shards
        )
        self.store.put(f"{self._root}/tail.json", _to_json(marker))

    def read_tail(self, signature: str) -> BlockMarker | None:
        """Return the tail's marker, None if it isn't built; its block and counts mean nothing."""
        shards = 0 if self._layout is None else self._layout.count_tail_shards()
        most = MOST_MARKER_BYTES + shards * TAIL_SHARD_BYTES
        marker = _parse(BlockMarker, get_bounded(self.store, f"{self._root}/tail.json", most))
        if marker is None or marker.signature != signature:
            return None
        return marker if self._layout is None or self._layout.fits_tail(marker) else None

    def forget_tail(self) -> None:
        """Remove the tail's marker, so that the small levels are built again."""
        self.store.delete(f"{self._root}/tail.json")

    def check_shards(
        self, markers: Iterable[BlockMarker], *, contents: bool = False
    ) -> Iterator[tuple[BlockMarker, bool]]:
        """Yield each marker and whether its shards exist, as `shards_exist` does for one.

        For many markers this is quicker: a bucket lists thousands of shards in one request.

        Args:
            markers: markers of this run.
            contents: read the shards too, as `shards_intact` does.

        Raises:
            OutputError: the shards can't be looked at.
        """
        if contents:
            yield from map_concurrently(self._check_contents, markers, self.store.location)
            return
        sizes: dict[str, dict[str, int]] = {}
        for marker in markers:
            sound = True
            for key, shard in marker.shards.items():
                array = key.partition("/c/")[0]
                if array not in sizes:
                    sizes[array] = dict(self.store.list_sizes(array))
                sound &= sizes[array].get(key) == (None if shard.empty else shard.length)
            yield marker, sound

    def _check_contents(self, marker: BlockMarker) -> tuple[BlockMarker, bool]:
        return marker, self.shards_intact(marker)

    def shards_exist(self, marker: BlockMarker) -> bool:
        """Return whether a marker's shards are stored with their length, and the empty ones aren't.

        Quick: nothing is read.
        """
        return all(
            self.store.size(key) == (None if shard.empty else shard.length)
            for key, shard in marker.shards.items()
        )

    def shards_intact(self, marker: BlockMarker) -> bool:
        """Return whether a marker's shards are, byte for byte, what was written; reads them all."""
        return all(shard.is_intact(self.store, key) for key, shard in marker.shards.items())

    def _key(self, kind: RecordKind, index: BlockIndex) -> str:
        return f"{self._root}/{kind}/{index[0]}.{index[1]}.json"

    def _fits(self, marker: BlockMarker, signature: str) -> bool:
        if marker.signature != signature:
            return False
        return self._layout is None or self._layout.fits_block(marker)

    def _get_record(self, kind: RecordKind, index: BlockIndex) -> bytes | None:
        return get_bounded(self.store, self._key(kind, index), MOST_RECORD_BYTES[kind])

    def _parse_block(
        self, record: type[BlockRecord], index: BlockIndex, data: bytes | None
    ) -> BlockRecord | None:
        parsed = _parse(record, data)
        return parsed if parsed is not None and parsed.block == index else None

    def _read_all(self, record: type[BlockRecord], kind: RecordKind) -> Iterator[BlockRecord]:
        start = f"{self._root}/{kind}"

        def read(index: BlockIndex) -> BlockRecord | None:
            return self._parse_block(record, index, self._get_record(kind, index))

        names = (_BLOCK_NAME.fullmatch(key[len(start) :]) for key in self.store.list(start))
        indices = ((int(name[1]), int(name[2])) for name in names if name is not None)
        for parsed in map_concurrently(read, indices, self.store.location):
            if parsed is not None:
                yield parsed


def _to_json(record: _ProgressRecord) -> bytes:
    return record.model_dump_json().encode()


def _parse(record: type[BlockRecord], data: bytes | None) -> BlockRecord | None:
    try:
        return None if data is None else record.model_validate_json(data)
    except ValidationError:
        return None
