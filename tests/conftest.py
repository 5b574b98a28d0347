"""Fixtures that every test folder shares: where the real slides are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def example_slide_path() -> Path:
    """The real slide in the repo: Aperio JPEG, 2967 x 2220 px (rows, columns), 0.499 µm/px."""
    path = ROOT / "examples" / "CMU-1-Small-Region.svs"
    assert path.is_file(), f"the example slide is missing from the checkout: {path}"
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of larger real data, which a checkout doesn't have; skips when absent."""
    given = os.environ.get("WSI_UNET_TEST_DATA")
    path = Path(given) if given else ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no larger test data at {path}; set WSI_UNET_TEST_DATA to its folder")
    return path
