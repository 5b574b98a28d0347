"""Slides in memory, and paths of files to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_unet.geometry import Box
from wsi_unet.slides.levels import PixelSize, make_levels
from wsi_unet.slides.slide import Reader, Slide

Pixels = NDArray[np.uint8]
SlideOf = Callable[..., Slide]


class ArrayReader(Reader):
    """A reader of arrays that notes which boxes were read."""

    name = "array"
    vendor = None
    compression = None

    def __init__(self, levels: list[Pixels], mpp: PixelSize | None) -> None:
        self._pixels = levels
        self.levels = make_levels(
            [(level.shape[0], level.shape[1]) for level in levels], [(7, 5)] * len(levels)
        )
        self.mpp = mpp
        self.properties: Mapping[str, str] = {}
        self.boxes: list[tuple[int, Box]] = []

    def read(self, level: int, box: Box) -> Pixels:
        self.boxes.append((level, box))
        return self._pixels[level][box.slices()].copy()

    def fingerprint(self) -> str:
        return "0" * 64

    def close(self) -> None:
        pass


@pytest.fixture
def slide_of() -> SlideOf:
    """Make a slide of (h, w, 3) arrays, finest first; its `boxes` are what was read."""

    def make(*levels: Pixels, mpp: PixelSize | None = None) -> Slide:
        reader = ArrayReader(list(levels), mpp)
        slide = Slide("memory", reader)
        slide.boxes = reader.boxes  # type: ignore[attr-defined]
        return slide

    return make


@pytest.fixture(scope="session")
def real_slides(shared_data: Path) -> dict[str, Path]:
    """Return the real TIFF slides by file name."""
    names = [
        "CMU-1-Small-Region.svs",
        "OS-1-detail.ome.tif",
        "OS-2-ndpi.ome.tif",
        "glycogen_HE_15071x13500.tiff",
        "hamamatsu_DAPI.ndpi",
        "luna_1065626.svs",
    ]
    return {name: shared_data / "slides" / name for name in names}


@pytest.fixture
def random_rgb() -> Pixels:
    """Return an uneven RGB image, (90, 70, 3)."""
    return np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
