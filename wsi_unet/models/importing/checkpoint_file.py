"""Checkpoints from elsewhere: which tensors a file holds, and then those tensors, and no more.

What isn't plain tensors is refused before any of it is loaded (`pickle_scan`, `torch_file`), and
then again by PyTorch's own restricted loader. Nothing is fetched from anywhere.
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
from wsi_unet.models.stored_network import METADATA_KEY

if TYPE_CHECKING:
    from torch import Tensor

MOST_TENSORS = 20_000

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_IGNORED = {"mask_values"}
"""Entries beside the weights that say nothing about the network."""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint that was looked through, but not loaded.

    Attributes:
        path: the file.
        tensors: what it holds, by name.
        inside: the keys of the dictionaries around them, from the outside.
        kind: "archive", "legacy" or "safetensors".
    """

    path: Path
    tensors: Mapping[str, TensorInFile]
    inside: tuple[str, ...]
    kind: str

    def namings(self) -> Iterator[tuple[str, dict[str, TensorInFile]]]:
        """Yield the tensors by the names in the file, then without prefixes that all share.

        The prefix comes first: "" or, say, "module.model.".
        """
        prefix, tensors = "", dict(self.tensors)
        yield prefix, tensors
        while shared := _shared_prefix(tensors):
            prefix += shared
            tensors = {name.removeprefix(shared): one for name, one in tensors.items()}
            yield prefix, tensors

    def load(self) -> dict[str, Tensor]:
        """Return the tensors on the CPU, mapped into memory where the file allows it.

        Raises:
            ModelError: if PyTorch refuses the file, or finds something else in it.
        """
        loaded = _LOADERS[self.kind](self)
        for name, described in self.tensors.items():
            tensor = loaded.get(name)
            found = None if tensor is None else (str(tensor.dtype), tuple(tensor.shape))
            if found != (f"torch.{described.dtype}", described.shape):
                raise ModelError(f"{self.path}: {name} has changed since the file was looked at")
        return {name: loaded[name] for name in self.tensors}


def open_checkpoint(path: str | Path) -> CheckpointFile:
    """Look through a checkpoint: PyTorch's archives and older files, and safetensors.

    Raises:
        ModelError: if it isn't such a file, is damaged, claims more than it has, would run code
            when loaded, or holds no tensors by name.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
        kind = _kind(path, start)
        value = _SCANNERS[kind](path)
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror or error}") from error
    tensors, inside = _unwrap(path, value)
    return CheckpointFile(path, tensors, inside, kind)


def is_checkpoint(path: str | Path) -> bool:
    """Tell whether something could be a foreign checkpoint: a file, and not one of our models.

    Raises:
        ModelError: if it is a damaged safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        return False
    if path.suffix != ".safetensors":
        return True
    return METADATA_KEY not in weights_file.read_header(path, types=TORCH_NAMES).metadata


def _kind(path: Path, start: bytes) -> str:
    """Tell what a file is from its first bytes.

    Raises:
        ModelError: if it is nothing that can be imported; says what it looks like.
    """
    for magic, what in _OTHERS:
        if start.startswith(magic):
            raise ModelError(f"{path} is {what}; only PyTorch checkpoints are imported")
    if start[257:262] == b"ustar":
        raise ModelError(f"{path} is a tar archive; checkpoints are zip archives: save it anew")
    if start.startswith(b"PK\x03\x04"):
        return "archive"
    if start[8:9] == b"{":
        return "safetensors"
    if start[:1] in {b"\x80", b"(", b"c"}:  # how pickles begin, the oldest ones with the latter
        return "legacy"
    if path.suffix == ".onnx" or start[:1] == b"\x08":
        raise ModelError(f"{path} looks like an ONNX program, which is no checkpoint")
    raise ModelError(
        f"{path} is no checkpoint ({'empty' if not start else 'an unknown kind of file'}); "
        "PyTorch's .pth/.pt and safetensors files are imported"
    )


_OTHERS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself hasn't been fetched"),
    (b"<", "a web page or XML, perhaps what a failed download left"),
)


def _unwrap(path: Path, value: Any) -> tuple[dict[str, TensorInFile], tuple[str, ...]]:
    """Find the dictionary of tensors in what a file holds, and the keys that lead to it."""
    inside: tuple[str, ...] = ()
    while isinstance(value, dict) and len(inside) < 4:
        wrapper = next((key for key in _WRAPPERS if isinstance(value.get(key), dict)), None)
        if wrapper is None:
            return _only_tensors(path, value), inside
        value, inside = value[wrapper], (*inside, wrapper)
    raise ModelError(f"{path} holds no tensors by name: it isn't a network's state_dict()")


def _only_tensors(path: Path, value: dict[Any, Any]) -> dict[str, TensorInFile]:
    tensors = {key: one for key, one in value.items() if key not in _IGNORED}
    for key, one in tensors.items():
        if not isinstance(key, str) or not isinstance(one, TensorInFile):
            raise ModelError(
                f"{path} is no network's state_dict(): its entry {str(key)[:60]!r} is no tensor"
            )
    if not tensors or len(tensors) > MOST_TENSORS:
        raise ModelError(f"{path} holds {len(tensors)} tensors: that is no network")
    return tensors


def _shared_prefix(names: Mapping[str, object]) -> str:
    """Return one of the prefixes that wrappers add, if all names have it; else ""."""
    shared = (prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in names))
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
            warnings.simplefilter("ignore")  # about versions of pickles; the answer is what counts
            loaded = torch.load(
                file.path, map_location="cpu", weights_only=True, mmap=file.kind == "archive"
            )
    except Exception as error:  # of whatever type: the file is a stranger's, the loader PyTorch's
        reason = first_line(error)
        raise ModelError(f"PyTorch refuses {file.path}: {reason}") from error
    for key in file.inside:
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
