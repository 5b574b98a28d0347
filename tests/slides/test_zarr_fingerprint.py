"""The fingerprint of a Zarr changes with its pixels, even if no size does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from wsi_unet.slides import open_slide


def fingerprint(path: Path) -> str:
    with open_slide(path) as slide:
        return slide.fingerprint()


def test_uncompressed_pixels_count(tmp_path: Path) -> None:
    path = tmp_path / "plain.zarr"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    array = zarr.create_array(
        store=path, shape=pixels.shape, chunks=(64, 64, 3), dtype="u1", compressors=None
    )
    array[:] = pixels
    before = fingerprint(path)
    assert fingerprint(path) == before
    array[:] = 255 - pixels
    assert fingerprint(path) != before
