"""Opening a slide with the reader that suits it."""

from __future__ import annotations

import os
from pathlib import Path

from wsi_unet.errors import SlideError
from wsi_unet.slides.slide import Slide


def open_slide(path: str | os.PathLike[str], reader: str = "auto") -> Slide:
    """Open a slide."""
    from wsi_unet.slides.tiffslide_reader import TiffReader

    path = Path(path)
    if not path.exists():
        raise SlideError(f"{path}: no such file; check the path")
    return Slide(path, TiffReader(path))
