"""Time the network alone by tile, number type and memory order, to find this CPU's best tile.

Speeds are core pixels per second: recomputing a tile's border is work, but no result. Each
combination of number type and order has a process of its own, in which the tiles take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.common import (
    ProcessorTime,
    Row,
    Scale,
    emit,
    median,
    parse_scale,
    run_module,
    run_undisturbed,
    select_least_disturbed,
    tell,
    workspace,
)
from benchmarks.layouts import random_network

NAME = "tiles"
SIDES = (256, 384, 512, 768, 1024, 2048)
VARIANTS = (
    ("float32", "NHWC", True),
    ("float32", "NHWC", False),
    ("float32", "NCHW", True),
    ("bfloat16", "NHWC", True),
    ("bfloat16", "NHWC", False),
    ("bfloat16", "NCHW", True),
)
"""Number type, order of the values in memory (channels last, NHWC, or first, NCHW), and whether
the process keeps freed memory, as `wsi-unet segment` does."""


def measure_rows(scale: Scale) -> Iterator[Row]:
    sides = (64, 128) if scale.tiny else SIDES
    with workspace() as folder:
        for base in (8,) if scale.tiny else (16, 32):
            model = random_network(folder, base)
            for precision, order, keep in VARIANTS:
                name = f"base {base}, {precision} {order}{'' if keep else ', fresh memory'}"
                tell(f"  {name}")
                arguments = [precision, order, "--repeats", str(scale.repeats)]
                arguments += [] if keep else ["--fresh-memory"]
                arguments += map(str, sides)
                run = partial(run_module, "tiles", "--time", model, *arguments)
                done, _ = run_undisturbed(run, scale)
                speeds = {side: median(values) for side, values in done.document.items()}
                best = max(speeds, key=speeds.__getitem__)
                by_tile = ", ".join(f"{side}: {speed:.3g}" for side, speed in speeds.items())
                yield Row(NAME, f"{name}: tile {best}", speeds[best], "Mpx/s", detail=by_tile)


def time_tiles() -> None:
    """Time the forward passes of one variant, in a child process."""
    import torch

    from benchmarks.networks import move_network
    from wsi_unet.cores import usable_cores
    from wsi_unet.models import load_model
    from wsi_unet.models.architectures.costs import window_side
    from wsi_unet.models.inference.devices import full_float32, keep_freed_memory

    parser = argparse.ArgumentParser()
    parser.add_argument("--time", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fresh-memory", action="store_true")
    parser.add_argument("precision")
    parser.add_argument("order", choices=("NCHW", "NHWC"))
    parser.add_argument("sides", type=int, nargs="+")
    given = parser.parse_args()
    if not given.fresh_memory:
        keep_freed_memory()
    torch.set_num_threads(usable_cores())
    torch.manual_seed(0)
    model, dtype = load_model(given.time), getattr(torch, given.precision)
    last = given.order == "NHWC"
    memory = torch.channels_last if last else torch.contiguous_format
    network = move_network(model.build(), "cpu", dtype, memory)
    samples: dict[int, list[tuple[float, float]]] = {side: [] for side in given.sides}
    with torch.inference_mode(), full_float32():
        for turn in range(given.repeats + 1):
            for side in given.sides:
                window = window_side(model.spec, side)
                image = torch.randn(1, 3, window, window).to(dtype=dtype, memory_format=memory)
                before, start = ProcessorTime.now(), time.perf_counter()
                network(image)
                speed = side**2 / (time.perf_counter() - start) / 1e6
                if turn:  # the first forward pass of a size builds its kernels
                    samples[side].append((speed, before.others()))
    print(json.dumps({side: select_least_disturbed(values) for side, values in samples.items()}))


if __name__ == "__main__":
    if "--time" in sys.argv:
        time_tiles()
    else:
        emit(measure_rows(parse_scale()))
