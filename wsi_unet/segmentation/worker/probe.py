"""Measuring a worker's device, memory and speed with a model, on the worker itself."""

from __future__ import annotations

import socket
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, Box, round_up
from wsi_unet.models.inference.augmentation import Tta
from wsi_unet.models.inference.devices import get_free_memory, resolve_device, resolve_precision
from wsi_unet.models.inference.ensemble import IntensityStatistics
from wsi_unet.models.inference.predictor import Predictor
from wsi_unet.models.inference.tiles import CPU_TILES, GPU_TILES, choose_tile, measure_agreement
from wsi_unet.models.number_types import Precision
from wsi_unet.segmentation.parameters import ModelReference, SlideReference
from wsi_unet.segmentation.worker.task import get_predictor, load_ensemble, open_reference
from wsi_unet.slides.resample import Resampling, open_raster, read_mirrored
from wsi_unet.slides.tissue.mask import TissueMask, mask_touches

PROBE_SECONDS = 2.0
MEMORY_SHARE = 0.5
"""Share of the free memory that a tile may take if its size isn't given."""

AGREEMENT_TILE = 512
AGREEMENT_WINDOWS = 4


@dataclass(frozen=True)
class ProbeRequest:
    """The open questions about a run that only a worker can answer.

    Attributes:
        slide: the slide, as workers find it.
        resampling: how the model's pixel grid is read from it.
        model: the model, as workers find it.
        tta: which views of a window are averaged.
        statistics: how the models' intensities are normalised; () for their own constants.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        precision: "auto", "float32", "bfloat16" or "float16".
        precisions: number types that the model can run in.
        tile: side of a tile's core, px; None lets the worker choose.
        block: side of a block, px.
        mask: tissue, stretched over the slide; None predicts everywhere.
        probabilities: whether class probabilities are wanted too.
        agreement: the agreement that an earlier run measured; None to measure it.
        processes_per_host: worker processes that share a host's memory.
        processes_per_core: worker processes that share a core.
    """

    slide: SlideReference
    resampling: Resampling
    model: ModelReference
    tta: Tta
    statistics: tuple[IntensityStatistics, ...]
    device: str
    precision: str
    precisions: tuple[Precision, ...]
    tile: int | None
    block: int
    mask: TissueMask | None = field(repr=False)
    probabilities: bool
    agreement: float | None
    processes_per_host: int
    processes_per_core: int

    def speed_key(self) -> tuple[Hashable, ...]:
        """Return everything but the model that the measured speed and memory depend on.

        Only the slide's size matters, rounded up to a power of two, if it is less than a block.
        """
        side = min(self.block, 1 << (max(self.resampling.shape) - 1).bit_length())
        chosen = self.tta, self.device, self.precision, self.tile, self.block
        shared = self.processes_per_host, self.processes_per_core
        return *chosen, side, self.probabilities, *shared


@dataclass(frozen=True)
class WorkerMeasurement:
    """A worker's answers to a `ProbeRequest`.

    Attributes:
        host: the worker's host name.
        device: the kind of device, "cpu" or "cuda", or the requested one, "cuda:<index>".
        precision: the number type to compute in.
        tile: side of a tile's core, px.
        mpx_per_s: millions of core pixels per second of one process; None if not measured.
        agreement: share of labels equal to float32's on windows of this slide; None in float32.
        tile_memory: peak memory of the network on the tiles that it computes at once, bytes.
        base_memory: memory that the process holds already, bytes.
        host_memory: bytes available on the host.
        device_memory: bytes available on the device; None if it uses the host's memory.
        period: the network's period, px; tiles are multiples of it.
    """

    host: str
    device: str
    precision: Precision
    tile: int
    mpx_per_s: float | None
    agreement: float | None
    tile_memory: int
    base_memory: int
    host_memory: int
    device_memory: int | None
    period: int

    def adapt_to(self, request: ProbeRequest) -> WorkerMeasurement:
        """Return the measurement for another slide, with a tile no larger than the slide needs.

        A tile that the request names is kept.
        """
        if request.tile is not None:
            return self
        needed = round_up(max(request.resampling.shape), self.period)
        return replace(self, tile=min(self.tile, needed))


def measure_worker(request: ProbeRequest, *, estimate: bool) -> WorkerMeasurement:
    """Answer a request on the worker that this runs on.

    Args:
        request: what is known and what is open.
        estimate: measure the speed even if the tile is given.

    Raises:
        OptionError: the worker has no such device, or no tile fits its memory.
        ModelError: the worker can't load the model.
        SlideError: the worker can't open the slide.
    """
    device = resolve_device(request.device)
    precision = resolve_precision(request.precision, device, request.precisions)
    predictor = get_predictor(
        request.model.sha256,
        lambda: load_ensemble(request.model, request.tta),
        tta=request.tta,
        device=device,
        precision=precision,
        processes_per_core=request.processes_per_core,
    )
    tile, speed = request.tile, None
    if tile is None or estimate:
        tile, speed = _choose_tile(predictor, request)
    return WorkerMeasurement(
        host=socket.gethostname(),
        device=request.device if ":" in request.device else device.partition(":")[0],
        precision=precision,
        tile=tile,
        mpx_per_s=speed,
        agreement=_measure_agreement(predictor, request),
        tile_memory=predictor.memory(tile, probabilities=request.probabilities),
        base_memory=psutil.Process().memory_info().rss,
        host_memory=psutil.virtual_memory().available,
        device_memory=get_free_memory(device),
        period=predictor.border.period,
    )


def _choose_tile(predictor: Predictor, request: ProbeRequest) -> tuple[int, float]:
    """Return a tile size, px, and its speed in millions of core pixels per second."""
    candidates = CPU_TILES if predictor.device == "cpu" else GPU_TILES
    longest = round_up(max(request.resampling.shape), predictor.border.period)
    most = min(request.block, longest)
    dividing = [side for side in candidates if request.block % side == 0]
    sides = [side for side in dividing if side <= most] or [most]
    free = get_free_memory(predictor.device)
    available = psutil.virtual_memory().available if free is None else free
    share = int(MEMORY_SHARE * available / request.processes_per_host)
    choice = choose_tile(
        predictor,
        sides if request.tile is None else [request.tile],
        memory=share if request.tile is None else None,
        budget_seconds=PROBE_SECONDS,
        probabilities=request.probabilities,
    )
    return choice.tile, choice.speeds[choice.tile]


def _measure_agreement(predictor: Predictor, request: ProbeRequest) -> float | None:
    """Return the agreement measured before, or measure it on windows spread over the tissue."""
    if predictor.precision == "float32" or request.agreement is not None:
        return request.agreement
    windows = _read_windows(predictor, request)
    return measure_agreement(predictor, windows, request.resampling.shape, request.statistics)


def _read_windows(
    predictor: Predictor, request: ProbeRequest
) -> Iterator[tuple[NDArray[np.uint8], Box, Box]]:
    border, shape = predictor.border, request.resampling.shape
    grid = BlockGrid(shape, border.tile or round_up(AGREEMENT_TILE, border.period))
    cores = [grid.core(index) for index in grid]
    if request.mask is not None:
        cores = [core for core in cores if mask_touches(request.mask, core, shape)]
    with open_reference(request.slide) as slide:
        raster = open_raster(slide, request.resampling)
        for core in cores[:: max(1, -(-len(cores) // AGREEMENT_WINDOWS))]:
            whole = border.core(core)
            window = border.window(whole, shape)
            yield read_mirrored(raster, window), window, core
