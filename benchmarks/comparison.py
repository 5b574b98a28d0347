"""Compare runs with a careful hand-written loop and MONAI: same weights, same slide, in turns.

Speeds are label pixels per second of each one's own region: a run covers whole blocks, the loop as
many whole tiles as lie inside them. All labels are compared where the regions overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import (
    GIB,
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

NAME = "comparison"
BLOCKS = (0, 0, 8192, 4096)
LOOP = (384, 384, 7680, 3456)
"""(x, y, width, height), px: whole tiles of 384 px whose windows are inside the slide."""

TINY_BLOCKS, TINY_LOOP = (3072, 1024, 1024, 512), (3072, 1152, 768, 384)
BAR_FLOAT32, BAR_BFLOAT16, BAR_BOTH = 1.3, 1.3, 3.0
FLOAT32, BFLOAT16 = "float32", "bfloat16"
MARGIN = 128
"""Width, px, of the strip along the region's edge that isn't compared with MONAI, which has no
context there."""


@dataclass
class _Contest:
    """The functions that are compared; they record peak memory, bytes, in `peak`."""

    slide: Path
    folder: Path
    scale: Scale
    base: int = 16
    peak: dict[str, int] = field(default_factory=dict)

    def output(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.zarr"

    def ours(self, name: str, precision: str, padding: str = "valid") -> Callable[[], float]:
        model = random_network(self.folder, self.base, padding)
        region = TINY_BLOCKS if self.scale.tiny else BLOCKS
        options = ["--tissue", "none", "--region", ",".join(map(str, region))]
        if self.scale.tiny:
            options += ["--block", "512", "--tile", "256"]

        def run() -> float:
            report, done = segment(
                self.slide, self.output(name), "-m", model, "--precision", precision, *options
            )
            self.peak[name] = max(self.peak.get(name, 0), done.peak_bytes)
            return float(report["mpx_per_s"])

        return run

    def peer(
        self, name: str, loop: str, precision: str, *flags: str, padding: str = "valid"
    ) -> Callable[[], float]:
        model = random_network(self.folder, self.base, padding)
        region = ",".join(map(str, TINY_LOOP if self.scale.tiny else LOOP))

        def run() -> float:
            arguments = (loop, self.slide, model, self.output(name))
            done = run_module(
                "peers", *arguments, "--region", region, "--precision", precision, *flags
            ).document
            self.peak[name] = max(self.peak.get(name, 0), done["peak_bytes"])
            return float(done["pixels"] / done["seconds"] / 1e6)

        return run


def measure_rows(scale: Scale) -> Iterator[Row]:
    slide = glycogen()
    with workspace() as folder:
        contest = _Contest(slide, folder, scale, base=8 if scale.tiny else 16)
        speeds = run_in_turns(
            {
                "ours float32": contest.ours("ours float32", FLOAT32),
                "loop float32 NCHW": contest.peer("loop float32 NCHW", "hand", FLOAT32),
                "ours bfloat16": contest.ours("ours bfloat16", BFLOAT16),
                "loop bfloat16 NHWC": contest.peer(
                    "loop bfloat16 NHWC", "hand", BFLOAT16, "--channels-last"
                ),
                "ours same padding": contest.ours("ours same padding", FLOAT32, "same"),
                "MONAI same padding": contest.peer(
                    "MONAI same padding", "monai", FLOAT32, padding="same"
                ),
            },
            scale,
        )
        for name, values in speeds.items():
            yield Row(
                NAME,
                f"{name}, base {contest.base}",
                median(values),
                "Mpx/s",
                detail=f"{format_spread(values)}; peak {contest.peak[name] / GIB:.2f} GiB",
            )
        yield from _ratios({name: median(values) for name, values in speeds.items()})
        yield from _agreements(contest)


def _ratios(speed: dict[str, float]) -> Iterator[Row]:
    matrix_units = "amx_bf16" in Path("/proc/cpuinfo").read_text()
    only = "" if matrix_units else "no bar: this CPU has no bfloat16 matrix units"
    pairs = (
        ("ours float32", "loop float32 NCHW", BAR_FLOAT32, ""),
        ("ours bfloat16", "loop bfloat16 NHWC", BAR_BFLOAT16 if matrix_units else None, only),
        ("ours bfloat16", "loop float32 NCHW", BAR_BOTH if matrix_units else None, only),
        ("ours same padding", "MONAI same padding", None, ""),
    )
    for mine, other, least, detail in pairs:
        ratio = speed[mine] / speed[other]
        yield Row(NAME, f"{mine} ÷ {other}", ratio, "×", least=least, detail=detail)


def _agreements(contest: _Contest) -> Iterator[Row]:
    import numpy as np

    import wsi_unet

    x, y, width, height = TINY_LOOP if contest.scale.tiny else LOOP
    for mine, other, margin in (
        ("ours float32", "loop float32 NCHW", 0),
        ("ours bfloat16", "loop bfloat16 NHWC", 0),
        ("ours float32", "ours bfloat16", 0),
        ("ours same padding", "MONAI same padding", MARGIN),
    ):
        parts = []
        for name in (mine, other):
            if name.startswith("ours"):
                whole = wsi_unet.open_labels(contest.output(name)).data
                labels = whole[y : y + height, x : x + width].compute()
            else:
                import zarr

                labels = np.asarray(zarr.open_array(contest.output(name), mode="r")[:])
            parts.append(labels[margin : height - margin, margin : width - margin])
        differ = float(np.mean(parts[0] != parts[1]))
        yield Row(
            NAME,
            f"labels that differ: {mine}, {other}",
            100 * differ,
            "%",
            detail=f"{parts[0].mean():.0%} foreground",
        )


if __name__ == "__main__":
    emit(measure_rows(parse_scale()))
