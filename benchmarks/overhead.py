"""Measure the costs of everything but the network, in a run without a network.

The slide has 3 Gpx and is segmented everywhere (no tissue mask), so every tile is decoded and
every label written. The cost of a block is an upper bound of what reading, writing, Dask and the
markers add to a block of a real run; it is compared with a block of a base-32 network.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from benchmarks.layouts import big_slide, glycogen, random_network

NAME = "overhead"
LEAST_SPEED = 100.0
MOST_OVERHEAD = 2.0
BLOCK = (0, 0, 4096, 4096)
TINY_BLOCK = (4096, 1024, 512, 512)
THREADS = 2
"""Task threads of a process, which is the number of blocks computed at once."""


def measure_rows(scale: Scale) -> Iterator[Row]:
    with workspace() as folder:
        slide = big_slide(folder, 0.05 if scale.tiny else 3.0)
        base = 8 if scale.tiny else 32
        model = random_network(folder, base)
        reports: dict[str, list[dict[str, Any]]] = {"overview": [], "none": []}

        def run(image: str) -> float:
            output = folder / f"{image}.ome.zarr"
            arguments = (
                "--model",
                model,
                "--image",
                image,
                "--tile",
                "256" if scale.tiny else "1024",
            )
            reports[image].append(run_module("noop", slide, output, *arguments).document)
            return float(reports[image][-1]["mpx_per_s"])

        speeds = run_in_turns(
            {"overview": lambda: run("overview"), "none": lambda: run("none")}, scale
        )
        for image, values in speeds.items():
            yield Row(
                NAME,
                f"no network, 3 Gpx, image {image}",
                median(values),
                "Mpx/s",
                least=LEAST_SPEED,
                detail=f"{format_spread(values)}; {_describe_time(reports[image][-1])}",
            )
        starts = [report["startup_seconds"] for report in reports["overview"]]
        yield Row(NAME, "start-up of that run", median(starts), "s", detail=format_spread(starts))
        # Blocks are computed one after the other, so everything but the network shows.
        report = reports["overview"][-1]
        empty = median([r["seconds"] for r in reports["overview"]]) / report["blocks"]["done"]
        options = ["--tissue", "none", "--image", "none"]
        region = TINY_BLOCK if scale.tiny else BLOCK
        options += ["--region", ",".join(map(str, region))]
        options += ["--block", "512", "--tile", "256"] if scale.tiny else []
        full, _ = segment(glycogen(), folder / "one.ome.zarr", "-m", model, *options)
        yield Row(
            NAME,
            f"a block without network ÷ a base-{base} block",
            100 * empty / full["seconds"],
            "%",
            most=MOST_OVERHEAD,
            detail=f"{empty:.3f} s and {full['seconds']:.1f} s",
        )
        idle = THREADS * report["seconds"] - sum(report["waits"].values())
        per_block = idle / report["blocks"]["done"] / THREADS
        yield Row(
            NAME,
            "of that, neither reading nor writing (Dask, markers, overview, small levels)",
            1000 * per_block,
            "ms/block",
        )


def _describe_time(report: dict[str, Any]) -> str:
    """Return in words what the two threads spent their time on."""
    total = THREADS * report["seconds"]
    shares = {name: seconds / total for name, seconds in report["waits"].items() if seconds}
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


if __name__ == "__main__":
    emit(measure_rows(parse_scale()))
