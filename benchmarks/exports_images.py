"""Speed and memory of `wsi_unet.export` to OME-TIFF and OME-Zarr 0.4, as the slide grows.

One block of made-up nuclei, with its piece of the pyramid, is stored again and again. The time is
that of the call, and the pixels are those of the finest level.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_module,
    run_undisturbed,
    tell,
    workspace,
)

NAME = "exports_images"
BLOCK = 2048
DENSITY = 1100.0
"""Nuclei per 10⁶ px: 4400 per mm²."""

SIDES, TINY_SIDES = (7, 14), (1,)
"""Blocks per side of the labels: 205 and 822 Mpx."""

KINDS = (("ome-tiff", "labels"), ("ome-tiff", "overlay"), ("ome-zarr-0.4", None))
LEAST_SPEED = 40.0
"""Mpx/s of OME-TIFF labels on two cores."""

FLAT = 1.1
"""How much more memory than the smallest slide the largest may take."""


def measure_rows(scale: Scale) -> Iterator[Row]:
    peaks: dict[str, list[float]] = {}
    for side in TINY_SIDES if scale.tiny else SIDES:
        with workspace() as folder:
            megapixels = (side * BLOCK) ** 2 / 1e6
            tell(f"  {side}² blocks of {BLOCK}² px")
            run_module(NAME, "--make", folder / "out.ome.zarr", "--side", str(side))
            for kind, what in KINDS:
                name = kind if what is None else f"{kind} {what}"
                found = [measure_export(folder, kind, what, scale) for _ in range(scale.repeats)]
                speeds = [megapixels / each["seconds"] for each in found]
                peak = median([each["peak"] for each in found]) / 2**30
                peaks.setdefault(name, []).append(peak)
                cores = median([each["cpu"] / each["seconds"] for each in found])
                per_core = median([megapixels / each["cpu"] for each in found])
                yield Row(
                    NAME,
                    f"{name}, {megapixels:.0f} Mpx",
                    median(speeds),
                    "Mpx/s",
                    least=LEAST_SPEED if what == "labels" else None,
                    detail=f"{format_spread(speeds)}; {cores:.1f} cores, {per_core:.0f} Mpx/s of "
                    f"each, {peak:.2f} GiB",
                )
    for name, values in peaks.items():
        ratio = values[-1] / values[0]
        yield Row(NAME, f"{name}: memory, largest ÷ smallest slide", ratio, "×", most=FLAT)


def measure_export(folder: Path, kind: str, what: str | None, scale: Scale) -> dict[str, float]:
    """Return seconds, processor seconds and peak bytes of an export in a process of its own."""
    options = ("--export", folder / "out.ome.zarr", "--to", kind, *(("--what", what) * bool(what)))

    def run() -> dict[str, float]:
        return dict(run_module(NAME, *map(str, options)).document)

    return run_undisturbed(run, scale)[0]


def make_result(path: Path, side: int) -> None:
    """Write a finished result of (side, side) blocks, which are all the same."""
    from benchmarks.nuclei import CREATED, LABEL_CLASSES, PIXEL, draw_nuclei
    from benchmarks.nuclei import NAME as LABEL
    from wsi_unet.labels.layout import create_labels, ensure_root, mark_finished
    from wsi_unet.labels.metadata import Frame
    from wsi_unet.labels.progress import BlockMarker, Progress, RunRecord
    from wsi_unet.labels.pyramid import Pyramid, reduce_mode, shard_key
    from wsi_unet.labels.writer import build_tail, write_block
    from wsi_unet.storage.local_store import LocalStore

    labels, group = draw_nuclei(BLOCK, DENSITY), f"labels/{LABEL}"
    store, pyramid = LocalStore(path), Pyramid((side * BLOCK, side * BLOCK), BLOCK)
    shape = [side * BLOCK] * 2
    slide: dict[str, Any] = {
        "name": LABEL, "fingerprint": LABEL, "shape": shape, "mpp": [PIXEL] * 2,
    }  # fmt: skip
    ensure_root(store, {"slide": slide})
    frame = Frame.from_downsample((1.0, 1.0), (PIXEL, PIXEL))
    create_labels(store, LABEL, pyramid, frame, LABEL_CLASSES, {"slide": slide})
    records = write_block(store, group, pyramid, (0, 0), labels, reduce_mode)
    shards = [store.get(key) for key in records]
    progress = Progress(store, LABEL)
    for index in pyramid.grid:
        own = {}
        for level, (shard, record) in enumerate(zip(shards, records.values(), strict=True)):
            assert shard is not None
            own[shard_key(group, level, index, False)] = record
            store.put(shard_key(group, level, index, False), shard)
        marker = BlockMarker(
            block=index, signature="0", counts=(), seconds={}, attempts=1, shards=own
        )
        progress.write_marker(marker)
    build_tail(store, group, pyramid, reduce_mode)
    parameters: Any = {"regions": [], "block": BLOCK, "tissue": "none"}
    progress.write_run(RunRecord(name=LABEL, signature="0", parameters=parameters, created=CREATED))
    counts = np.bincount(labels.ravel(), minlength=2) * side * side
    mark_finished(store, LABEL, counts.tolist(), CREATED)


def export(path: Path, kind: str, what: str | None) -> None:
    """Export a result; print seconds, processor seconds and peak bytes as a JSON object."""
    import wsi_unet

    run, options = wsi_unet.export, wsi_unet.ExportOptions(what=what)  # imported before it counts
    before, start = time.process_time(), time.perf_counter()
    run(path, kind, path.with_name(f"{kind}.out"), options=options)
    figures = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - before,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", type=Path)
    parser.add_argument("--side", type=int)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--to")
    parser.add_argument("--what")
    given = parser.parse_args()
    if given.make is not None:
        make_result(given.make, given.side)
    else:
        export(given.export, given.to, given.what)


if __name__ == "__main__":
    if {"--make", "--export"} & {*sys.argv}:
        main()
    else:
        emit(measure_rows(parse_scale()))
