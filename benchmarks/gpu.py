"""Check and measure everything that needs a GPU: `python -m benchmarks.gpu`.

It makes its own slides from the example in the repository and needs nothing else. In this order:

1. Exactness: labels of whole runs in float32 against one float64 forward pass over the whole slide.
2. Agreement of bfloat16 and float16 with float32.
3. Speed of the paper's network (64 channels, 31 million weights) alone, by tile, against the
   measured peak of bfloat16 matrix products, in FLOP without any border.
4. Time of a forward pass by kernel.
5. Whole runs on a slide of 1 Gpx, by number of task threads: speed, how busy the device is, what
   the threads spend their time on.

`--dry-run` does all of this on the CPU with tiny networks in a minute; its numbers mean nothing.
Ends with status 3 if there is no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import wsi_unet
from benchmarks.big_slide import write_big_slide
from benchmarks.common import Row, format_spread, tell, workspace
from benchmarks.gpu_network import time_network, time_operators
from benchmarks.layouts import EXAMPLE
from benchmarks.networks import write_network
from benchmarks.reference import run_whole_image
from wsi_unet.dask_cluster import cluster
from wsi_unet.geometry import Box
from wsi_unet.models import Model, UNetConfig
from wsi_unet.models.inference.devices import describe_devices, measure_matmul_rate
from wsi_unet.models.number_types import Precision

NO_CUDA = 3
FLOP_PER_PIXEL = 1.470e6
"""Operations of the paper's network for RGB, per output pixel, without any border."""

GOAL_PEAK, GOAL_BUSY = 50.0, 90.0
CUT = Box(200, 300, 1700, 2000)
"""The part of the example that is compared with a forward pass over the whole part, px."""


@dataclass(frozen=True)
class GpuSession:
    """The measurements to make on a device.

    Attributes:
        device: "cuda:0", or "cpu" for a dry run.
        base: base width of the network that is timed; the paper's is 64.
        exact: base widths of the networks whose labels are checked.
        cut: the region of the example that they are checked on, px.
        tiles: sides of the cores to time, px.
        gigapixels: size of the slide that is segmented as a whole, 10^9 px.
        threads: numbers of task threads to try.
        block: side of a block in whole runs, px; None for the default.
        tile: side of a tile's core in whole runs, px; None lets the run choose.
    """

    device: str = "cuda:0"
    base: int = 64
    exact: tuple[int, ...] = (16, 64)
    cut: Box = CUT
    tiles: tuple[int, ...] = (256, 512, 1024, 1536, 2048, 2560, 3072, 4096)
    gigapixels: float = 1.0
    threads: tuple[int, ...] = (2, 4, 8)
    block: int | None = None
    tile: int | None = None


