from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest

from wsi_unet.geometry import Box
from wsi_unet.slides import open_slide

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def big_slide() -> Any:
    spec = importlib.util.spec_from_file_location("big_slide", ROOT / "benchmarks/big_slide.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tiles_of_the_example_are_repeated(
    big_slide: Any, example_slide_path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "big.tiff"
    big_slide.write_big_slide(example_slide_path, target, gigapixels=0.02, mpp=0.25)
    with open_slide(example_slide_path) as source, open_slide(target) as slide:
        assert slide.shape == (2 * 2880, 2 * 2160)
        assert slide.mpp is not None
        assert (slide.mpp.y, slide.mpp.x) == pytest.approx((0.25, 0.25))
        tile = source.read(0, Box(480, 240, 960, 720))
        for dy, dx in ((0, 0), (2880, 0), (2880, 2160)):
            assert (slide.read(0, Box(480, 240, 960, 720).shift(dy, dx)) == tile).all()
    with openslide.OpenSlide(target) as theirs:
        region = np.asarray(theirs.read_region((2160 + 240, 480), 0, (480, 480)))
        assert (region[..., :3] == tile).all()


def test_levels_show_the_same_picture(
    big_slide: Any, real_slides: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "big.tiff"
    source = real_slides["glycogen_HE_15071x13500.tiff"]
    big_slide.write_big_slide(source, target, gigapixels=0.5)
    with open_slide(target) as slide:
        assert slide.shape[0] * slide.shape[1] >= 5e8
        assert [level.downsample[0] for level in slide.levels] == [1.0, 2.0, 4.0, 8.0]
        fine = slide.read(0, Box(12_288, 12_288, 16_384, 16_384))
        coarse = slide.read(3, Box(1536, 1536, 2048, 2048)).astype(float)
        reduced = fine.reshape(512, 8, 512, 8, 3).mean((1, 3))
        assert np.abs(coarse - reduced).mean() < 3


def test_sources_without_jpeg_tiles_are_refused(
    big_slide: Any, real_slides: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="JPEG tile"):
        big_slide.write_big_slide(real_slides["luna_1065626.svs"], tmp_path / "big.tiff", 0.1)
