"""Small runs of the whole pipeline, and the files that they write."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wsi_unet
from wsi_unet.models import UNetConfig

OPTIONS: dict[str, Any] = {
    "tissue": "none",
    "precision": "float32",
    "device": "cpu",
    "block": 512,
    "tile": 128,
}
"""Many small blocks, identical on every machine."""

CONFIG = UNetConfig(depth=2, base_width=4)
"""A small network."""


@dataclass(frozen=True)
class Study:
    """A folder with a slide and a model called "random", to be segmented in small blocks.

    Attributes:
        folder: holds `slide.png` and `model`; where a test asks for them, another model of the
            same name, `other`, and an undisturbed run, `whole`.
        blocks: number of label blocks.
    """

    folder: Path
    blocks: int

    @property
    def slide(self) -> Path:
        return self.folder / "slide.png"

    @property
    def whole(self) -> Path:
        return self.folder / "whole"

    def run(self, output: Path, model: str = "model", **options: Any) -> wsi_unet.Report:
        return wsi_unet.segment(self.slide, output, self.folder / model, **(OPTIONS | options))

    def plan(self, output: Path) -> wsi_unet.Plan:
        return wsi_unet.plan(self.slide, output, self.folder / "model", **OPTIONS)

    def finished(self, output: Path) -> Path:
        """Return a copy of the finished store, to be damaged."""
        shutil.copytree(self.whole, output)
        return output


def array_objects(output: Path) -> dict[str, str]:
    """Return the hash of every stored shard and array document.

    Left out is what tells the time: progress and the groups' attributes.
    """
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".wsi_unet" not in path.parts and not _is_group_document(path)
    }


def _is_group_document(path: Path) -> bool:
    return path.name == "zarr.json" and not path.parent.name.isdecimal()


def marker_times(output: Path) -> dict[str, int]:
    """Return when each block of the label group "random" was marked done."""
    return {
        path.name: path.stat().st_mtime_ns
        for path in (output / ".wsi_unet" / "random" / "blocks").glob("*.json")
    }


def every_file(output: Path) -> dict[str, tuple[int, int, int]]:
    """Return (inode, time of the last change, size) of every file, hidden ones too."""
    found = {}
    for path in sorted(output.rglob("*")):
        if path.is_file():
            stat = path.stat()
            found[str(path.relative_to(output))] = stat.st_ino, stat.st_mtime_ns, stat.st_size
    return found


def temporaries(output: Path) -> list[Path]:
    """Return the temporary files that killed writers left."""
    return [*(output / ".wsi_unet" / ".tmp").glob("*")]
