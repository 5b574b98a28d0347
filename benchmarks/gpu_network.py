"""Time a network alone on a device: its speed by tile, and its time by kernel."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks.common import tell
from benchmarks.networks import move_network
from wsi_unet.models import Model
from wsi_unet.models.architectures.costs import largest_map, tile_memory, window_side
from wsi_unet.models.inference.devices import full_float32, get_free_memory, synchronize
from wsi_unet.models.inference.tiles import GPU_HEADROOM, MOST_VALUES
from wsi_unet.models.number_types import Precision

REPEATS = 7
LEAST_SHARE = 0.01
"""Kernels that take a smaller share of the time than this are summed up."""


def time_network(
    model: Model, device: str, precision: Precision, tiles: Sequence[int]
) -> dict[int, list[float]]:
    """Return core pixels per second by tile, without tiles that don't fit the device's memory."""
    network = _network(model, device, precision)
    speeds: dict[int, list[float]] = {}
    for tile in tiles:
        if not _fits(model, device, precision, tile):
            tell(f"  tile {tile} doesn't fit in {precision}")
            continue
        image = _image(model, device, precision, tile)
        speeds[tile] = []
        with torch.inference_mode(), full_float32():
            for _ in range(REPEATS + 2):
                synchronize(device)
                start = time.perf_counter()
                network(image)
                synchronize(device)
                speeds[tile].append(tile**2 / (time.perf_counter() - start))
        del speeds[tile][:2]  # the first passes choose kernels and allocate memory
    return speeds


def time_operators(
    model: Model, device: str, precision: Precision, tile: int
) -> Iterator[tuple[str, float]]:
    """Yield each operator's share of a forward pass, largest first; small ones are summed up."""
    from torch.profiler import ProfilerActivity, profile

    network, image = _network(model, device, precision), _image(model, device, precision, tile)
    on_cpu = device == "cpu"
    activities = [ProfilerActivity.CPU] if on_cpu else [ProfilerActivity.CUDA]
    with torch.inference_mode(), full_float32():
        network(image)
        synchronize(device)
        with profile(activities=activities) as profiler:
            network(image)
            synchronize(device)
    times: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        spent = event.self_cpu_time_total if on_cpu else event.self_device_time_total
        times[event.key[:60]] += spent
    total = sum(times.values()) or 1.0
    rest = 0.0
    for name, spent in sorted(times.items(), key=lambda pair: -pair[1]):
        if spent < LEAST_SHARE * total:
            rest += spent
        else:
            yield name, spent / total
    yield "everything else", rest / total


def _network(model: Model, device: str, precision: Precision) -> nn.Module:
    dtype: torch.dtype = getattr(torch, precision)
    return move_network(model.build(), device, dtype, torch.channels_last)


def _image(model: Model, device: str, precision: Precision, tile: int) -> Tensor:
    side = window_side(model.spec, tile)
    noise = torch.randn(1, 3, side, side, device=device, dtype=getattr(torch, precision))
    return noise.contiguous(memory_format=torch.channels_last)


def _fits(model: Model, device: str, precision: Precision, tile: int) -> bool:
    spec = model.spec
    free = get_free_memory(device)
    if tile % spec.border().period or largest_map(spec, tile) > MOST_VALUES:
        return False
    return free is None or GPU_HEADROOM * tile_memory(spec, tile, precision) < free
