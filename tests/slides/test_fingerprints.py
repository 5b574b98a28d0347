from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from wsi_unet.slides import open_slide

Pixels = NDArray[np.uint8]


def fingerprint(path: Path, reader: str = "auto") -> str:
    with open_slide(path, reader) as slide:
        return slide.fingerprint()


@pytest.mark.parametrize("reader", ["tiffslide", "openslide"])
def test_place_and_time_do_not_count(example_slide_path: Path, tmp_path: Path, reader: str) -> None:
    copy = tmp_path / "renamed.tif"
    shutil.copyfile(example_slide_path, copy)
    os.utime(copy, (1, 1))
    digits = fingerprint(example_slide_path, reader)
    assert len(digits) == 64
    assert int(digits, 16)
    assert fingerprint(copy, reader) == digits


def test_content_counts(example_slide_path: Path, tmp_path: Path, random_rgb: Pixels) -> None:
    original = fingerprint(example_slide_path)
    content = bytearray(example_slide_path.read_bytes())
    content[20_000] ^= 1  # one bit of a tile in the first MiB
    (tmp_path / "a.svs").write_bytes(content)
    assert fingerprint(tmp_path / "a.svs") != original
    (tmp_path / "b.svs").write_bytes(example_slide_path.read_bytes() + b"\0")
    assert fingerprint(tmp_path / "b.svs") != original


def test_tile_tables_count(tmp_path: Path) -> None:
    """Where only the middle of a large file differs, the lengths of its tiles do."""
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    other = pixels.copy()
    other[400:600] = 7
    for name, one in (("a", pixels), ("b", other)):
        tifffile.imwrite(tmp_path / name, one, tile=(64, 64), compression="zlib")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
