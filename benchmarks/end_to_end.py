"""Compare whole runs with their network alone: the rest is reading, writing, Dask and so on.

Both run in turns, on the same windows with the same tile, threads and number type. The run is one
of the command line; its time is counted from the first task to the finished output. The network's
time is the sum of its forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import (
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_in_turns,
    run_module,
    segment,
    workspace,
)
from benchmarks.layouts import glycogen, random_network

NAME = "end-to-end"
BARS = {32: 0.92, 16: 0.90}
REGIONS = {32: (0, 0, 8192, 8192), 16: (0, 0, 12288, 12288)}
"""The segmented region (x, y, width, height), px, by base width: a minute each on two cores."""

TINY = (4096, 1024, 1024, 512)


def measure_rows(scale: Scale) -> Iterator[Row]:
    slide = glycogen()
    with workspace() as folder:
        for base in (8,) if scale.tiny else (16, 32):
            model = random_network(folder, base)
            for tissue in ("none", "auto"):
                yield from _compare(slide, folder, model, base, tissue, scale)


def _compare(
    slide: Path, folder: Path, model: Path, base: int, tissue: str, scale: Scale
) -> Iterator[Row]:
    output = folder / "run.ome.zarr"
    label = f"random-valid-{base}"
    region = TINY if scale.tiny else REGIONS[base]
    options = ["-m", str(model), "--tissue", tissue, "--region", ",".join(map(str, region))]
    if scale.tiny:
        options += ["--block", "512", "--tile", "256"]
    # The first run chooses tile and number type; the others use the same.
    first, _ = segment(slide, output, *options)
    chosen = first["parameters"]
    options += ["--tile", str(chosen["tile"]), "--precision", chosen["precision"]]
    reports: list[dict[str, Any]] = []
    documents: list[dict[str, Any]] = []
    processor: list[float] = []

    def run() -> float:
        report, done = segment(slide, output, *options)
        reports.append(report)
        processor.append(done.cpu_seconds)
        return float(report["seconds"])

    def alone() -> float:
        documents.append(run_module("model_only", label, output).document)
        return float(documents[-1]["seconds"])

    seconds = run_in_turns({"run": run, "model": alone}, scale)
    whole, model_only = (median(seconds[name]) for name in ("run", "model"))
    pixels = documents[0]["core_pixels"]
    busy = median([report["device_busy"] for report in reports])
    yield Row(
        NAME,
        f"base {base}, tissue {tissue}: run ÷ model only",
        model_only / whole,
        "×",
        least=BARS.get(base),
        detail=f"run {format_spread(seconds['run'])} s, model {format_spread(seconds['model'])} s "
        f"for {pixels / 1e6:.0f} Mpx of tiles; {pixels / whole / 1e6:.3g} and "
        f"{pixels / model_only / 1e6:.3g} Mpx/s; {chosen['precision']}, tile {chosen['tile']}, "
        f"device busy {busy:.0%}",
    )
    run_cpu, model_cpu = (
        median(processor),
        median([document["cpu_seconds"] for document in documents]),
    )
    yield Row(
        NAME,
        f"base {base}, tissue {tissue}: processor time, model only ÷ whole program",
        model_cpu / run_cpu,
        "×",
        detail=f"{model_cpu:.1f} s and {run_cpu:.1f} s, start-up included; other processes "
        "disturb it less",
    )


if __name__ == "__main__":
    emit(measure_rows(parse_scale()))