DRY = GpuSession(
    device="cpu",
    base=8,
    exact=(8,),
    cut=Box(200, 300, 500, 700),
    tiles=(64, 128),
    gigapixels=0.004,
    threads=(1, 2),
    block=512,
    tile=256,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny networks on the CPU")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args()
    if not given.dry_run and not torch.cuda.is_available():
        tell(f"torch {torch.__version__} sees no CUDA device; --dry-run works without one")
        sys.exit(NO_CUDA)
    session = DRY if given.dry_run else GpuSession()
    done: list[Row] = []
    for device in describe_devices():
        tell(f"{device.name}: {device.description}; auto means {device.precision}")
    for row in measure_rows(session):
        done.append(row)
        goal = f" (goal {row.least:g}: {row.verdict})" if row.least is not None else ""
        print(f"{row.what}: {row.value:.5g} {row.unit}{goal}  {row.detail}", flush=True)
        if given.json:  # after every row, so that interrupting it loses nothing
            given.json.write_text(json.dumps([asdict(row) for row in done], indent=1))


def measure_rows(session: GpuSession) -> Iterator[Row]:
    with workspace() as folder:
        yield from check_exactness(session, folder)
        paper = write_network(folder / "paper.safetensors", UNetConfig(base_width=session.base))
        yield from time_network_alone(session, paper)
        yield from time_whole_runs(session, folder, paper)


# --- 1 and 2: the right labels ---------------------------------------------------------------


def check_exactness(session: GpuSession, folder: Path) -> Iterator[Row]:
    """Compare whole runs with one forward pass over the whole image, then 16 bits with 32."""
    slide, image = _cut_out(session.cut, folder)
    for base in session.exact:
        for padding in ("valid", "same"):
            for upsampling in ("transpose", "bilinear"):
                architecture = UNetConfig.model_validate(
                    {"padding": padding, "upsampling": upsampling, "base_width": base}
                )
                path = folder / f"{padding}-{upsampling}-{base}.safetensors"
                model = write_network(path, architecture)
                name = f"base {base}, {padding}, {upsampling}"
                yield from _exact(session, folder, slide, image, model, name)


def _exact(
    session: GpuSession, folder: Path, slide: Path, image: Any, model: Model, name: str
) -> Iterator[Row]:
    truth = run_whole_image(model, image, session.device)
    for block, tile in ((512, 256), (1024, 512)):
        labels = _labels(session, folder, slide, model, "float32", block, tile)
        wrong = int(np.count_nonzero((labels != truth.labels) & truth.decided))
        yield Row(
            "gpu",
            f"{name}, tile {tile}, float32: labels that differ",
            wrong,
            "px",
            most=1,
            detail=f"{truth.decided.mean():.4%} decided, {(labels > 0).mean():.0%} foreground",
        )
    exact = labels
    halves: tuple[Precision, ...] = ("bfloat16",)
    if session.device != "cpu":
        halves += ("float16",)
    for precision in halves:
        labels = _labels(session, folder, slide, model, precision, 1024, 512)
        same = 100 * float((labels == exact).mean())
        yield Row("gpu", f"{name}, {precision}: agreement with float32", same, "%")


def _labels(
    session: GpuSession,
    folder: Path,
    slide: Path,
    model: Model,
    precision: Precision,
    block: int,
    tile: int,
) -> Any:
    output = folder / f"{model.path.stem}.ome.zarr"
    wsi_unet.segment(
        slide,
        output,
        model.path,
        device=session.device,
        precision=precision,
        block=block,
        tile=tile,
        tissue="none",
        image="none",
        overwrite=True,
    )
    return wsi_unet.open_labels(output).to_numpy()


def _cut_out(box: Box, folder: Path) -> tuple[Path, Any]:
    """Write a region of the example as a slide of its own, and return its path and pixels."""
    from PIL import Image

    with wsi_unet.open_slide(EXAMPLE) as slide:
        pixels = slide.read(0, box)
    path = folder / "cut.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


# --- 3 and 4: the network alone ----------------------------------------------------------------


def time_network_alone(session: GpuSession, model: Model) -> Iterator[Row]:
    """Time the paper's network by tile and number type, and one forward pass by kernel."""
    flop = FLOP_PER_PIXEL * (session.base / 64) ** 2
    for precision in ("bfloat16", "float32"):
        peak = measure_matmul_rate(session.device, precision, seconds=2.0)
        yield Row("gpu", f"matrix products, {precision}", peak / 1e12, "TFLOP/s")
        best = 0.0
        for tile, speeds in time_network(model, session.device, precision, session.tiles).items():
            speed = float(np.median(speeds))
            best = max(best, speed)
            share = 100 * speed * flop / peak
            rates = format_spread([value / 1e6 for value in speeds])
            detail = f"{rates} Mpx/s; {share:.1f} % of the matrix peak"
            what = f"base {session.base}, {precision}, tile {tile}: network alone"
            yield Row("gpu", what, speed / 1e6, "Mpx/s", detail=detail)
        what = f"base {session.base}, {precision}, best tile: border-free FLOP ÷ matrix peak"
        goal = GOAL_PEAK if precision == "bfloat16" else None
        yield Row("gpu", what, 100 * best * flop / peak, "%", least=goal)
    tile = session.tiles[len(session.tiles) // 2]
    for kernel, share in time_operators(model, session.device, "bfloat16", tile):
        yield Row("gpu", f"tile {tile}, bfloat16, time in {kernel}", 100 * share, "%")


# --- 5: whole runs -------------------------------------------------------------------------------


def time_whole_runs(session: GpuSession, folder: Path, paper: Model) -> Iterator[Row]:
    """Segment a large slide as a whole, with several numbers of task threads."""
    slide = folder / "large.tiff"
    write_big_slide(EXAMPLE, slide, session.gigapixels)
    quarter = session.base // 4
    small = write_network(folder / "small.safetensors", UNetConfig(base_width=quarter))
    models = {f"base {session.base}": paper, f"base {quarter}": small}
    for name, model in models.items():
        for threads in session.threads:
            with _task_threads(threads):
                report = wsi_unet.segment(
                    slide,
                    folder / f"{model.path.stem}-large.ome.zarr",
                    model.path,
                    device=session.device,
                    block=session.block,
                    tile=session.tile,
                    tissue="none",
                    image="none",
                    overwrite=True,
                )
            yield from _report_rows(f"{name}, {threads} task threads", report, threads)


def _report_rows(name: str, report: wsi_unet.Report, threads: int) -> Iterator[Row]:
    waits = asdict(report.waits)
    shares = ", ".join(
        f"{what} {seconds / (threads * report.seconds):.0%}" for what, seconds in waits.items()
    )
    chosen = report.parameters
    pixels = chosen["sampling"]["shape"]
    detail = (
        f"{report.state}, {pixels[0] * pixels[1] / 1e9:.2f} Gpx in {report.seconds:.1f} s, "
        f"{chosen['precision']}, tile {chosen['tile']}; threads' time: {shares}"
    )
    yield Row("gpu", f"{name}: whole run", report.mpx_per_s, "Mpx/s", detail=detail)
    busy = 100 * report.device_busy
    yield Row("gpu", f"{name}: device busy", busy, "%", least=GOAL_BUSY)


@contextmanager
def _task_threads(count: int) -> Iterator[None]:
    """Set the number of task threads per process inside."""
    before, cluster.THREADS_PER_PROCESS = cluster.THREADS_PER_PROCESS, count
    try:
        yield
    finally:
        cluster.THREADS_PER_PROCESS = before


if __name__ == "__main__":
    main()
