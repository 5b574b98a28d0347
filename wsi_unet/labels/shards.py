"""One shard as bytes: the codec `sharding_indexed` of Zarr v3, encoded and decoded in memory.

A shard is its non-empty inner chunks, each a zstd frame, followed by an index: (offset, length)
as little-endian uint64 for every chunk in row-major order, both 2^64 - 1 for an empty one, and
the index's crc32c. https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/

zarr-python encodes the same in 1.4 times the time and hands chunks through an event loop that all
threads of a process share, so it is written out here; the tests read everything back with zarr.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product

import google_crc32c
import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

from wsi_unet.labels.pyramid import CHUNK, Pixels

ZSTD_LEVEL = 5
EMPTY_CHUNK = 2**64 - 1
CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class ShardRecord:
    """What a marker remembers of a shard.

    Attributes:
        length: of the object, bytes; 0 if the shard is all background and thus has no object.
        sha256: of the object, hexadecimal; None if there is none.
    """

    length: int
    sha256: str | None

    @property
    def empty(self) -> bool:
        """Whether the shard is all background: no object."""
        return self.sha256 is None

    @classmethod
    def from_shard(cls, shard: bytes | None) -> ShardRecord:
        """Return the record of an encoded shard (None: empty)."""
        if shard is None:
            return cls(0, None)
        return cls(len(shard), hashlib.sha256(shard).hexdigest())


def chunk_shape(data_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the inner chunk of an array (h, w) or (c, h, w).

    A chunk holds all channels of its pixels: viewers compose them, and where each channel is a
    chunk of its own neuroglancer shows a blank layer.
    """
    return (*data_shape[:-2], CHUNK, CHUNK)


def encode_shard(data: Pixels, side: int) -> bytes | None:
    """Return a shard as the bytes of its object, or None if it is all background.

    Args:
        data: uint8 (h, w) or (c, h, w); smaller than the shard at the array's far edges.
        side: rows and columns of the whole shard, px, a multiple of `CHUNK`.
    """
    per_side = side // CHUNK
    codec = Zstd(level=ZSTD_LEVEL)
    chunks: list[bytes] = []
    index = np.full((per_side, per_side, 2), EMPTY_CHUNK, "<u8")
    offset = 0
    for i, j in product(range(per_side), repeat=2):
        inside = data[..., i * CHUNK : (i + 1) * CHUNK, j * CHUNK : (j + 1) * CHUNK]
        if not inside.any():  # also where nothing is inside
            continue
        encoded = bytes(codec.encode(_whole_chunk(inside)))
        chunks.append(encoded)
        index[i, j] = offset, len(encoded)
        offset += len(encoded)
    if not chunks:
        return None
    table = index.tobytes()
    return b"".join([*chunks, table, _checksum(table)])


def decode_shard(shard: bytes, shape: tuple[int, ...], side: int) -> Pixels:
    """Return the pixels of a shard's object.

    Args:
        shard: the bytes that `encode_shard` returned.
        shape: of the data in it, (h, w) or (c, h, w).
        side: rows and columns of the whole shard, px.

    Raises:
        ValueError: if the bytes are no such shard: torn, truncated or another array's.
    """
    per_side = side // CHUNK
    index_bytes = per_side * per_side * 16
    table = shard[-index_bytes - CHECKSUM_BYTES : -CHECKSUM_BYTES]
    if len(table) != index_bytes or _checksum(table) != shard[-CHECKSUM_BYTES:]:
        raise ValueError("a shard with a damaged index")
    index = np.frombuffer(table, "<u8").reshape(per_side, per_side, 2)
    codec = Zstd(level=ZSTD_LEVEL)
    data = np.zeros(shape, np.uint8)
    for i, j in product(range(per_side), repeat=2):
        offset, length = (int(number) for number in index[i, j])
        if length == EMPTY_CHUNK:
            continue
        target = data[..., i * CHUNK : (i + 1) * CHUNK, j * CHUNK : (j + 1) * CHUNK]
        try:
            raw = codec.decode(shard[offset : offset + length])
            chunk = np.frombuffer(raw, np.uint8).reshape(chunk_shape(shape))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"a shard with a damaged chunk {i}, {j}") from error
        target[...] = chunk[..., : target.shape[-2], : target.shape[-1]]
    return data


def _whole_chunk(inside: Pixels) -> NDArray[np.uint8]:
    """Return a contiguous chunk, background beyond the array's edge."""
    shape = chunk_shape(inside.shape)
    if inside.shape == shape:
        return np.ascontiguousarray(inside)
    chunk = np.zeros(shape, np.uint8)
    chunk[..., : inside.shape[-2], : inside.shape[-1]] = inside
    return chunk


def _checksum(table: bytes) -> bytes:
    return int(google_crc32c.value(table)).to_bytes(CHECKSUM_BYTES, "little")
