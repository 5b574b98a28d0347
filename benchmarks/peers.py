"""Segment a region with other tools: `python -m benchmarks.peers --help`.

`hand` is the loop that a careful person writes in an afternoon: read a window with tiffslide,
predict, argmax, write to Zarr, next window, with tiles of 384 px so that the pooling grid is
right. `monai` is MONAI's sliding window with its defaults (tiles of 512 px, a quarter overlap)
on the whole region at once. Each prints a JSON object with the seconds from the first read to the
last write (without imports and loading the model) and its own peak memory.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from tiffslide import TiffSlide
from torch import Tensor, nn

from benchmarks.networks import move_network
from wsi_unet.models import Model, load_model

WINDOW, CORE, BORDER = 572, 384, 92
MONAI_TILE, MONAI_BATCH, MONAI_OVERLAP = 512, 4, 0.25


def hand_loop(
    slide: TiffSlide, network: nn.Module, scale: Normaliser, region: Region, labels: Labels
) -> None:
    """Segment a region with a valid network of depth 4, tile after tile."""
    x0, y0, width, height = region
    for y in range(0, height, CORE):
        for x in range(0, width, CORE):
            corner = (x0 + x - BORDER, y0 + y - BORDER)
            window = slide.read_region(corner, 0, (WINDOW, WINDOW), as_array=True)
            logits = network(scale(window))[0, :, :CORE, :CORE]
            labels[y : y + CORE, x : x + CORE] = logits.argmax(0).to(torch.uint8).numpy()


def monai_sliding_window(
    slide: TiffSlide, network: nn.Module, scale: Normaliser, region: Region, labels: Labels
) -> None:
    """Segment a region with a same-padding network, blended as MONAI does."""
    from monai.inferers.inferer import SlidingWindowInferer

    x0, y0, width, height = region
    window = slide.read_region((x0, y0), 0, (width, height), as_array=True)
    inferer = SlidingWindowInferer(MONAI_TILE, MONAI_BATCH, overlap=MONAI_OVERLAP)
    logits = inferer(scale(window), network)
    assert isinstance(logits, Tensor)
    labels[:] = logits[0].argmax(0).to(torch.uint8).numpy()


Region = tuple[int, int, int, int]
"""(x, y, width, height), px of level 0."""

Labels = zarr.Array[Any]
"""The class map that is written, uint8 (rows, columns)."""

LOOPS = {"hand": hand_loop, "monai": monai_sliding_window}


class Normaliser:
    """Normalises windows for a network.

    Args:
        model: the model, whose spec has mean and standard deviation.
        dtype: the network's number type.
        memory: the order of the values in memory.
    """

    def __init__(self, model: Model, dtype: torch.dtype, memory: torch.memory_format) -> None:
        normalisation = model.spec.normalisation
        self._mean = torch.tensor(normalisation.mean)[:, None, None]
        self._std = torch.tensor(normalisation.std)[:, None, None]
        self._dtype, self._memory = dtype, memory

    def __call__(self, window: NDArray[Any]) -> Tensor:
        """Return a window, uint8 (rows, columns, 3), as input (1, 3, rows, columns)."""
        image = torch.from_numpy(window).permute(2, 0, 1).float()
        scaled = (image / 255 - self._mean) / self._std
        return scaled[None].to(self._dtype).contiguous(memory_format=self._memory)


def peak_bytes() -> int:
    """Return the most memory that this process has held since its start, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system doesn't tell a process's peak memory")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("slide", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--region", required=True)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--channels-last", action="store_true")
    given = parser.parse_args()
    x, y, width, height = (int(part) for part in given.region.split(","))
    model, dtype = load_model(given.model), getattr(torch, given.precision)
    memory = torch.channels_last if given.channels_last else torch.contiguous_format
    network = move_network(model.build(), "cpu", dtype, memory)
    slide = TiffSlide(given.slide)
    labels = zarr.create_array(
        given.output, shape=(height, width), chunks=(CORE, CORE), dtype="uint8", overwrite=True
    )
    scale = Normaliser(model, dtype, memory)
    with torch.inference_mode():
        side = WINDOW if given.loop == "hand" else MONAI_TILE
        network(scale(np.zeros((side, side, 3), np.uint8)))  # builds kernels: not counted
        start = time.perf_counter()
        LOOPS[given.loop](slide, network, scale, (x, y, width, height), labels)
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "pixels": width * height, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
