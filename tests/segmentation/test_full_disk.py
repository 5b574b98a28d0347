"""A disk that fills up during a run: nothing is lost, and the rerun finishes."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.oracle import balanced_model, textured, write_png

import wsi_unet
from wsi_unet.errors import PlanError
from wsi_unet.models import UNetConfig
from wsi_unet.storage.local_store import LocalStore

SIZE_MIB = 80


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 80 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"can't mount a small file system here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill_disk(ballast: Path) -> None:
    """Write until there is no space left."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_loses_nothing(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = textured(1500, 1500)
    slide = write_png(tmp_path / "slide.png", image)
    balanced_model(UNetConfig(depth=2, base_width=4), image, tmp_path / "model")
    options: dict[str, Any] = {
        "tissue": "none",
        "image": "none",
        "precision": "float32",
        "device": "cpu",
        "block": 512,
        "tile": 256,
    }
    ballast, output = small_disk / "ballast", small_disk / "out"
    put, shards = LocalStore.put, itertools.count()

    def fill(self: LocalStore, key: str, data: bytes) -> None:
        if key.startswith("labels/random/0/c/") and next(shards) == 4:
            fill_disk(ballast)
        put(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", fill)
        report = wsi_unet.segment(slide, output, tmp_path / "model", **options)
    assert report.state == "incomplete"
    assert "No space left on device" in report.failures[0].error
    assert "\n" not in report.failures[0].error
    assert 2 <= report.blocks.done < report.blocks.total

    with pytest.raises(PlanError, match="disk: "):
        wsi_unet.segment(slide, output, tmp_path / "model", **options)

    ballast.unlink()
    rerun = wsi_unet.segment(slide, output, tmp_path / "model", **options)
    assert rerun.state == "finished"
    assert rerun.blocks.resumed == report.blocks.done
    whole = tmp_path / "whole"
    wsi_unet.segment(slide, whole, tmp_path / "model", **options)
    assert (wsi_unet.open_labels(output).values == wsi_unet.open_labels(whole).values).all()
    leftovers = [path for path in output.rglob("*") if path.name.endswith(".partial")]
    assert leftovers == []
