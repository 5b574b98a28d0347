"""Time the network alone on the windows that finished runs computed.

`python -m benchmarks.model_only LABEL OUTPUT...` reads each run's parameters from its output, reads
the same windows of its slide, and times nothing but the forward passes: the input is normalised
and on the device before, the output is discarded, and as many run at once as in the runs. All runs
must have used one model. Prints a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.networks import move_network
from wsi_unet.cores import usable_cores
from wsi_unet.geometry import Box
from wsi_unet.labels.progress import Progress
from wsi_unet.models import load_model
from wsi_unet.models.inference.devices import (
    cpu_threads,
    full_float32,
    keep_freed_memory,
    resolve_device,
    synchronize,
)
from wsi_unet.models.inference.predictor import CPU_SLOTS
from wsi_unet.models.networks.folding import fold_batch_norm
from wsi_unet.segmentation.parameters import LabelParameters, read_parameters
from wsi_unet.segmentation.worker.label_block import cut_tiles
from wsi_unet.segmentation.worker.task import open_reference
from wsi_unet.slides.resample import open_raster, read_mirrored
from wsi_unet.storage.opening import open_store

AT_A_TIME = 16
"""Windows that are normalised before all of them run, so that neither disturbs the other."""


def read_windows(output: Path, label: str) -> Iterator[tuple[NDArray[np.uint8], Box]]:
    """Yield every window of a run, RGB uint8 (h, w, 3), with the part of its core in the slide."""
    progress = Progress(open_store(output), label)
    labels = read_parameters(progress, LabelParameters)
    assert labels is not None
    mask = None if labels.tissue == "none" else progress.read_mask()
    border = load_model(labels.model.path).spec.border()
    shape, area = labels.resampling.shape, labels.predicted_area(mask)
    with open_reference(labels.slide) as slide:
        raster = open_raster(slide, labels.resampling)
        for index in labels.blocks():
            box = labels.grid.core(index)
            cores = cut_tiles(box, border, labels.tile, area)
            if not cores:
                continue
            windows = [border.window(core, shape) for core in cores]
            extent = reduce(Box.union, windows)
            pixels = read_mirrored(raster, extent)
            for core, window in zip(cores, windows, strict=True):
                yield pixels[window.relative_to(extent).slices()], core.intersection(box)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("label")
    parser.add_argument("outputs", type=Path, nargs="+", metavar="OUTPUT")
    given = parser.parse_args()
    keep_freed_memory()
    first = Progress(open_store(given.outputs[0]), given.label)
    labels = read_parameters(first, LabelParameters)
    assert labels is not None
    model = load_model(labels.model.path)
    device, dtype = resolve_device(labels.device), getattr(torch, labels.precision)
    network = move_network(fold_batch_norm(model.build()), device, dtype, torch.channels_last)
    mean, std = (
        torch.tensor(part) for part in (model.spec.normalisation.mean, model.spec.normalisation.std)
    )
    slots = CPU_SLOTS if device == "cpu" and usable_cores() > 1 else 1

    def forward(image: Tensor) -> None:
        with torch.inference_mode(), cpu_threads(usable_cores() // slots):
            network(image)

    busy, cpu, count, pixels = 0.0, 0.0, 0, 0
    windows = chain.from_iterable(read_windows(output, given.label) for output in given.outputs)
    with full_float32(), ThreadPoolExecutor(slots) as pool:
        while batch := list(islice(windows, AT_A_TIME)):
            images = [
                ((torch.from_numpy(window) / 255 - mean) / std)
                .permute(2, 0, 1)[None]
                .to(device=device, dtype=dtype)
                for window, _ in batch
            ]
            if not count:  # the first forward pass of a process builds kernels
                list(pool.map(forward, images[:1] * slots))
            synchronize(device)
            start, cpu_start = time.perf_counter(), time.process_time()
            list(pool.map(forward, images))
            synchronize(device)
            busy += time.perf_counter() - start
            cpu += time.process_time() - cpu_start
            count, pixels = count + len(batch), pixels + sum(core.area for _, core in batch)
    document = {"seconds": busy, "cpu_seconds": cpu, "windows": count, "core_pixels": pixels}
    print(json.dumps(document))


if __name__ == "__main__":
    main()
