"""Descriptions of what a pickle holds: tensors, and the storages that they are views of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wsi_unet.models.number_types import ITEM_BYTES


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
    """A tensor in a file, not loaded.

    Attributes:
        dtype: its number type, by torch's name.
        shape: its shape.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Opaque:
    """Anything else in a pickle.

    Attributes:
        name: the class or function that would make it.
    """

    name: str


def describe_view(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorInFile:
    """Return the tensor that is a view of a storage, with offset and strides in numbers.

    Raises:
        DamagedPickleError: it reaches beyond the storage, or repeats its numbers: a stride of 0
            makes a tensor of any size out of a single number.
    """
    if not isinstance(storage, Storage):
        raise DamagedPickleError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > 8 or not all(map(is_size, numbers)):
        raise DamagedPickleError(f"a tensor of the shape {shape}")
    count = math.prod(shape)
    steps = zip(shape, strides, strict=True)
    last = offset + sum((side - 1) * stride for side, stride in steps)
    if count > storage.count or (count and last >= storage.count):
        raise DamagedPickleError(
            f"a tensor of the shape {list(shape)} in a storage of {storage.count} numbers"
        )
    return TensorInFile(storage.dtype, tuple(shape))


def is_size(number: Any) -> bool:
    """Return whether something is a whole number that can be a size or an offset."""
    return type(number) is int and 0 <= number < 2**62
