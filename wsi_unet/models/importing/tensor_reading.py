"""Reading the numbers of tensors straight out of a file: nothing is unpickled."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_unet.errors import ModelError
from wsi_unet.models.importing.pickled import Place, Storage, TensorInFile
from wsi_unet.regular_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor


def read_tensors(
    path: Path, tensors: Mapping[str, TensorInFile], places: Mapping[str, Place]
) -> dict[str, Tensor]:
    """Read tensors into memory; those that share a storage share it there too.

    Args:
        path: the file.
        tensors: the tensors to read, by name; checked to lie within their storages.
        places: where the numbers of each storage lie in the file.

    Raises:
        ModelError: the file can't be read, is shorter than it was, or other numbers lie there than
            were written.
    """
    storages: dict[str, Tensor] = {}
    try:
        with open_regular(path) as file:
            for tensor in tensors.values():
                key = tensor.storage.key
                if key not in storages:
                    storages[key] = _read_storage(path, file, tensor.storage, places[key])
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror or error}") from error
    return {
        name: storages[tensor.storage.key].as_strided(tensor.shape, tensor.strides, tensor.offset)
        for name, tensor in tensors.items()
    }


def _read_storage(path: Path, file: BufferedReader, storage: Storage, place: Place) -> Tensor:
    """Return the numbers of a storage, which are little-endian, along one axis."""
    import torch

    numbers = torch.empty(storage.count, dtype=getattr(torch, storage.dtype))
    file.seek(place.begin)
    content: Any = numbers.view(torch.uint8).numpy()
    if storage.count and file.readinto(content) != storage.bytes:
        raise ModelError(f"{path} was cut short while it was read; get the file again")
    if place.crc32 is not None and zlib.crc32(content) != place.crc32:
        raise ModelError(
            f"{path} is damaged: the numbers of storage {storage.key} aren't those that were "
            "written; get the file again"
        )
    return numbers
