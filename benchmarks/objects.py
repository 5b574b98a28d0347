"""Find the objects of a finished result with made-up nuclei: speed on one and two cores, memory.

Times are those of `find_objects` from locking the result to its report, in a process that found the
objects of a small result before, so they hold no imports. A core is taken away by affinity.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import (
    GIB,
    FinishedProcess,
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_in_turns,
    run_module,
    tell,
    workspace,
)

NAME = "objects"
SIDE, TINY_SIDE = 8192, 1024
BLOCK, TINY_BLOCK = 4096, 512
DENSITIES = {"nuclei as in tissue": 600.0, "dense nuclei": 1500.0}
"""Nuclei per 10⁶ px: a section with 4,000 on 6.6 Mpx, and one that is half covered by nuclei."""
SPLITS = ("none", "distance:0.75")
CORES = (1, 2)
LEAST_SPEED, LEAST_OBJECTS = 20.0, 20_000.0


def measure_rows(scale: Scale) -> Iterator[Row]:
    side, block = (TINY_SIDE, TINY_BLOCK) if scale.tiny else (SIDE, BLOCK)
    with workspace() as folder:
        for name, density in DENSITIES.items():
            tell(f"  writing {name}")
            output = folder / f"{density:g}.ome.zarr"
            _write(output, side, block, density)
            for split in SPLITS:
                yield from _measure_speed(f"{name}, split {split}", output, split, scale, side)
        yield from _measure_memory(folder, block)


def _write(output: Path, side: int, block: int, density: float) -> None:
    sizes = ("--side", str(side), "--block", str(block), "--density", str(density))
    run_module("nuclei", output, *sizes)


def _measure_speed(what: str, output: Path, split: str, scale: Scale, side: int) -> Iterator[Row]:
    reports: dict[int, list[dict[str, Any]]] = {cores: [] for cores in CORES}

    def run(cores: int) -> float:
        reports[cores].append(_find(output, split, cores).document)
        return float(reports[cores][-1]["seconds"])

    seconds = run_in_turns({str(cores): lambda c=cores: run(c) for cores in CORES}, scale)  # type: ignore[misc]
    objects = reports[1][0]["objects"]
    for cores in CORES:
        values = seconds[str(cores)]
        cpu = median([report["cpu_seconds"] for report in reports[cores]])
        detail = f"{format_spread(values)} s; {cpu:.3g} s of processor time, {objects} objects"
        bars = (LEAST_SPEED, LEAST_OBJECTS) if cores == 2 else (None, None)
        on = f"{what}, {cores} core{'s' if cores > 1 else ''}"
        speed = side * side / 1e6 / median(values)
        yield Row(NAME, on, speed, "Mpx/s", least=bars[0], detail=detail)
        yield Row(NAME, on, objects / median(values), "objects/s", least=bars[1])
    ratio = median(seconds["1"]) / median(seconds["2"])
    yield Row(NAME, f"{what}: 2 cores ÷ 1 core", ratio, "×")


def _measure_memory(folder: Path, side: int) -> Iterator[Row]:
    """Measure the peak of a process that finds the objects of one block of `side` px."""
    output = folder / "one.ome.zarr"
    _write(output, side, side, DENSITIES["dense nuclei"])
    for split in SPLITS:
        done = _find(output, split, 1)
        rise = (done.peak_bytes - done.document["peak_before"]) / GIB
        detail = f"{rise:.2f} GiB more than before"
        what = f"peak memory, one block of {side}² px of dense nuclei, split {split}"
        yield Row(NAME, what, done.peak_bytes / GIB, "GiB", detail=detail)


def _find(output: Path, split: str, cores: int) -> FinishedProcess:
    return run_module("objects", "--find", output, "--split", split, "--cores", str(cores))


def time_finding() -> None:
    """Find objects from the start, in a child process; print what it took as a JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--find", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--cores", type=int, required=True)
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    import wsi_unet
    from benchmarks.nuclei import NAME as LABEL
    from benchmarks.nuclei import draw_nuclei, write_result

    with workspace() as folder:
        small = folder / "small.ome.zarr"
        write_result(small, draw_nuclei(512, 600), 512)
        wsi_unet.find_objects(small, split=given.split)
    for key in ("objects", f".wsi_unet/{LABEL}/objects"):
        shutil.rmtree(given.find / key, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start, cpu = time.perf_counter(), time.process_time()
    report = wsi_unet.find_objects(given.find, split=given.split)
    document = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "objects": sum(each.objects for each in report.labels),
        "peak_before": before,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    if "--find" in sys.argv:
        time_finding()
    else:
        emit(measure_rows(parse_scale()))
