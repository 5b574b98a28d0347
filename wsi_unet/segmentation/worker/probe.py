"""Measuring a worker's device, memory and speed with a model, on the worker itself."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
from numpy.typing import NDArray

from wsi_unet.geometry import BlockGrid, Box, round_up
from wsi_unet.models.inference.agreement import FLOAT32_COST, measure_agreement
from wsi_unet.models.inference.devices import (
    get_free_memory,
    resolve_device,
    resolve_precision,
)
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
from wsi_unet.segmentation.worker.measurement import (
    PrecisionComparison,
    ProbeRequest,
    WorkerMeasurement,
)
from wsi_unet.segmentation.worker.remembered import (
    recall_agreement,
    recall_tile,
    remember_agreement,
    remember_tile,
)
from wsi_unet.segmentation.worker.task import get_predictor, load_ensemble, open_reference
from wsi_unet.slides.resample import open_raster, read_mirrored
from wsi_unet.slides.tissue.mask import mask_touches

MEMORY_SHARE = 0.5
"""Share of the free memory that a tile may take if its size isn't given."""

AGREEMENT_TILE = 512
"""Side of the windows that are compared, and by which a run's FLOPs are counted, px."""
AGREEMENT_WINDOWS = 4


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
        tile_memory=predictor.memory(choice.tile, probabilities=request.probabilities),
        base_memory=psutil.Process().memory_info().rss,
        host_memory=psutil.virtual_memory().available,
        device_memory=get_free_memory(device),
        period=predictor.border.period,
        choice=choice,
        search_pixels=search_flops / flops,
        comparison_pixels=_comparison_flops(predictor) / flops if compares else math.inf,
    )


def compare_with_float32(request: ProbeRequest) -> PrecisionComparison:
    """Compare labels with float32's on windows spread over the tissue, or recall the result.

    Only as many windows are compared as take little of the run.

    Raises:
        ModelError: the worker can't load the model.
        SlideError: the worker can't open the slide.
    """
    predictor = _get_predictor(request)
    known = recall_agreement(predictor, request)
    if known is not None:
        return PrecisionComparison(known, 0.0)
    start = time.perf_counter()
    allowed = SEARCH_SHARE * _count_flops(predictor, request, pixels=request.pixels)
    count = min(AGREEMENT_WINDOWS, max(1, int(allowed / _comparison_flops(predictor))))
    windows = _read_windows(predictor, request, count)
    share = measure_agreement(predictor, windows, request.resampling.shape, request.statistics)
    if share is not None:
        remember_agreement(predictor, request, share)
    return PrecisionComparison(share, time.perf_counter() - start)


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
    known = recall_tile(predictor, request, sides)
    if known is not None and known.tile in fitting:
        return known, math.inf
    if not search:
        tile = default_tile(predictor, fitting)
        return TileChoice(tile, "default"), count_search_flops(predictor, fitting)
    limit = SearchLimit(_count_flops(predictor, request, pixels=request.pixels))
    choice = choose_tile(predictor, fitting, limit=limit, probabilities=probabilities)
    if choice.source == "searched":
        remember_tile(predictor, request, sides, choice)
    return choice, math.inf


def _count_flops(predictor: Predictor, request: ProbeRequest, *, pixels: float) -> float:
    """Return about how many FLOPs so many predicted pixels take in each of the processes."""
    tile = _window_tile(predictor)
    return pixels / tile**2 * predictor.ensemble.flops(tile) / max(1, request.processes)


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
