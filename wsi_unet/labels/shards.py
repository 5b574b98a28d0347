"""Encoding and decoding shards in memory: the codec `sharding_indexed` of Zarr v3.

A shard is its non-empty inner chunks, each a zstd frame, followed by an index: (offset, length)
as little-endian uint64 for every chunk in row-major order, both 2^64 - 1 for an empty one, and
the index's crc32c. https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/

zarr-python takes 1.4 times as long for the same, and passes chunks through an event loop that all
threads of a process share, so the codec is written out here; the tests read everything with zarr.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Annotated, Any

import google_crc32c
import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray
from pydantic import Field

from wsi_unet.geometry import BlockGrid, Box
from wsi_unet.labels.pyramid import CHUNK, UINT8
from wsi_unet.storage.store import MOST_BYTES, ByteStore, get_bounded

ZSTD_LEVEL = 5
EMPTY_CHUNK = 2**64 - 1
INDEX_BYTES = 16
"""Bytes of a chunk's entry in the index."""

CHECKSUM_BYTES = 4

Length = Annotated[int, Field(ge=0, le=MOST_BYTES)]
Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class ShardRecord:
    """The length and checksum by which a marker remembers a shard.

    Attributes:
        length: number of bytes; 0 if the shard is all background, which isn't stored.
        sha256: their checksum, hexadecimal; None if nothing is stored.
    """

    length: Length
    sha256: Checksum | None

    @property
    def empty(self) -> bool:
        """Whether the shard is all background, so that nothing is stored."""
        return self.sha256 is None

    @classmethod
    def from_shard(cls, shard: bytes | None) -> ShardRecord:
        """Return the record of an encoded shard (None: an empty one)."""
        if shard is None:
            return cls(0, None)
        return cls(len(shard), hashlib.sha256(shard).hexdigest())

    def is_intact(self, store: ByteStore, key: str) -> bool:
        """Return whether, byte for byte, what was recorded is stored under a key; reads it."""
        if self.empty:
            return store.size(key) is None
        return self.read_intact(store, key) is not None

    def read_intact(self, store: ByteStore, key: str) -> bytes | None:
        """Return what is stored under a key; None unless it is, byte for byte, what was recorded.

        Empty shards, which aren't stored, give None.
        """
        data = get_bounded(store, key, self.length)
        if data is None or hashlib.sha256(data).hexdigest() != self.sha256:
            return None
        return data


@cache
def most_shard_bytes(side: int, channels: int, itemsize: int = 1) -> int:
    """Return the most bytes of a shard: every chunk incompressible (`ZSTD_COMPRESSBOUND`).

    Args:
        side: rows and columns of the whole shard, px.
        channels: number of channels of each pixel.
        itemsize: bytes of a value.
    """
    size = channels * CHUNK * CHUNK * itemsize
    chunk = size + (size >> 8) + 64
    return (side // CHUNK) ** 2 * (chunk + INDEX_BYTES) + CHECKSUM_BYTES


def chunk_shape(data_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the inner chunks of an array (h, w) or (c, h, w).

    A chunk holds all channels of its pixels: viewers compose them, and neuroglancer shows a blank
    layer where each channel has chunks of its own.
    """
    return (*data_shape[:-2], CHUNK, CHUNK)


def encode_shard(data: NDArray[np.unsignedinteger[Any]], side: int) -> bytes | None:
    """Return a shard as the bytes to store, or None if it is all background.

    Args:
        data: (h, w) or (c, h, w), uint8 or little-endian; smaller than the shard at the array's
            bottom and right.
        side: rows and columns of the whole shard, px, a multiple of `CHUNK`.
    """
    per_side = side // CHUNK
    codec = Zstd(level=ZSTD_LEVEL, checksum=True)
    chunks: list[bytes] = []
    index = np.full((per_side, per_side, 2), EMPTY_CHUNK, "<u8")
    offset = 0
    for i, j in product(range(per_side), repeat=2):
        inside = data[..., i * CHUNK : (i + 1) * CHUNK, j * CHUNK : (j + 1) * CHUNK]
        if not inside.any():  # also where nothing is inside
            continue
        encoded = bytes(codec.encode(_pad_chunk(inside)))
        chunks.append(encoded)
        index[i, j] = offset, len(encoded)
        offset += len(encoded)
    if not chunks:
        return None
    table = index.tobytes()
    return b"".join([*chunks, table, _checksum(table)])


def decode_shard(
    shard: bytes,
    shape: tuple[int, ...],
    side: int,
    box: Box | None = None,
    dtype: np.dtype[Any] = UINT8,
) -> NDArray[Any]:
    """Return the pixels of a stored shard.

    Args:
        shard: the bytes that `encode_shard` returned.
        shape: shape of the pixels, (h, w) or (c, h, w).
        side: rows and columns of the whole shard, px.
        box: the part of the shard to return, px of the shard; None for all of it.
        dtype: type of the pixels.

    Raises:
        ValueError: the bytes aren't such a shard: torn, truncated or another array's.
    """
    per_side = side // CHUNK
    index_bytes = per_side * per_side * INDEX_BYTES
    table = shard[-index_bytes - CHECKSUM_BYTES : -CHECKSUM_BYTES]
    if len(table) != index_bytes or _checksum(table) != shard[-CHECKSUM_BYTES:]:
        raise ValueError("a shard with a damaged index")
    index = np.frombuffer(table, "<u8").reshape(per_side, per_side, 2)
    box = box or Box(0, 0, *shape[-2:])
    data = np.zeros((*shape[:-2], *box.shape), dtype)
    for i, j in BlockGrid((side, side), CHUNK).touching(box):
        offset, length = (int(number) for number in index[i, j])
        if length == EMPTY_CHUNK:
            continue
        try:
            chunk = _decode_chunk(shard[offset : offset + length], chunk_shape(shape), dtype)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"a shard with a damaged chunk {i}, {j}") from error
        whole = Box(i * CHUNK, j * CHUNK, (i + 1) * CHUNK, (j + 1) * CHUNK)
        shared = whole.intersection(box)
        rows, columns = shared.relative_to(box).slices()
        from_rows, from_columns = shared.relative_to(whole).slices()
        data[..., rows, columns] = chunk[..., from_rows, from_columns]
    return data


def _decode_chunk(encoded: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a chunk's pixels; a few bytes that claim to be gigabytes aren't decoded.

    Raises:
        RuntimeError, ValueError: it isn't a chunk of that shape.
    """
    chunk = np.empty(shape, dtype)
    if _content_size(encoded) != chunk.nbytes:
        raise ValueError("a chunk of another size")
    Zstd().decode(encoded, chunk)
    return chunk


def _content_size(frame: bytes) -> int | None:
    """Return how many bytes a zstd frame claims to hold; None if it doesn't say (RFC 8878, 3.1)."""
    if len(frame) < 5:
        return None
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    length = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    size = int.from_bytes(frame[start : start + length], "little")
    return (size + 256 if length == 2 else size) if length else None


def _pad_chunk(inside: NDArray[Any]) -> NDArray[Any]:
    """Return a whole, contiguous chunk: background beyond the array's edge."""
    shape = chunk_shape(inside.shape)
    if inside.shape == shape:
        return np.ascontiguousarray(inside)
    chunk = np.zeros(shape, inside.dtype)
    chunk[..., : inside.shape[-2], : inside.shape[-1]] = inside
    return chunk


def _checksum(table: bytes) -> bytes:
    return int(google_crc32c.value(table)).to_bytes(CHECKSUM_BYTES, "little")
