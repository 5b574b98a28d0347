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
    """The length and checksum by which a marker remembers a shard.

    Attributes:
        length: number of bytes; 0 if the shard is all background, which isn't stored.
        sha256: their checksum, hexadecimal; None if nothing is stored.
    """

    length: int
    sha256: str | None

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


def chunk_shape(data_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the inner chunks of an array (h, w) or (c, h, w).

    A chunk holds all channels of its pixels: viewers compose them, and neuroglancer shows a blank
    layer where each channel has chunks of its own.
    """
    return (*data_shape[:-2], CHUNK, CHUNK)


def encode_shard(data: Pixels, side: int) -> bytes | None:
    """Return a shard as the bytes to store, or None if it is all background.

    Args:
        data: uint8 (h, w) or (c, h, w); smaller than the shard at the array's bottom and right.
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
        encoded = bytes(codec.encode(_pad_chunk(inside)))
        chunks.append(encoded)
        index[i, j] = offset, len(encoded)
        offset += len(encoded)
    if not chunks:
        return None
    table = index.tobytes()
    return b"".join([*chunks, table, _checksum(table)])


def decode_shard(shard: bytes, shape: tuple[int, ...], side: int) -> Pixels:
    """Return the pixels of a stored shard.

    Args:
        shard: the bytes that `encode_shard` returned.
        shape: shape of the pixels, (h, w) or (c, h, w).
        side: rows and columns of the whole shard, px.

    Raises:
        ValueError: the bytes aren't such a shard: torn, truncated or another array's.
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


def _pad_chunk(inside: Pixels) -> NDArray[np.uint8]:
    """Return a whole, contiguous chunk: background beyond the array's edge."""
    shape = chunk_shape(inside.shape)
    if inside.shape == shape:
        return np.ascontiguousarray(inside)
    chunk = np.zeros(shape, np.uint8)
    chunk[..., : inside.shape[-2], : inside.shape[-1]] = inside
    return chunk


def _checksum(table: bytes) -> bytes:
    return int(google_crc32c.value(table)).to_bytes(CHECKSUM_BYTES, "little")
