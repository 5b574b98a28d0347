"""Measure 20 regions of a finished result with a million objects: `wsi-unet measure`.

The labels, 1.4 Gpx of discs, are written as `segment` writes them, and their objects are found by
`find_objects`. The regions are smooth outlines of all sizes that overlap; one is the whole slide.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import (
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_command,
    run_module,
    run_undisturbed,
    tell,
    workspace,
)

NAME = "measure"
CELL = 36
"""px: side of the square that has one disc."""
CELLS, TINY_CELLS = 1024, 40
"""Discs per side of the labels."""
REGIONS = 20
BLOCK = 2048
PIXEL = 0.5
"""µm per pixel."""
MOST_SECONDS = 5.0


@dataclass(frozen=True)
class DiscClass:
    """The meaning of a label value."""

    value: int
    name: str
    color: str = "#2a6fdb"


def measure_rows(scale: Scale) -> Iterator[Row]:
    cells = TINY_CELLS if scale.tiny else CELLS
    with workspace() as folder:
        output, regions = folder / "discs.ome.zarr", folder / "regions.geojson"
        tell("  writing labels and finding objects")
        run_module("measure", "--make", output, "--cells", str(cells))
        regions.write_text(json.dumps(draw_regions(cells * CELL)))
        for options, bar in (((), MOST_SECONDS), (("--areas-only",), None)):
            arguments = ("measure", output, "--regions", regions, "--json", *options)
            run = partial(run_command, *arguments)
            run()  # into the page cache
            done = [run_undisturbed(run, scale)[0] for _ in range(scale.repeats)]
            seconds = [each.seconds for each in done]
            rows = done[0].document["rows"]
            inside = sum(row.get("objects", 0) for row in rows)
            what = " ".join((f"{REGIONS} regions, {cells**2:.3g} objects", *options))
            detail = (
                f"{format_spread(seconds)}; {inside:.3g} objects in regions, " if inside else ""
            )
            detail += f"{max(each.peak_bytes for each in done) / 2**30:.2f} GiB"
            yield Row(NAME, what, median(seconds), "s", most=bar, detail=detail)


def draw_regions(side: int) -> dict[str, object]:
    """Return regions on labels of `side` px as GeoJSON: stars of 400 points, and the whole."""
    random = np.random.default_rng(1)
    angle = np.linspace(0, 2 * np.pi, 400)
    outlines = [np.array([[0, 0], [side, 0], [side, side], [0, side], [0, 0]], np.float64)]
    for _ in range(REGIONS - 1):
        radius = side * random.uniform(0.02, 0.3) * (1 + 0.3 * np.sin(5 * angle))
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        outlines.append(random.uniform(0.2, 0.8, 2) * side + radius[:, None] * circle)
    features = [
        {
            "type": "Feature",
            "properties": {},
            "geometry": {"type": "Polygon", "coordinates": [outline.tolist()]},
        }
        for outline in outlines
    ]
    return {"type": "FeatureCollection", "features": features}


def make_discs(side: int) -> NDArray[np.uint8]:
    """Return labels with a disc of either class in each cell."""
    random = np.random.default_rng(0)
    labels = np.zeros((side, side), np.uint8)
    y, x = np.ogrid[:CELL, :CELL]
    for top in range(0, side - CELL + 1, CELL):
        for left in range(0, side - CELL + 1, CELL):
            radius = random.uniform(4, 11)
            cy, cx = random.uniform(radius + 1, CELL - radius - 1, 2)
            disc = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
            labels[top : top + CELL, left : left + CELL][disc] = random.integers(1, 3)
    return labels


def make_result(path: Path, cells: int) -> None:
    """Write a finished result with discs, and find them."""
    import wsi_unet
    from wsi_unet.labels.layout import create_labels, ensure_root, mark_finished
    from wsi_unet.labels.metadata import Frame
    from wsi_unet.labels.progress import BlockMarker, Progress, RunRecord
    from wsi_unet.labels.pyramid import Pyramid, reduce_mode
    from wsi_unet.labels.writer import build_tail, write_block
    from wsi_unet.storage.local_store import LocalStore

    store, name, side = LocalStore(path), "discs", cells * CELL
    pyramid = Pyramid((side, side), BLOCK)
    slide: Any = {
        "name": "discs",
        "fingerprint": "discs",
        "shape": [side, side],
        "mpp": [PIXEL] * 2,
    }
    ensure_root(store, {"slide": slide})
    classes = [DiscClass(0, "background"), DiscClass(1, "nucleus"), DiscClass(2, "lymphocyte")]
    frame = Frame.from_downsample((1.0, 1.0), (PIXEL, PIXEL))
    create_labels(store, name, pyramid, frame, classes, {"slide": slide})
    piece = make_discs(BLOCK + CELL)  # repeated in every block; discs on its edges are cut
    counts, progress = np.zeros(3, np.int64), Progress(store, name)
    for index in pyramid.grid:
        core = pyramid.grid.core(index)
        y, x = core.y0 % CELL, core.x0 % CELL
        part = piece[y : y + core.shape[0], x : x + core.shape[1]]
        counts += np.bincount(part.ravel(), minlength=3)
        shards = write_block(store, f"labels/{name}", pyramid, index, part, reduce_mode)
        marker = BlockMarker(
            block=index, signature="0", counts=(), seconds={}, attempts=1, shards=shards
        )
        progress.write_marker(marker)
    build_tail(store, f"labels/{name}", pyramid, reduce_mode, None)
    parameters: Any = {"regions": [], "block": BLOCK, "tissue": "none"}
    created = "2026-01-02T03:04:05+00:00"
    progress.write_run(RunRecord(name=name, signature="0", parameters=parameters, created=created))
    mark_finished(store, name, counts.tolist(), created)
    report = wsi_unet.find_objects(path)
    print(json.dumps({"objects": sum(each.objects for each in report.labels)}))


if __name__ == "__main__":
    if "--make" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--make", type=Path, required=True)
        parser.add_argument("--cells", type=int, required=True)
        given = parser.parse_args()
        make_result(given.make, given.cells)
    else:
        emit(measure_rows(parse_scale()))
