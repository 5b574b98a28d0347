"""Fixtures that every test folder shares: where the real slides are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# The same examples every time, so that a change is judged by its own merits; new ones are looked
# for with `pytest --hypothesis-profile=explore`.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile("steady")


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
