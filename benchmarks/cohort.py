"""Measure the costs of a cohort besides its network: many small slides, and two worker processes.

The slides are pieces of a real one, as tiled JPEG TIFFs; the model is the paper's network at base
16. The whole command is compared with the network alone on the same windows. Two worker processes
with a core each are compared with one process that has both.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import tifffile

from benchmarks.common import (
    Row,
    Scale,
    emit,
    format_spread,
    median,
    parse_scale,
    run_command,
    run_in_turns,
    run_module,
    segment,
    workspace,
)
from benchmarks.layouts import glycogen, random_network
from wsi_unet.geometry import Box
from wsi_unet.slides.opening import open_slide

NAME = "cohort"
SLIDES, SIDE = 200, 1536
"""The number of slides, and their side in px."""

MOST_OVERHEAD = 1.15
LEAST_SCALING = 0.9
REGION = (0, 0, 12288, 8192)
TINY_REGION = (4096, 1024, 1024, 512)
PROCESSES = 2


def measure_rows(scale: Scale) -> Iterator[Row]:
    with workspace() as folder:
        model = random_network(folder, 8 if scale.tiny else 16)
        yield _small_slides(folder, model, scale)
        yield _two_processes(folder, model, scale)


def _small_slides(folder: Path, model: Path, scale: Scale) -> Row:
    count, side = (3, 300) if scale.tiny else (SLIDES, SIDE)
    manifest = _cut(folder / "slides", count, side)
    results = folder / "results"
    options = ["--tissue", "none", "-m", str(model)]
    options += ["--block", "512", "--tile", "256"] if scale.tiny else []

    def cohort() -> float:
        shutil.rmtree(results, ignore_errors=True)
        done = run_command("segment", manifest, "-o", f"{results}/", "-q", *options)
        return done.seconds

    def alone() -> float:
        outputs = sorted(results.glob("*.ome.zarr"))
        assert len(outputs) == count
        label = json.loads((outputs[0] / "labels" / "zarr.json").read_text())
        name = label["attributes"]["ome"]["labels"][0]
        return float(run_module("model_only", name, *outputs).document["seconds"])

    seconds = run_in_turns({"cohort": cohort, "model": alone}, scale)
    total, model_only = (median(seconds[name]) for name in ("cohort", "model"))
    return Row(
        NAME,
        f"{count} slides of {side} × {side} px: whole command ÷ model only",
        total / model_only,
        "×",
        most=MOST_OVERHEAD,
        detail=f"{format_spread(seconds['cohort'])} s and {format_spread(seconds['model'])} s, "
        f"start-up included; {1000 * (total - model_only) / count:.0f} ms more per slide",
    )


def _two_processes(folder: Path, model: Path, scale: Scale) -> Row:
    region = TINY_REGION if scale.tiny else REGION
    options = ["-m", str(model), "--tissue", "none", "--region", ",".join(map(str, region))]
    options += ["--block", "512", "--tile", "256"] if scale.tiny else ["--block", "2048"]
    first, _ = segment(glycogen(), folder / "one.ome.zarr", *options)
    options += ["--tile", str(first["parameters"]["tile"])]

    def run(*workers: str) -> float:
        report, _ = segment(glycogen(), folder / "one.ome.zarr", *options, *workers)
        return float(report["seconds"])

    seconds = run_in_turns(
        {"one": run, f"{PROCESSES}": lambda: run("--workers", f"{PROCESSES}")}, scale
    )
    one, several = (median(values) for values in seconds.values())
    return Row(
        NAME,
        f"{PROCESSES} worker processes against one with all cores",
        one / several,
        "×",
        least=LEAST_SCALING,
        detail=f"{format_spread(seconds[f'{PROCESSES}'])} s and {format_spread(seconds['one'])} s",
    )


def _cut(folder: Path, count: int, side: int) -> Path:
    """Write pieces of the glycogen slide and a manifest of them, and return the manifest."""
    folder.mkdir()
    manifest = folder / "manifest.csv"
    with open_slide(glycogen()) as slide, manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide"])
        rows, columns = slide.shape
        per_side = math.isqrt(count - 1) + 1
        for number in range(count):
            i, j = divmod(number, per_side)
            y0, x0 = i * (rows - side) // per_side, j * (columns - side) // per_side
            pixels = slide.read(0, Box(y0, x0, y0 + side, x0 + side))
            path = folder / f"{number:03}.tiff"
            tifffile.imwrite(path, pixels, tile=(256, 256), compression="jpeg", photometric="rgb")
            writer.writerow([path.name])
    return manifest


if __name__ == "__main__":
    emit(measure_rows(parse_scale()))
