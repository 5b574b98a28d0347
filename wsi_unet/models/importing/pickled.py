"""What a pickle holds, described: tensors and the storages that they are views of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wsi_unet.models.number_types import ITEM_BYTES


class DamagedPickleError(ValueError):
    """It isn't a pickle, is cut short, or contradicts itself."""


@dataclass(frozen=True)
class Storage:
    """Numbers in a file that tensors are views of.

    Attributes:
        key: names it within the file.
        dtype: torch's name of the number type.
        count: how many numbers.
    """

    key: str
    dtype: str
    count: int

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.count * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class TensorInFile:
    """A tensor that a file holds.

    Attributes:
        dtype: torch's name of the number type.
        shape: its sizes.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Opaque:
    """Anything else, of which only the name of what would make it is known."""

    name: str


def view_of(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorInFile:
    """Describe a view of a storage.

    Raises:
        DamagedPickleError: if it reaches beyond the storage, or repeats its numbers: a stride of 0
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
    """Whether it is a whole number that can be a size or an offset."""
    return type(number) is int and 0 <= number < 2**62
