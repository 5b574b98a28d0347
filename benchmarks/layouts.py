"""The named slides and networks that the benchmarks run on."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.common import ROOT, run_module

EXAMPLE = ROOT / "examples" / "CMU-1-Small-Region.svs"
"""Breast, H&E, 2220 x 2967 px, JPEG tiles of 240 px, in the repository (OpenSlide, CC0)."""

GLYCOGEN = "glycogen_HE_15071x13500.tiff"
"""Liver, H&E, 15071 x 13500 px, JPEG tiles of 512 px, no pixel size (pathologyatlas, MIT)."""


def glycogen() -> Path:
    """Return the path of the glycogen slide: 0.2 Gpx, almost all tissue.

    Raises:
        SystemExit: there is no such file; it isn't part of the repository.
    """
    given = os.environ.get("WSI_UNET_TEST_DATA")
    data = Path(given) if given else ROOT.parent / "shared" / "data"
    path = data / "slides" / GLYCOGEN
    if not path.is_file():
        raise SystemExit(
            f"no {GLYCOGEN} in {path.parent}; set WSI_UNET_TEST_DATA to the folder that holds "
            "slides/, or run the benchmarks that don't need it"
        )
    return path


def random_network(folder: Path, base: int, padding: str = "valid", depth: int = 4) -> Path:
    """Write a network with the paper's shape and He-random weights, two balanced classes.

    The weights of a given base width and depth are the same for both paddings.

    Args:
        folder: the folder to write it to.
        base: channels of the first level; the paper has 64.
        padding: "valid" (the paper) or "same".
        depth: number of poolings.
    """
    path = folder / f"{padding}-{base}-{depth}.safetensors"
    if not path.exists():
        run_module(
            "networks", path, "--base", str(base), "--padding", padding, "--depth", str(depth)
        )
    return path


def big_slide(folder: Path, gigapixels: float = 3.0, source: Path | None = None) -> Path:
    """Write a large slide by repeating a slide's JPEG tiles byte for byte; return its path.

    Its metadata gives a pixel size of 0.5 µm.

    Args:
        folder: the folder to write it to.
        gigapixels: its least size, 10^9 px.
        source: the slide to repeat; None for the glycogen slide.
    """
    source = source or glycogen()
    path = folder / f"{source.stem}-{gigapixels:g}.tiff"
    if not path.exists():
        run_module("big_slide", source, path, "--gigapixels", str(gigapixels))
    return path
