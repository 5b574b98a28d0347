"""The costs of a run, and whether this machine can afford them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsi_unet.errors import PlanError
from wsi_unet.geometry import BlockIndex, Border
from wsi_unet.labels.pyramid import Pyramid
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters
from wsi_unet.segmentation.worker.label_block import cut_tiles
from wsi_unet.segmentation.worker.measurement import WorkerMeasurement
from wsi_unet.slides.tissue.mask import TissueMask
from wsi_unet.wording import count

GIB = 2**30
MIB = 2**20

EXPECTED_RATIO = {"labels": 0.1, "probabilities": 0.5, "image": 0.7}
"""Stored bytes per raw byte that real slides stay below (zstd 5); the bound is 1."""

DISK_MARGIN = 64 * MIB
"""Left free for markers, metadata and anything else that writes to the disk."""


@dataclass(frozen=True)
class Costs:
    """What a run needs.

    Attributes:
        tissue: blocks with tissue; the others are marked without computing.
        tiles: number of tiles that the network runs on.
        predicted_pixels: core pixels of those tiles.
        overhead: input pixels of the network per core pixel: 1.36 is 36 % extra work.
        output_bytes: upper bound of what is written: as if nothing compressed.
        expected_bytes: what real slides stay below.
        process_bytes: peak memory of one worker process.
        decoding_bytes: how much of that decoding the slide takes, where it has few large tiles.
        device_bytes: peak memory on the device; None where that is the process's own memory.
        seconds: estimated time of the run; None where no speed was measured.
        seconds_per_block: estimated time of a block full of tissue; None where no speed was
            measured.
    """

    tissue: frozenset[BlockIndex]
    tiles: int
    predicted_pixels: int
    overhead: float
    output_bytes: int
    expected_bytes: int
    process_bytes: int
    decoding_bytes: int
    device_bytes: int | None
    seconds: float | None
    seconds_per_block: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the costs as JSON-able values; the overhead is called "halo" there."""
        costs = asdict(self)
        del costs["tissue"]
        return costs | {"halo": costs.pop("overhead"), "tissue_blocks": len(self.tissue)}


def count_costs(
    labels: LabelParameters,
    image: ImageParameters | None,
    *,
    border: Border,
    classes: int,
    mask: TissueMask | None,
    measured: WorkerMeasurement,
    processes: int,
    threads: int,
    decoding: int,
) -> Costs:
    """Return what a run needs; nothing is read or written.

    Args:
        labels: the run.
        image: the slide's image, if it will be stored.
        border: the network's border.
        classes: number of the network's outputs.
        mask: tissue, stretched over the slide; None predicts all of the regions.
        measured: a worker's speed and memory.
        processes: number of worker processes.
        threads: blocks that a process works on at once.
        decoding: memory that decoding the slide takes in each process, bytes.
    """
    blocks = labels.blocks()
    grid, shape, area = labels.grid, labels.resampling.shape, labels.predicted_area(mask)
    tissue: list[BlockIndex] = []
    tiles = core_pixels = window_pixels = 0
    for index in blocks:
        cores = cut_tiles(grid.core(index), border, labels.tile, area)
        if not cores:
            continue
        tissue.append(index)
        tiles += len(cores)
        core_pixels += sum(core.area for core in cores)
        window_pixels += sum(border.window(core, shape).area for core in cores)
    stored = _count_stored_bytes(labels, image, tissue, classes)
    on_device = measured.device_memory is not None
    work = _count_block_bytes(labels, border, classes)
    return Costs(
        tissue=frozenset(tissue),
        tiles=tiles,
        predicted_pixels=core_pixels,
        overhead=window_pixels / core_pixels if core_pixels else 1.0,
        output_bytes=sum(stored.values()),
        expected_bytes=int(sum(EXPECTED_RATIO[name] * size for name, size in stored.items())),
        process_bytes=measured.base_memory
        + threads * work
        + decoding
        + (0 if on_device else measured.tile_memory),
        decoding_bytes=decoding,
        device_bytes=measured.tile_memory if on_device else None,
        seconds=None
        if measured.mpx_per_s is None
        else core_pixels / (measured.mpx_per_s * 1e6 * processes),
        seconds_per_block=None
        if measured.mpx_per_s is None
        else labels.block**2 / (measured.mpx_per_s * 1e6),
    )


