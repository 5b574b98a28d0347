"""Compare readers on windows of 4096 × 4096 px: ours, tiffslide's, and bare decoding.

All read the same windows of a JPEG slide that is in the page cache, in turns. Bare decoding reads
and decodes every tile that a window touches and discards it: no reader can be faster than that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ProcessorTime,
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_module,
    run_undisturbed,
    select_least_disturbed,
    workspace,
)
from benchmarks.layouts import EXAMPLE, big_slide, glycogen

NAME = "reading"
SIDE = 4096
CORNERS = ((0, 0), (2048, 1024), (4000, 6500), (8192, 0), (9300, 5000), (1234, 8765))
"""(y, x) of the windows, px: some are aligned to the slide's tiles, most aren't."""

THREADS = 2
BAR_TIFFSLIDE, BAR_RAW = 2.2, 0.9


def measure_rows(scale: Scale) -> Iterator[Row]:
    side = 512 if scale.tiny else SIDE
    arguments = ["--repeats", str(1 if scale.tiny else 3 * scale.repeats), "--side", str(side)]
    with workspace() as folder:
        slides = {
            "glycogen (tiles of 512 px)": glycogen(),
            "example, repeated (tiles of 240 px)": big_slide(folder, 0.25, source=EXAMPLE),
        }
        for layout, slide in slides.items():
            command = partial(run_module, "reading", "--time", slide, *arguments)
            speeds = run_undisturbed(command, scale)[0].document
            for name, values in speeds.items():
                what = f"{layout}, {side}² windows, {name}"
                yield Row(NAME, what, median(values), "Mpx/s", detail=format_spread(values))
            ours, tiffslide, raw = (median(speeds[name]) for name in (OURS, TIFFSLIDE, RAW))
            for other, speed, bar in ((TIFFSLIDE, tiffslide, BAR_TIFFSLIDE), (RAW, raw, BAR_RAW)):
                yield Row(NAME, f"{layout}: {OURS} ÷ {other}", ours / speed, "×", least=bar)


OURS = f"ours, {THREADS} threads"
OURS_DEFAULT = "ours, default threads"
TIFFSLIDE = "tiffslide.read_region"
RAW = f"bare decoding, {THREADS} threads"


def time_reads() -> None:
    """Time the reads, in a child process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--time", type=Path, required=True)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--side", type=int, required=True)
    given = parser.parse_args()
    readers = _open_readers(given.time, given.side)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for turn in range(given.repeats + 1):
        for name, read in readers.items():
            before, start = ProcessorTime.now(), time.perf_counter()
            for y, x in CORNERS:
                read(y, x)
            seconds = time.perf_counter() - start
            if turn:  # the first turn fills the page cache and starts threads
                speed = len(CORNERS) * given.side**2 / seconds / 1e6
                samples[name].append((speed, before.others()))
    print(json.dumps({name: select_least_disturbed(values) for name, values in samples.items()}))


def _open_readers(path: Path, side: int) -> dict[str, Callable[[int, int], Any]]:
    from tiffslide import TiffSlide

    from wsi_unet.geometry import Box
    from wsi_unet.locations import Location
    from wsi_unet.slides.readers.tiff import TiffReader
    from wsi_unet.slides.sources.opening import open_source

    location = Location.parse(path)
    two, default = (
        TiffReader(open_source(location), threads=threads) for threads in (THREADS, None)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = TiffSlide(path)
    return {
        OURS: lambda y, x: two.read(0, Box(y, x, y + side, x + side)),
        OURS_DEFAULT: lambda y, x: default.read(0, Box(y, x, y + side, x + side)),
        TIFFSLIDE: lambda y, x: peer.read_region((x, y), 0, (side, side), as_array=True),
        RAW: _prepare_decoding(path, side),
    }


def _prepare_decoding(path: Path, side: int) -> Callable[[int, int], Any]:
    """Return a function that decodes all tiles of a window with `os.pread` and tifffile."""
    import tifffile

    page = tifffile.TiffFile(path).pages.first
    file = os.open(path, os.O_RDONLY)
    rows, columns = page.tilelength, page.tilewidth
    per_row = -(-page.imagewidth // columns)
    pool = ThreadPoolExecutor(THREADS)

    def decode(number: int) -> None:
        data = os.pread(file, page.databytecounts[number], page.dataoffsets[number])
        page.decode(data, number, jpegtables=page.jpegtables)

    def read(y: int, x: int) -> None:
        bottom, right = min(y + side, page.imagelength), min(x + side, page.imagewidth)
        numbers = [
            i * per_row + j
            for i in range(y // rows, -(-bottom // rows))
            for j in range(x // columns, -(-right // columns))
        ]
        list(pool.map(decode, numbers))

    return read


if __name__ == "__main__":
    if "--time" in sys.argv:
        time_reads()
    else:
        emit(measure_rows(parse_scale()))
