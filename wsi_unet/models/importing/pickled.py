"""Descriptions of what a pickle holds: tensors, the storages that they are views of, plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_unet.models.number_types import ITEM_BYTES, MOST_AXES, is_size


class DamagedPickleError(ValueError):
    """A file isn't a pickle, is cut short, or contradicts itself."""


@dataclass(frozen=True)
class Storage:
    """An array of numbers in a file, which tensors are views of.

    Attributes:
        key: its name within the file.
        dtype: its number type, by torch's name.
        count: how many numbers it has.
    """

    key: str
    dtype: str
    count: int

    @property
    def bytes(self) -> int:
        """Its size, bytes."""
        return self.count * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class TensorInFile:
    """A tensor in a file, not loaded: a view of a storage.

    Attributes:
        storage: the storage.
        offset: index of its first number in the storage.
        shape: its shape.
        strides: numbers of the storage from one index to the next, per axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Its number type, by torch's name."""
        return self.storage.dtype


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names.

    Attributes:
        name: its module and name.
    """

    name: str


@dataclass(frozen=True)
class Opaque:
    """An object in a pickle of which nothing is known but what made it.

    Attributes:
        name: the class or function that would make it.
    """

    name: str


@dataclass(frozen=True)
class Place:
    """Where the numbers of a storage lie.

    Attributes:
        begin: their first byte in the file.
        crc32: the checksum that the file states for them; None if it states none.
    """

    begin: int
    crc32: int | None = None


LONGEST_KEY = 500
"""Characters or bytes of the longest text that dictionaries are read with as a key."""

_PLAIN = (float, bool, type(None), Name, Opaque)
"""Types of keys that are kept, besides short text, integers and tuples of these."""


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor whose numbers lie one after the other.

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def abbreviate(value: Any) -> str:
    """Return a short text for a value in a pickle; containers, which may be endless, by type."""
    if isinstance(value, str | bytes):
        return repr(value[:80])
    return repr(value) if isinstance(value, int | float) else type(value).__name__


def describe_view(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorInFile:
    """Return the tensor that is a view of a storage, with offset and strides in numbers.

    Raises:
        DamagedPickleError: it reaches beyond the storage, or repeats its numbers: a stride of 0
            makes a tensor of any size out of a single number.
    """
    if not isinstance(storage, Storage):
        raise DamagedPickleError("a tensor without a storage")
    if not isinstance(shape, tuple | list) or not isinstance(strides, tuple | list):
        raise DamagedPickleError("a tensor without a shape")
    axes, kept = len(shape), slice(MOST_AXES + 1)
    shape, strides = tuple(shape[kept]), tuple(strides[kept])
    sizes = (offset, *shape, *strides)
    if axes != len(strides) or axes > MOST_AXES or not all(map(is_size, sizes)):
        sides = ", ".join(map(abbreviate, shape))
        raise DamagedPickleError(f"a tensor of the shape [{sides}]")
    count = math.prod(shape)
    steps = zip(shape, strides, strict=True)
    last = offset + sum((side - 1) * stride for side, stride in steps)
    if count > storage.count or (count and last >= storage.count):
        raise DamagedPickleError(
            f"a tensor of the shape {list(shape)} in a storage of {storage.count} numbers"
        )
    return TensorInFile(storage, offset, shape, strides)


def plain_pairs(items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the keys and values that take turns in `items`, those with plain keys.

    Other keys say nothing about a network, and using them may take for ever: a tuple may hold
    another one twice, that a third one twice, and so on; a few instructions may compare or show
    a long text once more.
    """
    for key, value in zip(items[::2], items[1::2], strict=True):
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) <= 8 and all(map(_is_plain, parts)):
            yield key, value


def _is_plain(key: Any) -> bool:
    if isinstance(key, str | bytes):
        return len(key) <= LONGEST_KEY
    return isinstance(key, _PLAIN) or (isinstance(key, int) and key.bit_length() <= 64)


def is_pair(value: Any) -> bool:
    """Return whether something is a list or tuple of two."""
    return isinstance(value, list | tuple) and len(value) == 2


def is_plain_dtype(arguments: Any) -> bool:
    """Return whether a numpy type is of numbers or text, not of objects: these are pickles."""
    kind = arguments[0] if arguments else None
    return isinstance(kind, str) and re.fullmatch(r"[<>=|]?[?biufcmMSUV]\d*", kind) is not None