def _count_stored_bytes(
    labels: LabelParameters, image: ImageParameters | None, tissue: list[BlockIndex], classes: int
) -> dict[str, int]:
    """Return the uncompressed bytes of each output; blocks without tissue take none."""
    pyramid = labels.pyramid
    level0 = sum(labels.grid.core(index).area for index in tissue)
    per_pixel = _compare_pyramid(pyramid)
    stored = {"labels": int(level0 * per_pixel * len(labels.label_groups))}
    if labels.probabilities:
        stored["probabilities"] = int(level0 * per_pixel * classes)
    if image is not None:
        stored["image"] = int(3 * np.prod(image.resampling.shape) * _compare_pyramid(image.pyramid))
    return stored


def _compare_pyramid(pyramid: Pyramid) -> float:
    """Return the pixels of all levels per pixel of level 0, about 4/3."""
    shapes = [pyramid.level_shape(level) for level in range(pyramid.levels)]
    return sum(rows * columns for rows, columns in shapes) / (shapes[0][0] * shapes[0][1])


def _count_block_bytes(labels: LabelParameters, border: Border, classes: int) -> int:
    """Return the bytes of memory that computing a block takes beside the network's.

    RGB of its window, and of the slide's pixels while resampling; labels and probabilities with
    their reductions and encoding; the mask.
    """
    side = min(labels.block, max(labels.resampling.shape))
    window = (side + border.before + border.after) ** 2
    source = 0.0
    if labels.resampling.ratio != (1.0, 1.0):
        source = window * (labels.resampling.ratio[0] * labels.resampling.ratio[1] * 3 + 8)
    outputs = 3 + len(labels.label_groups) + (3 * classes if labels.probabilities else 0)
    return int(window * 3 + source + side * side * outputs)


def check_affordable(
    labels: LabelParameters,
    costs: Costs,
    measured: WorkerMeasurement,
    *,
    per_host: int,
    free_disk: int | None,
) -> list[str]:
    """Refuse a run that this machine can't afford, before anything is written.

    Args:
        labels: the run.
        costs: what it needs.
        measured: the memory that a worker has.
        per_host: worker processes on one host.
        free_disk: bytes that this run may use where the output goes; None for no limit.

    Returns:
        Warnings, one line each.

    Raises:
        PlanError: memory, device memory or disk space is too small; the message has the numbers and
            names the option that would help.
    """
    _check_memory(labels, costs, measured, per_host)
    _check_device_memory(labels, costs, measured, per_host)
    return [] if free_disk is None else _check_disk(costs, free_disk)


def _check_memory(
    labels: LabelParameters, costs: Costs, measured: WorkerMeasurement, per_host: int
) -> None:
    need = costs.process_bytes * per_host - measured.base_memory
    if need <= measured.host_memory:
        return
    fewer = f"fewer `workers` (now {per_host})"
    if per_host == 1:
        fewer = f"a smaller `block` (now {labels.block})"
    if 2 * costs.decoding_bytes * per_host > need:
        fewer += ", or convert the slide, which is decoded as a whole, to a tiled TIFF"
    needs = "needs" if per_host == 1 else "need"
    raise PlanError(
        f"memory: {count(per_host, 'worker process', 'worker processes')} "
        f"{needs} {_format_size(need)} more, but "
        f"{measured.host} has {_format_size(measured.host_memory)} free; use a smaller `tile` "
        f"(now {labels.tile}) or {fewer}"
    )


def _check_device_memory(
    labels: LabelParameters, costs: Costs, measured: WorkerMeasurement, per_host: int
) -> None:
    if costs.device_bytes is None or measured.device_memory is None:
        return
    need = costs.device_bytes * per_host
    if need > measured.device_memory:
        raise PlanError(
            f"device memory: {count(per_host, 'process', 'processes')} with tiles of "
            f"{labels.tile} px: {_format_size(need)}, but {measured.device} has "
            f"{_format_size(measured.device_memory)} free; use a smaller `tile` or `device='cpu'`"
        )


def _check_disk(costs: Costs, free: int) -> list[str]:
    if costs.expected_bytes + DISK_MARGIN > free:
        raise PlanError(
            f"disk: about {_format_size(costs.expected_bytes)} will be stored and "
            f"{_format_size(DISK_MARGIN)} kept free, but only {_format_size(free)} are free; "
            "choose another `output` or a smaller `region`, or `image='none'`"
        )
    if costs.output_bytes > free:
        return [
            f"disk: {_format_size(free)} are free, which is enough unless the labels compress "
            f"unusually badly (at most {_format_size(costs.output_bytes)} are written)"
        ]
    return []


def _format_size(count: float) -> str:
    return f"{count / MIB:.0f} MiB" if count < GIB else f"{count / GIB:.2f} GiB"
