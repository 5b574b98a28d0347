"""Unpacking chunks of Zarr arrays to no more than their shape can take.

A compressed chunk of 1 MB may claim to be gigabytes, or turn out to be. zarr and numcodecs unpack
all of it before they compare it with the chunk's shape.
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import imagecodecs
import zarr
from typing_extensions import override
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.metadata import ArrayV2Metadata

from wsi_unet.errors import SlideError

MOST_GROWTH = 2
SLACK = 1 << 16
"""A chunk may be unpacked to this many times its bytes, and some: filters add a little."""

BYTES_PER_INDEX_ENTRY = 16

_UNPACK: dict[str, Callable[..., bytes | bytearray]] = {
    "blosc": imagecodecs.blosc_decode,
    "bz2": imagecodecs.bz2_decode,
    "gzip": imagecodecs.gzip_decode,
    "lz4": partial(imagecodecs.lz4_decode, header=True),
    "lzma": imagecodecs.lzma_decode,
    "zlib": imagecodecs.zlib_decode,
    "zstd": imagecodecs.zstd_decode,
}
"""What unpacks to at most `out` bytes, by the codec's name in Zarr."""

_NO_LARGER = {
    *("adler32", "bytes", "crc32", "crc32c", "delta", "fletcher32", "jenkins_lookup3"),
    *("shuffle", "transpose"),
}
"""Codecs whose output isn't larger than their input."""


def bound_unpacking(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Return an array of bytes whose chunks are unpacked to their size at most; writes nothing.

    Raises:
        SlideError: its codecs can't be bounded; without the path.
    """
    metadata = copy.copy(array.metadata)
    if isinstance(metadata, ArrayV2Metadata):
        most = _most_bytes(array.chunks)
        compressor = metadata.compressor and _Compressor.of(metadata.compressor, most)
        filters = metadata.filters and tuple(_Compressor.of(f, most) for f in metadata.filters)
        object.__setattr__(metadata, "compressor", compressor)
        object.__setattr__(metadata, "filters", filters)
    else:
        object.__setattr__(metadata, "codecs", _bound(metadata.codecs))
    return zarr.Array(replace(array.async_array, metadata=metadata))


def most_stored(array: zarr.Array[Any]) -> int:
    """Return the most bytes of a file: all that is in it, unpacked, and the index of a shard."""
    chunks = math.prod(array.shards or array.chunks) // math.prod(array.chunks)
    return chunks * (_most_bytes(array.chunks) + BYTES_PER_INDEX_ENTRY) + SLACK


def _bound(codecs: Iterable[Codec]) -> tuple[Codec, ...]:
    bounded: list[Codec] = []
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            bounded.append(replace(codec, codecs=_bound(codec.codecs)))
            continue
        name = str(codec.to_dict()["name"]).removeprefix("numcodecs.")
        _refuse_unknown(name)
        bounded.append(_Unpacker(name) if name in _UNPACK else codec)
    return tuple(bounded)


def _refuse_unknown(name: str) -> None:
    if name not in _UNPACK and name not in _NO_LARGER:
        raise SlideError(
            f"its codec {name[:60]!r} isn't one of {', '.join(sorted(_UNPACK))}; write it again "
            "with one of these"
        )


def _most_bytes(chunk: tuple[int, ...]) -> int:
    return MOST_GROWTH * math.prod(chunk) + SLACK


@dataclass(frozen=True)
class _Unpacker(BytesBytesCodec):
    """A codec of Zarr format 3 that only unpacks."""

    name: str
    is_fixed_size = False

    @override
    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        most = _most_bytes(chunk_spec.shape)
        unpack = partial(_UNPACK[self.name], chunk_data.to_bytes(), out=most)
        return chunk_spec.prototype.buffer.from_bytes(await asyncio.to_thread(unpack))

    @override
    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError


@dataclass(frozen=True)
class _Compressor:
    """What stands in for a numcodecs codec of Zarr format 2."""

    name: str
    most: int

    @classmethod
    def of(cls, codec: Any, most: int) -> Any:
        """Return it for a codec that unpacks; the codec itself if it makes nothing larger."""
        _refuse_unknown(codec.codec_id)
        return cls(codec.codec_id, most) if codec.codec_id in _UNPACK else codec

    def decode(self, packed: Any) -> bytes | bytearray:
        """Unpack a chunk."""
        return _UNPACK[self.name](bytes(packed), out=self.most)
