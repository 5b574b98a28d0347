"""Reading other people's checkpoints: first what a file holds, then the tensors that are needed.

Pickles are followed without running them, and refused if they name anything but data
(`pickle_scan`, `torch_file`). Numbers are then read straight from the file (`tensor_reading`):
nothing is ever unpickled. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_unet.errors import ModelError
from wsi_unet.models import weights_file
from wsi_unet.models.importing.entries import find_entries
from wsi_unet.models.importing.pickled import (
    DamagedPickleError,
    Place,
    Storage,
    TensorInFile,
    contiguous_strides,
    describe_view,
)
from wsi_unet.models.importing.tensor_reading import read_tensors
from wsi_unet.models.importing.torch_file import TorchFile, scan_archive, scan_legacy
from wsi_unet.models.number_types import TORCH_NAMES
from wsi_unet.models.paths import AnyPath, parse_path
from wsi_unet.models.stored_network import METADATA_KEY
from wsi_unet.regular_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint that was scanned, but not loaded.

    Attributes:
        path: the file.
        tensors: its tensors, by name: the keys of all dictionaries that lead there, joined by dots.
        others: names of what else it holds.
        content: all that it holds, with descriptions in place of tensors and unknown objects.
        places: where the numbers of each storage lie in the file, by the storage's key.
    """

    path: Path
    tensors: Mapping[str, TensorInFile]
    others: tuple[str, ...] = ()
    content: Any = field(default=None, compare=False, repr=False)
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)

    def load(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return tensors on the CPU, by name.

        Raises:
            ModelError: the file can't be read any more.
        """
        return read_tensors(self.path, {name: self.tensors[name] for name in names}, self.places)


def open_checkpoint(path: AnyPath) -> CheckpointFile:
    """Scan a checkpoint (PyTorch's archives and older files, and safetensors) without loading it.

    Raises:
        ModelError: it isn't such a file, is damaged, claims more than it has, would run code
            when loaded, or holds no tensors by name.
    """
    path = parse_path(path)
    try:
        with open_regular(path) as file:
            start = file.read(512)
        scanned = _SCANNERS[_detect_kind(path, start)](path)
        entries = find_entries(scanned.value)
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror or error}") from error
    except DamagedPickleError as error:
        raise ModelError(f"{path} isn't a checkpoint that can be imported: {error}") from error
    if not entries.tensors:
        raise ModelError(f"{path} holds no tensors by name: it isn't a network's state_dict()")
    return CheckpointFile(
        path, entries.tensors, tuple(entries.others), scanned.value, scanned.places
    )


def is_checkpoint(path: AnyPath) -> bool:
    """Return whether something may be a checkpoint to import: a file that isn't one of our models.

    Raises:
        ModelError: it is a damaged safetensors file.
    """
    path = parse_path(path)
    if not path.is_file():
        return False
    if path.suffix != ".safetensors":
        return True
    return METADATA_KEY not in weights_file.read_header(path, types=TORCH_NAMES).metadata


def _detect_kind(path: Path, start: bytes) -> str:
    """Return the kind of a file, by its first bytes.

    Raises:
        ModelError: it can't be imported; says what it looks like.
    """
    if start[4:9] == b"\0\0\0\0{":  # whatever the length says that it begins with
        return "safetensors"
    for magic, title in _OTHER_FILES:
        if start.startswith(magic):
            raise ModelError(f"{path} is {title}; only PyTorch checkpoints are imported")
    if start[257:262] == b"ustar":
        raise ModelError(f"{path} is a tar archive; checkpoints are zip archives: save it again")
    if start.startswith(b"PK\x03\x04"):
        return "archive"
    if start[8:9] == b"{":
        return "safetensors"
    if start[:1] in {b"\x80", b"(", b"c"}:  # how pickles begin; the latter two are of old protocols
        return "legacy"
    if path.suffix == ".onnx" or start[:1] == b"\x08":
        raise ModelError(f"{path} looks like an ONNX program, not a checkpoint")
    raise ModelError(
        f"{path} isn't a checkpoint ({'empty' if not start else 'an unknown kind of file'}); "
        "PyTorch's .pth and .pt files and safetensors files are imported"
    )


_OTHER_FILES = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself hasn't been fetched"),
    (b"<", "a web page or XML, perhaps what a failed download left"),
)


def _scan_safetensors(path: Path) -> TorchFile:
    header = weights_file.read_header(path, types=TORCH_NAMES)
    tensors, places = {}, {}
    for name, entry in header.tensors.items():
        storage = Storage(name, TORCH_NAMES[entry.dtype], math.prod(entry.shape))
        tensors[name] = describe_view(storage, 0, entry.shape, contiguous_strides(entry.shape))
        places[name] = Place(entry.begin)
    return TorchFile(tensors, places)


_SCANNERS: dict[str, Callable[[Path], TorchFile]] = {
    "archive": scan_archive,
    "legacy": scan_legacy,
    "safetensors": _scan_safetensors,
}
