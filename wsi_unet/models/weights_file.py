"""Reading safetensors files without torch, and with errors that say what to do.

A file is 8 bytes (little-endian length n of the header), n bytes of JSON ({name: {"dtype",
"shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}) and the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_unet.errors import ModelError
from wsi_unet.models.number_types import (
    ITEM_BYTES,
    MOST_AXES,
    TORCH_NAMES,
    WEIGHT_TYPES,
    is_size,
)
from wsi_unet.regular_files import open_regular

LONGEST_HEADER = 16 * 2**20
"""Bytes of the longest header that is read: a damaged length must not become an allocation.

Real headers are some kB.
"""

LONGEST_NAME = 1000
"""Characters of the longest name of a tensor."""


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in the file.

    Attributes:
        dtype: its number type, by its name in safetensors, like "F32".
        shape: its shape.
        begin: its first byte, counted from the file's start.
        end: one past its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file holds: its tensors by name, and its text metadata."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]


def read_header(path: Path, *, types: Collection[str] = WEIGHT_TYPES) -> Header:
    """Read and check the header of a safetensors file.

    Args:
        path: the file.
        types: number types that its tensors may have, by their names in safetensors.

    Raises:
        ModelError: it can't be read, isn't safetensors (a pickle is named as such), is cut
            short or contradicts itself.
    """
    try:
        size = path.stat().st_size
        with open_regular(path) as file:
            start = file.read(16)
            _refuse_pickle(path, start)
            length = int.from_bytes(start[:8], "little")
            if size < 10 or not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise ModelError(
                    f"{path} is not a safetensors file (or is cut short): {size} bytes that "
                    f"begin with a header length of {length}; get the file again"
                )
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror or error}") from error
    try:
        header = json.loads(text)
        tensors, metadata = _parse(header, 8 + length)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} has a damaged safetensors header; get the file again") from error
    _check_layout(path, tensors, 8 + length, size, types)
    return Header(tensors, metadata)


def read_tensor(path: Path, entry: TensorEntry) -> bytearray:
    """Return the bytes of one tensor.

    Raises:
        ModelError: they can't be read.
    """
    content = bytearray(entry.end - entry.begin)
    try:
        with open_regular(path) as file:
            file.seek(entry.begin)
            if file.readinto(content) != len(content):
                raise ModelError(f"{path} was cut short while it was read; get the file again")
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror or error}") from error
    return content


def _refuse_pickle(path: Path, start: bytes) -> None:
    zipped, pickled = start[:4] == b"PK\x03\x04", start[:1] == b"\x80" and 0 < start[1] <= 5
    # A header length of 0x0?80 looks like a pickle's first bytes, but JSON follows it.
    if zipped or (pickled and start[8:9] != b"{"):
        kind = "a zip archive as torch.save writes it" if zipped else "a pickle"
        raise ModelError(
            f"{path} is {kind}, which can run code when loaded; only safetensors files are "
            "loaded: make a model of it with wsi-unet model import"
        )


def _parse(header: Any, data_start: int) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    if not isinstance(header, dict):
        raise TypeError("a header maps names to tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError("metadata must be text")
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if len(shape) > MOST_AXES or not all(map(is_size, (*shape, begin, end))):
            raise ValueError(f"{name}: sizes must be whole numbers")
        if len(name) > LONGEST_NAME:
            raise ValueError("names must be short")
        tensors[name] = TensorEntry(
            str(entry["dtype"]), shape, data_start + begin, data_start + end
        )
    return tensors, metadata


def _check_layout(
    path: Path,
    tensors: dict[str, TensorEntry],
    data_start: int,
    size: int,
    types: Collection[str],
) -> None:
    position = data_start
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].begin):
        if entry.dtype not in types:
            raise ModelError(
                f"{path}: {name} is stored as {entry.dtype}; weights must be one of "
                f"{', '.join(types)}"
            )
        needed = math.prod(entry.shape) * ITEM_BYTES[TORCH_NAMES[entry.dtype]]
        if entry.begin != position or entry.end - entry.begin != needed:
            raise ModelError(
                f"{path}: {name} should take {needed} bytes from byte {position}, its header "
                f"says {entry.begin} to {entry.end}; get the file again"
            )
        position = entry.end
    if position != size:
        raise ModelError(
            f"{path} should be {position} bytes long by its header, it is {size}; "
            "get the file again"
        )
