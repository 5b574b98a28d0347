"""Reading other people's checkpoints: first which tensors a file holds, then only those tensors.

Anything but plain tensors is refused twice: by our own scan, before any of it is loaded
(`pickle_scan`, `torch_file`), and by PyTorch's restricted loader. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_unet.errors import ModelError, first_line
from wsi_unet.models import weights_file
from wsi_unet.models.importing.pickled import TensorInFile
from wsi_unet.models.importing.torch_file import scan_archive, scan_legacy
from wsi_unet.models.number_types import TORCH_NAMES
from wsi_unet.models.paths import AnyPath, parse_path
from wsi_unet.models.stored_network import METADATA_KEY
from wsi_unet.regular_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

MOST_TENSORS = 20_000
"""Tensors that a network may have at most; a large one has some thousand."""

_WRAPPER_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "weights",
)
"""Keys under which training scripts store a network's state."""

_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""Prefixes that wrappers (DataParallel, torch.compile, …) add to all names."""

_IGNORED_KEYS = {"mask_values"}
"""Entries beside the weights that say nothing about the network."""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint that was scanned, but not loaded.

    Attributes:
        path: the file.
        tensors: its tensors, by name.
        wrapper_keys: keys that lead through nested dictionaries to the tensors, outermost first.
        kind: "archive", "legacy" or "safetensors".
    """

    path: Path
    tensors: Mapping[str, TensorInFile]
    wrapper_keys: tuple[str, ...]
    kind: str

    def strip_prefixes(self) -> Iterator[tuple[str, dict[str, TensorInFile]]]:
        """Yield each prefix that can be stripped from all names, and the tensors by stripped names.

        The first prefix is ""; each further one adds a prefix of wrappers that all names share,
        as in "module." and "module.model.".
        """
        prefix, tensors = "", dict(self.tensors)
        yield prefix, tensors
        while shared := _shared_prefix(tensors):
            prefix += shared
            tensors = {name.removeprefix(shared): tensor for name, tensor in tensors.items()}
            yield prefix, tensors

    def load(self) -> dict[str, Tensor]:
        """Return the tensors on the CPU, mapped into memory where the file allows it.

        Raises:
            ModelError: PyTorch refuses the file, or finds something else in it.
        """
        loaded = _LOADERS[self.kind](self)
        for name, described in self.tensors.items():
            tensor = loaded.get(name)
            actual = None if tensor is None else (str(tensor.dtype), tuple(tensor.shape))
            if actual != (f"torch.{described.dtype}", described.shape):
                raise ModelError(f"{self.path}: {name} has changed since the file was scanned")
        return {name: loaded[name] for name in self.tensors}


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
        kind = _detect_kind(path, start)
        value = _SCANNERS[kind](path)
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror or error}") from error
    tensors, wrapper_keys = _unwrap(path, value)
    return CheckpointFile(path, tensors, wrapper_keys, kind)


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


def _unwrap(path: Path, value: Any) -> tuple[dict[str, TensorInFile], tuple[str, ...]]:
    """Find the dictionary of tensors in what a file holds, and the keys that lead to it."""
    keys: tuple[str, ...] = ()
    while isinstance(value, dict) and len(keys) < 4:
        wrapper = next((key for key in _WRAPPER_KEYS if isinstance(value.get(key), dict)), None)
        if wrapper is None:
            return _check_tensors(path, value), keys
        value, keys = value[wrapper], (*keys, wrapper)
    raise ModelError(f"{path} holds no tensors by name: it isn't a network's state_dict()")


def _check_tensors(path: Path, value: dict[Any, Any]) -> dict[str, TensorInFile]:
    tensors = {key: entry for key, entry in value.items() if key not in _IGNORED_KEYS}
    for key, entry in tensors.items():
        if not isinstance(key, str) or not isinstance(entry, TensorInFile):
            raise ModelError(
                f"{path} isn't a network's state_dict(): its entry {str(key)[:60]!r} isn't a tensor"
            )
    if not tensors or len(tensors) > MOST_TENSORS:
        raise ModelError(f"{path} holds {len(tensors)} tensors, too many for a network")
    return tensors


def _shared_prefix(names: Mapping[str, object]) -> str:
    """Return the wrappers' prefix that all names have; "" if there is none."""
    shared = (
        prefix for prefix in _WRAPPER_PREFIXES if all(name.startswith(prefix) for name in names)
    )
    return next(shared, "")


def _scan_safetensors(path: Path) -> dict[str, TensorInFile]:
    header = weights_file.read_header(path, types=TORCH_NAMES)
    return {
        name: TensorInFile(TORCH_NAMES[entry.dtype], entry.shape)
        for name, entry in header.tensors.items()
    }


def _load_torch(file: CheckpointFile) -> Mapping[str, Tensor]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles: they load or they don't
            loaded = torch.load(
                file.path, map_location="cpu", weights_only=True, mmap=file.kind == "archive"
            )
    except Exception as error:  # of any type: PyTorch loads an untrusted file
        reason = first_line(error)
        raise ModelError(f"PyTorch refuses {file.path}: {reason}") from error
    for key in file.wrapper_keys:
        loaded = loaded[key]
    tensors: Mapping[str, Tensor] = loaded
    return tensors


def _load_safetensors(file: CheckpointFile) -> Mapping[str, Tensor]:
    from safetensors.torch import load_file

    tensors: Mapping[str, Tensor] = load_file(file.path)
    return tensors


_SCANNERS: dict[str, Callable[[Path], Any]] = {
    "archive": lambda path: scan_archive(path).value,
    "legacy": lambda path: scan_legacy(path).value,
    "safetensors": _scan_safetensors,
}

_LOADERS: dict[str, Callable[[CheckpointFile], Mapping[str, Tensor]]] = {
    "archive": _load_torch,
    "legacy": _load_torch,
    "safetensors": _load_safetensors,
}
