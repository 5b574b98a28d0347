"""Make a large slide quickly: repeat a real slide's JPEG tiles, byte for byte.

    python benchmarks/big_slide.py examples/CMU-1-Small-Region.svs big.tiff --gigapixels 3

One rectangle of the source, made of whole tiles at every level that is kept, is repeated across
the result, so all levels show the same picture. No pixel is decoded or encoded: ten gigapixels
take seconds, and reading them costs what reading a real slide of that size costs.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tifffile

JPEG = 7
RGB = 2
JPEG_TABLES = 347
UNDEFINED = 7
"""Values of the tags Compression and PhotometricInterpretation; a tag; a type (TIFF 6.0)."""

LEAST_SHARE = 0.6
"""Levels are kept if the rectangle covers at least this share of both sides of the source."""


def write_big_slide(source: Path, target: Path, gigapixels: float, mpp: float = 0.5) -> None:
    """Write a pyramidal, tiled BigTIFF of at least `gigapixels` by repeating JPEG tiles.

    Args:
        source: a TIFF slide whose levels are tiled JPEG with square tiles.
        target: the file to write.
        gigapixels: least size of level 0, 10^9 px.
        mpp: pixel size of level 0 to write in the metadata, µm.

    Raises:
        ValueError: the source isn't tiled JPEG, or has no whole tile.
    """
    with tifffile.TiffFile(source) as tiff, source.open("rb") as file:
        pages = _usable_levels(tiff)
        coarsest = max(pages)
        finest = pages[1]
        rows, columns = (
            side // (finest.tilelength * coarsest) * finest.tilelength * coarsest
            for side in (finest.imagelength, finest.imagewidth)
        )
        repeats = math.ceil(math.sqrt(gigapixels * 1e9 / (rows * columns)))
        with tifffile.TiffWriter(target, bigtiff=True) as writer:
            for downsample, page in pages.items():
                size = rows // downsample, columns // downsample
                data = _tiles(file.fileno(), page, size, repeats)
                shape = size[0] * repeats, size[1] * repeats
                _write_level(writer, page, data, shape, mpp * downsample, downsample > 1)


def _usable_levels(tiff: tifffile.TiffFile) -> dict[int, Any]:
    """Return the pages, by downsample, of which a rectangle of whole tiles covers enough."""
    levels: list[Any] = [level.pages[0] for level in tiff.series[0].levels]
    finest = levels[0]
    usable: dict[int, Any] = {}
    for page in levels:
        downsample = round(finest.imagewidth / page.imagewidth)
        square = page.is_tiled and page.tilelength == page.tilewidth == finest.tilelength
        if not square or int(page.compression) != JPEG:
            break
        step = page.tilelength * downsample
        sides = finest.imagelength, finest.imagewidth
        least = LEAST_SHARE if usable else 0
        if any(side // step < 1 or side // step * step < least * side for side in sides):
            break
        usable[downsample] = page
    if 1 not in usable:
        raise ValueError(f"{tiff.filename} has no whole, square JPEG tile to repeat")
    return usable


def _tiles(file: int, page: Any, size: tuple[int, int], repeats: int) -> Iterator[bytes]:
    """Yield the encoded tiles of a level, row by row.

    Args:
        file: descriptor of the source.
        page: tifffile's page of the source's level.
        size: (rows, columns) of the rectangle that is repeated, px of the level.
        repeats: how often it is repeated along each side.
    """
    stored = -(-page.imagewidth // page.tilewidth)
    rows, columns = size[0] // page.tilelength, size[1] // page.tilewidth
    rectangle = [
        [
            os.pread(file, page.databytecounts[number], page.dataoffsets[number])
            for number in range(row * stored, row * stored + columns)
        ]
        for row in range(rows)
    ]
    for _ in range(repeats):
        for row_tiles in rectangle:
            for _ in range(repeats):
                yield from row_tiles


def _write_level(
    writer: tifffile.TiffWriter,
    page: Any,
    data: Iterator[bytes],
    shape: tuple[int, int],
    mpp: float,
    reduced: bool,
) -> None:
    """Write one page of ready-made tiles with the tags that decode them as the source's do."""
    tables = page.jpegtables
    writer.write(
        data,
        shape=(*shape, 3),
        dtype="uint8",
        tile=(page.tilelength, page.tilewidth),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"outcolorspace": "rgb" if int(page.photometric) == RGB else "ycbcr"},
        subsampling=page.subsampling,
        subfiletype=1 if reduced else 0,
        resolution=(1e4 / mpp, 1e4 / mpp),
        resolutionunit="CENTIMETER",
        extratags=[(JPEG_TABLES, UNDEFINED, len(tables), tables, True)] if tables else [],
        metadata=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("source", type=Path, help="a slide of JPEG tiles")
    parser.add_argument("target", type=Path, help="the TIFF to write")
    parser.add_argument("--gigapixels", type=float, default=3.0, help="least size, 10^9 px")
    parser.add_argument("--mpp", type=float, default=0.5, help="µm per px to write in the metadata")
    given = parser.parse_args()
    write_big_slide(given.source, given.target, given.gigapixels, given.mpp)


if __name__ == "__main__":
    main()
