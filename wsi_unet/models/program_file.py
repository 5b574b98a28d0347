"""Files that hold a program instead of weights: their kinds, and which of them need trust.

Nothing of a program is run here, and torch isn't imported.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsi_unet.errors import ModelError
from wsi_unet.models.paths import AnyPath, parse_path
from wsi_unet.regular_files import open_regular, read_regular

ProgramKind = Literal["onnx", "torchscript", "export"]
"""Kinds of programs that come as files."""

PROGRAM_FILES: dict[str, str] = {
    "onnx": "program.onnx",
    "torchscript": "program.pt",
    "export": "program.pt2",
}
"""Name of the file in a model's folder, by kind."""

TITLES: dict[str, str] = {
    "onnx": "an ONNX program",
    "torchscript": "a TorchScript program",
    "export": "a torch.export program",
}
"""What messages call a program, by kind."""

NEED_TRUST = frozenset({"torchscript", "export"})
"""Kinds that can run any code when they are loaded."""

LARGEST_PROGRAM = 2 * 2**30
"""Bytes of the largest program that is read: what ONNX (protobuf) can hold in one file."""


@dataclass(frozen=True)
class ProgramFile:
    """A program's file, not yet loaded.

    Attributes:
        path: the file.
        kind: what runs it.
    """

    path: Path
    kind: ProgramKind

    def read(self, *, trust: bool) -> bytes:
        """Return the file's bytes.

        Args:
            trust: whether the file may be one that can run code.

        Raises:
            ModelError: it could run code and isn't trusted, is too large, or can't be read.
        """
        self.check_trust(trust=trust)
        try:
            return read_regular(self.path, LARGEST_PROGRAM)
        except OSError as error:
            raise ModelError(f"can't read {self.path}: {error.strerror or error}") from error

    def check_trust(self, *, trust: bool) -> None:
        """Refuse a file that could run code, unless it is trusted.

        Raises:
            ModelError: it could run code and isn't trusted.
        """
        if self.kind in NEED_TRUST and not trust:
            raise ModelError(
                f"{self.path} is {TITLES[self.kind]}, which can run any code when it is loaded; "
                "give `trust=True` if you trust where it comes from"
            )


def open_program(path: AnyPath) -> ProgramFile | None:
    """Return the program that a file holds, by its content; None if it holds none.

    Checkpoints are zip archives too; only programs hold code or a graph.
    """
    path = parse_path(path)
    try:
        with open_regular(path) as file:
            start = file.read(4)
        if start == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                kind = _archive_kind(archive.namelist())
            return None if kind is None else ProgramFile(path, kind)
    except Exception:  # of any type, as a damaged archive makes zipfile raise
        return None  # opening it next reports why
    if path.suffix == ".onnx" or start[:1] == b"\x08":  # its first field, the version
        return ProgramFile(path, "onnx")
    return None


def compute_sha256(content: bytes) -> str:
    """Return the SHA-256 of a program's bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _archive_kind(names: list[str]) -> ProgramKind | None:
    inside = {name.partition("/")[2] or name for name in names}
    if any(name.startswith("code/") for name in inside):
        return "torchscript"
    graphs = {"models/model.json", "serialized_exported_program.json"}
    return "export" if inside & graphs or set(names) & graphs else None
