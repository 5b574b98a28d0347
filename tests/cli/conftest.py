"""Fixtures of the tests of `wsi-unet segment`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.standin import Calls

import wsi_unet


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """Replace the runs by a stand-in, in an empty current folder."""
    found = Calls()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wsi_unet, "segment_cohort", found)
    return found
