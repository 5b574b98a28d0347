"""Measuring a worker's device, memory and speed with a model, on the worker itself."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from wsi_unet import user_cache
from wsi_unet._version import __version__
from wsi_unet.geometry import BlockGrid, Box, round_up
from wsi_unet.models.inference.agreement import FLOAT32_COST, measure_agreement
from wsi_unet.models.inference.augmentation import Tta
from wsi_unet.models.inference.devices import (
    get_free_memory,
    identify_device,
    resolve_device,
    resolve_precision,
)
from wsi_unet.models.inference.ensemble import IntensityStatistics
from wsi_unet.models.inference.predictor import Predictor
from wsi_unet.models.inference.tiles import (
    CPU_TILES,
    GPU_TILES,
    SEARCH_SHARE,
    SearchLimit,
    TileChoice,
    choose_tile,
    count_search_flops,
    default_tile,
    find_fitting_tiles,
    measure_speed,
)
from wsi_unet.models.number_types import Precision
from wsi_unet.segmentation.references import ModelReference, SlideReference
from wsi_unet.segmentation.worker.task import get_predictor, load_ensemble, open_reference
from wsi_unet.slides.resample import Resampling, open_raster, read_mirrored
from wsi_unet.slides.tissue.mask import TissueMask, mask_digest, mask_touches

MEMORY_SHARE = 0.5
"""Share of the free memory that a tile may take if its size isn't given."""

AGREEMENT_TILE = 512
"""Side of the windows that are compared, and by which a run's FLOPs are counted, px."""
AGREEMENT_WINDOWS = 4

MOST_SPEED = 1e6
"""Millions of pixels per second that no device reaches; a larger remembered speed is ignored."""


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
        compares: whether the labels in the chosen precision are to be compared with float32's.
        precisions: number types that the model can run in.
        tile: side of a tile's core, px; None lets the worker choose.
        block: side of a block, px.
        mask: tissue, stretched over the slide; None predicts everywhere.
        probabilities: whether class probabilities are wanted too.
        agreement: the agreement that an earlier run measured; None if none did.
        pixels: about how many pixels the run will predict, px of the model's grid.
        processes: worker processes that share them.
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
    compares: bool = True
    pixels: int = 0
    processes: int = 1

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
        agreement: share of labels equal to float32's on windows of this slide; None in float32, and
            where it wasn't compared.
        tile_memory: peak memory of the network on the tiles that it computes at once, bytes.
        base_memory: memory that the process holds already, bytes.
        host_memory: bytes available on the host.
        device_memory: bytes available on the device; None if it uses the host's memory.
        period: the network's period, px; tiles are multiples of it.
        choice: what led to the tile.
        search_pixels: pixels of a run from which trying other tiles takes little of it; inf where
            there is nothing to try.
        comparison_pixels: the same of comparing with float32; inf in float32.
        compared_seconds: how long comparing took.
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
    choice: TileChoice
    search_pixels: float = math.inf
    comparison_pixels: float = math.inf
    compared_seconds: float = 0.0

    def adapt_to(self, request: ProbeRequest) -> WorkerMeasurement:
        """Return the measurement for another slide, with a tile no larger than the slide needs.

        A tile that the request names is kept.
        """
        if request.tile is not None:
            return self
        needed = round_up(max(request.resampling.shape), self.period)
        return replace(self, tile=min(self.tile, needed))

    def describe_search(self) -> dict[str, Any]:
        """Return what choosing took, as JSON-able values."""
        return {
            "tile_source": self.choice.source,
            "tried": {str(side): round(speed, 3) for side, speed in self.choice.speeds.items()},
            "seconds": round(self.choice.seconds, 3),
            "compared_seconds": round(self.compared_seconds, 3),
        }


@dataclass(frozen=True)
class Comparison:
    """How many labels are as in float32.

    Attributes:
        agreement: their share, 0 to 1; None where there was nothing to compare.
        seconds: how long comparing took.
    """

    agreement: float | None
    seconds: float


def measure_worker(request: ProbeRequest, *, search: bool, estimate: bool) -> WorkerMeasurement:
    """Answer a request on the worker that this runs on.

    Args:
        request: what is known and what is open.
        search: try tiles if none is remembered and that takes little of the run.
        estimate: estimate the speed if it isn't known.

    Raises:
        OptionError: the worker has no such device, or no tile fits its memory.
        ModelError: the worker can't load the model.
        SlideError: the worker can't open the slide.
    """
    predictor = _get_predictor(request)
    choice, search_flops = _choose_tile(predictor, request, search=search)
    if estimate and choice.tile not in choice.speeds:
        measured = measure_speed(predictor, choice.tile, probabilities=request.probabilities)
        choice = replace(measured, source=choice.source)
    device, flops = predictor.device, SEARCH_SHARE * _count_flops(predictor, request, pixels=1)
    compares = predictor.precision != "float32"
    return WorkerMeasurement(
        host=socket.gethostname(),
        device=request.device if ":" in request.device else device.partition(":")[0],
        precision=predictor.precision,
        tile=choice.tile,
        mpx_per_s=choice.speeds.get(choice.tile),
        agreement=request.agreement if compares else None,
        tile_memory=predictor.memory(choice.tile, probabilities=request.probabilities),
        base_memory=psutil.Process().memory_info().rss,
        host_memory=psutil.virtual_memory().available,
        device_memory=get_free_memory(device),
        period=predictor.border.period,
        choice=choice,
        search_pixels=search_flops / flops,
        comparison_pixels=_comparison_flops(predictor) / flops if compares else math.inf,
    )


