"""What a message advises to install isn't there yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsi_unet.errors import SlideError
from wsi_unet.slides import opening


@pytest.mark.parametrize("installed", [True, False])
def test_openslide_is_suggested_only_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    found: Any = object() if installed else None
    monkeypatch.setattr(opening, "find_spec", lambda _: found)
    path = tmp_path / "slide.xyz"
    path.write_bytes(b"no slide at all" * 20)
    with pytest.raises(SlideError, match="what OpenSlide reads") as caught:
        opening.open_slide(path)
    assert ("pip install" in str(caught.value)) != installed


@pytest.mark.parametrize("installed", [True, False])
def test_an_extra_that_is_broken_is_not_suggested_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    def fail(name: str) -> None:
        raise OSError("libopenslide.so.1: cannot open shared object file")

    found: Any = object() if installed else None
    monkeypatch.setattr(opening, "find_spec", lambda _: found)
    monkeypatch.setattr(opening, "import_module", fail)
    path = tmp_path / "slide.mrxs"
    path.write_bytes(b"x" * 300)
    with pytest.raises(SlideError, match="libopenslide") as caught:
        opening.open_slide(path)
    assert ("pip install" in str(caught.value)) != installed
    assert ("install it anew" in str(caught.value)) == installed
