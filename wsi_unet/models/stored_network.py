"""Stored networks: the weights of one of our networks, a program, or a module.

Each can be checked without building the network, which gives its hash, and built if the hash is
still the same.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from wsi_unet.errors import ModelError
from wsi_unet.models.architectures.program import ProgramConfig
from wsi_unet.models.number_types import TORCH_NAMES
from wsi_unet.models.program_file import PROGRAM_FILES, ProgramFile
from wsi_unet.models.weights_file import Header, TensorEntry, read_header, read_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from wsi_unet.models.spec import ModelSpec

SPEC_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
METADATA_KEY = "wsi_unet"
"""Key of the spec in the header of a single file."""


class StoredNetwork(Protocol):
    """A network that is not built yet."""

    @property
    def trust(self) -> bool:
        """Whether it may run code."""

    def check(self) -> str:
        """Check everything and return the hash of the network and of what else decides the labels.

        Raises:
            ModelError: something is wrong.
        """

    def build(self, sha256: str) -> nn.Module:
        """Return the network: float32, evaluation mode, on the CPU.

        Args:
            sha256: what `check` returned.

        Raises:
            ModelError: the hash is another one now, or something is wrong.
        """


def locate_network(path: Path, spec: ModelSpec, *, trust: bool) -> StoredNetwork:
    """Return how the network of a model on disk is stored.

    Args:
        path: the model's folder or file.
        spec: the model's spec.
        trust: whether it may run code.
    """
    if isinstance(spec.architecture, ProgramConfig):
        return StoredProgram(path, spec, trust)
    return StoredTensors(path, spec)


@dataclass(frozen=True)
class StoredTensors:
    """The weights of one of our networks, in a safetensors file.

    Attributes:
        path: the model's folder or file.
        spec: the model's spec.
        trust: whether it may run code; weights can't.
    """

    path: Path
    spec: ModelSpec
    trust: bool = False

    def check(self) -> str:
        """Check all weights, one at a time, and return their hash."""
        return _check_weights(self.path, self.spec)

    def build(self, sha256: str) -> nn.Module:
        """Return the network with its weights."""
        weights, sha256_now = _read_weights(self.path, self.spec)
        check_unchanged(self.path, sha256_now, sha256)
        return _build(self.spec, weights)


@dataclass(frozen=True)
class StoredProgram:
    """A program's file in a model's folder.

    Attributes:
        path: the model's folder.
        spec: the model's spec.
        trust: whether it may run code.
    """

    path: Path
    spec: ModelSpec
    trust: bool

    def check(self) -> str:
        """Return the hash of the program and of what else decides the labels; run nothing."""
        return self._read()[1]

    def build(self, sha256: str) -> nn.Module:
        """Load the program, which may run its code."""
        from wsi_unet.models.exported.loading import load_program

        content, sha256_now = self._read()
        check_unchanged(self.path, sha256_now, sha256)
        return load_program(self.path, self._file.kind, content)

    def _read(self) -> tuple[bytes, str]:
        content = self._file.read(trust=self.trust)
        digest = ModelDigest(self.spec)
        digest.add_content("program", content)
        return content, digest.value

    @property
    def _file(self) -> ProgramFile:
        architecture = self.spec.architecture
        kind = architecture.kind if isinstance(architecture, ProgramConfig) else "module"
        if kind == "module":
            raise ModelError(
                f"{self.path} describes a module of a Python process, which isn't stored; export "
                "the module (torch.export or ONNX) and import that file"
            )
        path = self.path / PROGRAM_FILES[kind]
        if not path.is_file():
            raise ModelError(f"{self.path} has no {path.name}, which its spec asks for")
        return ProgramFile(path, kind)


@dataclass(frozen=True)
class StoredModule:
    """A module of this process.

    Attributes:
        module: in evaluation mode, on the CPU; a copy that nobody else changes.
        trust: whether it may run code; it does, and the code is the caller's own.
    """

    module: nn.Module = field(repr=False)
    trust: bool = True

    def check(self) -> str:
        """Return no hash: there is nothing to check."""
        return ""

    def build(self, sha256: str) -> nn.Module:
        """Return a copy of the module."""
        return copy.deepcopy(self.module)

    def __reduce__(self) -> NoReturn:
        raise ModelError(OTHER_PROCESS)


OTHER_PROCESS = (
    "a model made of a module lives in the process that made it: for other processes, export it "
    "(torch.export or ONNX), import the file (wsi-unet model import) and use the result"
)
"""Message for processes that can't have a module's model."""


def check_unchanged(path: Path, sha256_now: str, sha256: str) -> None:
    """Refuse a model whose files have changed.

    Raises:
        ModelError: they have changed.
    """
    if sha256_now != sha256:
        raise ModelError(f"{path} has changed since it was loaded; start again")


def _check_weights(path: Path, spec: ModelSpec) -> str:
    """Check all weights, one at a time, and return their hash."""
    digest = ModelDigest(spec)
    for name, entry, tensor, content in _stream_weights(path, spec):
        digest.add(name, entry, content)
        _check_finite(path, name, tensor)
    return digest.value


def _read_weights(path: Path, spec: ModelSpec) -> tuple[dict[str, Tensor], str]:
    """Return the weights in float32, and their hash."""
    import torch

    digest, weights = ModelDigest(spec), {}
    for name, entry, tensor, content in _stream_weights(path, spec):
        digest.add(name, entry, content)
        weights[name] = tensor.to(torch.float32)
    return weights, digest.value


def _stream_weights(
    path: Path, spec: ModelSpec
) -> Iterator[tuple[str, TensorEntry, Tensor, bytearray]]:
    """Yield each weight with its bytes, in the order of names, holding no more than one."""
    import torch

    file = _weights_file(path)
    header = read_header(file)
    _check_names(file, header, spec)
    for name, entry in sorted(header.tensors.items()):
        content = read_tensor(file, entry)
        dtype = getattr(torch, TORCH_NAMES[entry.dtype])
        yield name, entry, torch.frombuffer(content, dtype=dtype).reshape(entry.shape), content


def _check_finite(file: Path, name: str, tensor: Tensor) -> None:
    from wsi_unet.models.finite import all_finite

    if not all_finite(tensor):
        raise ModelError(f"{file}: {name} holds NaN or infinite numbers; train or save again")


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    file = path / WEIGHTS_FILE
    if not file.exists():
        others = sorted(entry.name for entry in path.iterdir() if entry.name != SPEC_FILE)
        listed = f"found {', '.join(others[:5])}; " if others else ""
        raise ModelError(f"{path} has no {WEIGHTS_FILE} ({listed}only safetensors are loaded)")
    return file


def _check_names(file: Path, header: Header, spec: ModelSpec) -> None:
    import torch

    with torch.device("meta"):
        expected = _build_empty(spec).state_dict()
    shapes = {
        name: tuple(tensor.shape) for name, tensor in expected.items() if tensor.is_floating_point()
    }
    for problem, names in (
        ("lacks", shapes.keys() - header.tensors.keys()),
        ("has, beyond what its spec describes,", header.tensors.keys() - shapes.keys()),
    ):
        if names:
            first = sorted(names)
            more = f" and {len(first) - 1} more" if len(first) > 1 else ""
            raise ModelError(
                f"{file} {problem} the weights {first[0]}{more}; "
                "weights and spec must belong together"
            )
    for name, entry in header.tensors.items():
        if entry.shape != shapes[name]:
            raise ModelError(
                f"{file}: {name} has the shape {list(entry.shape)}, its spec asks for "
                f"{list(shapes[name])}; weights and spec must belong together"
            )


def _build_empty(spec: ModelSpec) -> nn.Module:
    from wsi_unet.models.networks.build import build_network

    return build_network(spec.architecture)


def _build(spec: ModelSpec, weights: dict[str, Tensor]) -> nn.Module:
    import torch

    with torch.device("meta"):
        network = _build_empty(spec)
    counters = {
        name: torch.zeros((), dtype=tensor.dtype)
        for name, tensor in network.state_dict().items()
        if not tensor.is_floating_point()  # batch norm's count of batches
    }
    network.load_state_dict(weights | counters, strict=True, assign=True)
    return network.eval()


class ModelDigest:
    """The hash of a model: its weights and what else decides the labels."""

    def __init__(self, spec: ModelSpec) -> None:
        self._digest = hashlib.sha256()
        self._add(spec.pixel_fields())

    def _add(self, document: Any) -> None:
        self._digest.update(json.dumps(document, sort_keys=True).encode() + b"\n")

    def add(self, name: str, entry: TensorEntry, content: bytearray) -> None:
        """Add a weight; weights must be added in the order of their names."""
        self._add([name, entry.dtype, list(entry.shape)])
        self._digest.update(content)

    def add_content(self, name: str, content: bytes) -> None:
        """Add named bytes that aren't a tensor."""
        self._add([name, len(content)])
        self._digest.update(content)

    @property
    def value(self) -> str:
        """The SHA-256 of what was added, hexadecimal."""
        return self._digest.hexdigest()
