"""What the tests of `wsi-unet segment` share."""

from __future__ import annotations

import pytest
from support.standin import Calls

import wsi_unet


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(wsi_unet, "segment", found)
    return found
