"""Export results with a hundred thousand and a million objects: speed and peak memory on two cores.

The results are equally wide, 20,480 px, with outlines of 60 vertices on average. Times are those of
`export`, in a process that exported a small result before, so they hold no imports.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.common import (
    GIB,
    FinishedProcess,
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

NAME = "exports"
CORES = 2
COLUMNS, TINY_COLUMNS = 10, 1
"""Blocks that a result is wide."""
ROWS, TINY_ROWS = (3, 30), (1,)
"""Blocks that results are high: 10⁵ and 10⁶ objects."""
LARGEST = 1.0
"""GiB that no export may reach."""
FLAT = 1.1
"""How much more than for the fewest objects an export may take for the most."""


@dataclass(frozen=True)
class Measured:
    """A format that is measured.

    Attributes:
        name: of the format.
        least: objects per second that it must reach; None: any number.
    """

    name: str
    least: float | None = None


FORMATS = (Measured("qupath", 30_000.0),)


def measure_rows(scale: Scale) -> Iterator[Row]:
    columns, heights = (TINY_COLUMNS, TINY_ROWS) if scale.tiny else (COLUMNS, ROWS)
    peaks: dict[str, list[float]] = {}
    with workspace() as folder:
        for height in heights:
            output = folder / f"{height}.ome.zarr"
            tell(f"  {height} × {columns} blocks: writing labels, finding objects")
            run_module(NAME, "--make", output, "--blocks", str(height), str(columns))
            for each in FORMATS:
                run = partial(run_module, NAME, "--export", output, "--to", each.name)
                done = [run_undisturbed(run, scale)[0] for _ in range(scale.repeats)]
                yield from _describe(each, done)
                peaks.setdefault(each.name, []).append(median([p.peak_bytes for p in done]))
    for name, peak in peaks.items():
        ratio = peak[-1] / peak[0]
        yield Row(NAME, f"{name}: memory for most ÷ fewest objects", ratio, "×", most=FLAT)


def _describe(each: Measured, done: list[FinishedProcess]) -> Iterator[Row]:
    documents = [process.document for process in done]
    objects, size = documents[0]["objects"], documents[0]["bytes"]
    seconds = [document["seconds"] for document in documents]
    cpu = median([document["cpu_seconds"] for document in documents])
    what = f"{each.name}, {objects} objects"
    detail = (
        f"{format_spread(seconds)} s; {cpu:.3g} s of processor time, "
        f"{size / objects:.0f} bytes per object"
    )
    speed = objects / median(seconds)
    yield Row(NAME, what, speed, "objects/s", least=each.least, detail=detail)
    peak = median([process.peak_bytes for process in done])
    before = median([document["peak_before"] for document in documents])
    detail = f"{before / GIB:.2f} GiB of it before the export"
    yield Row(NAME, f"{what}: peak memory", peak / GIB, "GiB", most=LARGEST, detail=detail)


def make_result(path: Path, blocks: tuple[int, int]) -> None:
    """Write a finished result with made-up nuclei, and find them."""
    import wsi_unet
    from benchmarks.object_memory import write_repeated

    write_repeated(path, blocks)
    wsi_unet.find_objects(path)


def time_export(output: Path, name: str) -> None:
    """Export a result in a child process; print what it took as a JSON object."""
    import resource

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    import wsi_unet
    from benchmarks.nuclei import draw_nuclei, write_result
    from wsi_unet.exports.formats import FORMATS as KNOWN

    suffix = KNOWN[name].suffix
    options = wsi_unet.ExportOptions(objects_as="detection" if name == "qupath" else None)
    with workspace() as folder:
        small = folder / "small.ome.zarr"
        write_result(small, draw_nuclei(512, 600), 512)
        wsi_unet.find_objects(small)
        wsi_unet.export(small, name, folder / f"small{suffix}", options=options)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        start, cpu = time.perf_counter(), time.process_time()
        report = wsi_unet.export(output, name, folder / f"large{suffix}", options=options)
        document = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            "bytes": sum(file.stat().st_size for file in report.files),
            "peak_before": before,
            "objects": wsi_unet.open_objects(output).count_rows(),
        }
    print(json.dumps(document))


def run_child() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", type=Path)
    parser.add_argument("--blocks", type=int, nargs=2)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--to")
    given = parser.parse_args()
    if given.make:
        make_result(given.make, tuple(given.blocks))
    else:
        time_export(given.export, given.to)


if __name__ == "__main__":
    if {"--make", "--export"} & {*sys.argv}:
        run_child()
    else:
        emit(measure_rows(parse_scale()))