def compare_with_float32(request: ProbeRequest) -> Comparison:
    """Compare labels with float32's on windows spread over the tissue, or recall the result.

    Only as many windows are compared as take little of the run.

    Raises:
        ModelError: the worker can't load the model.
        SlideError: the worker can't open the slide.
    """
    predictor = _get_predictor(request)
    key = _comparison_key(predictor, request)
    known = user_cache.recall(key)
    if isinstance(known, int | float) and 0 <= known <= 1:
        return Comparison(float(known), 0.0)
    start = time.perf_counter()
    allowed = SEARCH_SHARE * _count_flops(predictor, request, pixels=request.pixels)
    count = min(AGREEMENT_WINDOWS, max(1, int(allowed / _comparison_flops(predictor))))
    windows = _read_windows(predictor, request, count)
    share = measure_agreement(predictor, windows, request.resampling.shape, request.statistics)
    if share is not None:
        user_cache.remember(key, share)
    return Comparison(share, time.perf_counter() - start)


def _get_predictor(request: ProbeRequest) -> Predictor:
    device = resolve_device(request.device)
    return get_predictor(
        request.model.sha256,
        lambda: load_ensemble(request.model, request.tta),
        tta=request.tta,
        device=device,
        precision=resolve_precision(request.precision, device, request.precisions),
        processes_per_core=request.processes_per_core,
    )


def _choose_tile(
    predictor: Predictor, request: ProbeRequest, *, search: bool
) -> tuple[TileChoice, float]:
    """Return a tile, what led to it, and the FLOPs of a search that might still be made."""
    if request.tile is not None:
        return TileChoice(request.tile, "given"), math.inf
    candidates = CPU_TILES if predictor.device == "cpu" else GPU_TILES
    longest = round_up(max(request.resampling.shape), predictor.border.period)
    most = min(request.block, longest)
    dividing = [side for side in candidates if request.block % side == 0]
    sides = [side for side in dividing if side <= most] or [most]
    free = get_free_memory(predictor.device)
    available = psutil.virtual_memory().available if free is None else free
    probabilities = request.probabilities
    fitting = find_fitting_tiles(
        predictor,
        sides,
        memory=int(MEMORY_SHARE * available / request.processes_per_host),
        probabilities=probabilities,
    )
    key = _tile_key(predictor, request, sides)
    known = _recall_choice(key, fitting)
    if known is not None:
        return known, math.inf
    if not search:
        tile = default_tile(predictor, fitting)
        return TileChoice(tile, "default"), count_search_flops(predictor, fitting)
    limit = SearchLimit(_count_flops(predictor, request, pixels=request.pixels))
    choice = choose_tile(predictor, fitting, limit=limit, probabilities=probabilities)
    if choice.source == "searched":
        speeds = {str(side): speed for side, speed in choice.speeds.items()}
        user_cache.remember(key, {"tile": choice.tile, "speeds": speeds})
    return choice, math.inf


def _count_flops(predictor: Predictor, request: ProbeRequest, *, pixels: float) -> float:
    """Return about how many FLOPs so many predicted pixels take in each of the processes."""
    tile = _window_tile(predictor)
    return pixels / tile**2 * predictor.ensemble.flops(tile) / max(1, request.processes)


def _device_key(predictor: Predictor, request: ProbeRequest) -> dict[str, Any]:
    """Return what any measurement depends on: model, machine and versions."""
    return {
        "model": request.model.sha256,
        "tta": request.tta,
        "device": identify_device(predictor.device),
        "precision": predictor.precision,
        "threads": predictor.threads,
        "torch": torch.__version__,
        "wsi_unet": __version__,
    }


def _tile_key(predictor: Predictor, request: ProbeRequest, sides: list[int]) -> dict[str, Any]:
    return {
        "measured": "tile",
        "sides": sides,
        "probabilities": request.probabilities,
        "processes_per_core": request.processes_per_core,
        **_device_key(predictor, request),
    }


def _recall_choice(key: dict[str, Any], fitting: list[int]) -> TileChoice | None:
    """Return the tile that an earlier run chose, if it still fits."""
    value = user_cache.recall(key)
    try:
        tile = value["tile"]
        speeds = {int(side): float(speed) for side, speed in value["speeds"].items()}
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    if tile not in fitting or not all(0 < speed < MOST_SPEED for speed in speeds.values()):
        return None
    return TileChoice(tile, "remembered", speeds)


def _comparison_key(predictor: Predictor, request: ProbeRequest) -> dict[str, Any]:
    resampling = request.resampling
    return {
        "measured": "agreement",
        "slide": request.slide.fingerprint,
        "grid": [resampling.level, list(resampling.ratio), list(resampling.shape)],
        "statistics": [[list(scale.mean), list(scale.std)] for scale in request.statistics],
        "mask": None if request.mask is None else mask_digest(request.mask),
        **_device_key(predictor, request),
    }


def _comparison_flops(predictor: Predictor) -> float:
    """Return the FLOPs of the predictor's precision that take as long as comparing a window."""
    return predictor.ensemble.flops(_window_tile(predictor)) * (1 + FLOAT32_COST)


def _window_tile(predictor: Predictor) -> int:
    return predictor.border.tile or round_up(AGREEMENT_TILE, predictor.border.period)


def _read_windows(
    predictor: Predictor, request: ProbeRequest, count: int
) -> Iterator[tuple[NDArray[np.uint8], Box, Box]]:
    border, shape = predictor.border, request.resampling.shape
    grid = BlockGrid(shape, _window_tile(predictor))
    cores = [grid.core(index) for index in grid]
    if request.mask is not None:
        cores = [core for core in cores if mask_touches(request.mask, core, shape)]
    with open_reference(request.slide) as slide:
        raster = open_raster(slide, request.resampling)
        for core in cores[:: max(1, -(-len(cores) // count))]:
            whole = border.core(core)
            window = border.window(whole, shape)
            yield read_mirrored(raster, window), window, core
