"""Choosing the tile size for a device: by trying, where that takes little beside the run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Box, round_up
from wsi_unet.models.inference.predictor import Predictor

CPU_TILES = (256, 384, 512, 768, 1024)
GPU_TILES = (256, 512, 1024, 2048, 4096)

PREFERRED = 512
"""Side of the tile that was (nearly) fastest on all CPUs tried, px; noise mustn't outweigh that."""

GPU_PREFERRED = 1024
"""Side of the tile that is taken on a GPU where trying larger ones doesn't pay, px."""

SMALL_TILE = 256
"""Side of the tile that a speed is estimated from, px."""

GPU_TRIALS = 3
"""Runs of a tile on a GPU, to see whether it fits."""

SEARCH_SHARE = 1 / 40
"""Part of a run that choosing its tile may take; comparing number types may take as much."""

SEARCH_SECONDS = 15.0
"""How long choosing a tile may take however long the run is."""

CLEAR_GAIN = 1.1
"""How many times as fast as the preferred tile another must be to be chosen."""

GPU_HEADROOM = 1.25
"""Memory needed, relative to the estimate: convolutions need workspaces, the allocator rounds."""

MOST_VALUES = 2**31 - 1
"""The most values in one tensor, so that GPU kernels can index it with 32 bits."""


@dataclass(frozen=True)
class TileChoice:
    """A tile size, and what led to it.

    Attributes:
        tile: side of the chosen tile's core, px.
        source: "given" (by the user, an earlier run or the model), "default" (not tried, since that
            would have taken too long beside the run), "searched" or "remembered" (from a search of
            an earlier run).
        speeds: millions of core pixels per second by side, for all sides that were tried.
        seconds: how long trying took.
    """

    tile: int
    source: Literal["given", "default", "searched", "remembered"]
    speeds: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class SearchLimit:
    """How much a search may take beside the run that it serves.

    What a trial takes is known before it is made, in floating-point operations; since speeds differ
    with the tile, the seconds that were taken are compared with those of the run too.

    Attributes:
        flops: floating-point operations of the run in one of its processes.
        share: part of the run that the search may take.
        seconds: how long it may take however long the run is.
    """

    flops: float = math.inf
    share: float = SEARCH_SHARE
    seconds: float = SEARCH_SECONDS

    @property
    def most_flops(self) -> float:
        """Floating-point operations that all trials together may take."""
        return self.share * self.flops

    def most_seconds(self, rate: float | None) -> float:
        """Return how long all trials together may take.

        Args:
            rate: floating-point operations per second of the run; None if that isn't known yet.
        """
        return self.seconds if rate is None else min(self.seconds, self.most_flops / rate)


def find_fitting_tiles(
    predictor: Predictor,
    candidates: Sequence[int] | None = None,
    *,
    memory: int | None = None,
    probabilities: bool = False,
) -> list[int]:
    """Return the tile sizes that fit the predictor's device, ascending.

    Args:
        predictor: the models on their device.
        candidates: sides of cores, px; they are rounded up to the network's period.
        memory: bytes that a tile may take; None for no limit.
        probabilities: whether probabilities will be wanted too.

    Raises:
        OptionError: not even the smallest candidate fits.
    """
    on_cpu = predictor.device == "cpu"
    ensemble, period = predictor.ensemble, predictor.border.period
    wanted = candidates or (CPU_TILES if on_cpu else GPU_TILES)
    sides = sorted({round_up(side, period) for side in wanted})

    def estimate_memory(side: int) -> float:
        estimate = predictor.memory(side, probabilities=probabilities)
        return estimate * (1 if on_cpu else GPU_HEADROOM)

    fitting = [
        side
        for side in sides
        if (memory is None or estimate_memory(side) <= memory)
        and ensemble.largest_map(side) <= MOST_VALUES
    ]
    if not fitting:
        limit = "" if memory is None else f" of {memory / 2**20:.0f} MiB"
        raise OptionError(
            f"a tile of {sides[0]} px needs about {estimate_memory(sides[0]) / 2**20:.0f} MiB, "
            f"more than the limit{limit}; use a smaller `tile` or `precision=bfloat16`",
            option="tile",
        )
    return fitting


def default_tile(predictor: Predictor, fitting: Sequence[int]) -> int:
    """Return the tile that is taken without trying any: about the fastest on most devices.

    Args:
        predictor: the models on their device.
        fitting: sides that fit the device, px, ascending.
    """
    preferred = round_up(
        PREFERRED if predictor.device == "cpu" else GPU_PREFERRED, predictor.border.period
    )
    return max([side for side in fitting if side <= preferred] or fitting[:1])


def count_search_flops(predictor: Predictor, fitting: Sequence[int]) -> float:
    """Return the floating-point operations of the shortest search; inf if there is nothing to try.

    Args:
        predictor: the models on their device.
        fitting: sides that fit the device, px, ascending.
    """
    default = default_tile(predictor, fitting)
    if predictor.device != "cpu":
        larger = min((side for side in fitting if side > default), default=None)
        return math.inf if larger is None else GPU_TRIALS * _trial_flops(predictor, larger)
    others = [side for side in fitting if side != default]
    if not others:
        return math.inf
    pair = _trial_flops(predictor, default) + _trial_flops(predictor, others[0])
    return _trial_flops(predictor, fitting[0]) + 2 * pair


def choose_tile(
    predictor: Predictor,
    fitting: Sequence[int],
    *,
    limit: SearchLimit | None = None,
    probabilities: bool = False,
) -> TileChoice:
    """Choose a tile size, by trying some on the device unless that would take too long.

    On a CPU the fastest wins (its caches decide), on a GPU the largest that fits, since it spends
    the least on borders.

    Args:
        predictor: the models on their device.
        fitting: sides that fit the device, px, ascending (`find_fitting_tiles`).
        limit: what trying may take; None is `SearchLimit()`.
        probabilities: whether probabilities will be wanted too.

    Raises:
        OptionError: the device has too little memory even for the smallest.
    """
    limit = limit or SearchLimit()
    default = default_tile(predictor, fitting)
    flops = count_search_flops(predictor, fitting)
    if math.isinf(flops) or flops > limit.most_flops:
        return TileChoice(default, "default")
    trial = _Trial(predictor, probabilities)
    if predictor.device == "cpu":
        return _choose_fastest(trial, fitting, default, limit)
    return _choose_largest(trial, fitting, default, limit)


def measure_speed(predictor: Predictor, tile: int, *, probabilities: bool) -> TileChoice:
    """Estimate a given tile's speed, from one of a small tile unless that is the only size.

    Args:
        predictor: the models on their device.
        tile: side of a tile's core, px.
        probabilities: whether probabilities will be wanted too.
    """
    fixed, period = predictor.border.tile, predictor.border.period
    side = fixed or min(tile, round_up(SMALL_TILE, period))
    trial = _Trial(predictor, probabilities)
    trial.run(side)  # not counted: the first forward pass of a process builds kernels
    trial.run(side)
    rate = _trial_flops(predictor, side) / trial.best[side]
    speed = tile * tile * rate / _trial_flops(predictor, tile) / 1e6
    return TileChoice(tile, "given", {tile: speed}, trial.seconds)


def _trial_flops(predictor: Predictor, side: int) -> int:
    """Return the floating-point operations of one trial of a side, px."""
    return predictor.slots * predictor.ensemble.flops(side)


class _Trial:
    """Runs tiles on noise and remembers the best time of each.

    Attributes:
        best: seconds per core, by the core's side in px.
        flops: floating-point operations of all runs so far.
        seconds: how long all runs took.
    """

    def __init__(self, predictor: Predictor, probabilities: bool) -> None:
        self._predictor = predictor
        self._probabilities = probabilities
        self.best: dict[int, float] = {}
        self.flops = self.seconds = 0.0

    def cost(self, side: int) -> int:
        """Return the floating-point operations of one run of a side, px."""
        return _trial_flops(self._predictor, side)

    @property
    def rate(self) -> float | None:
        """Floating-point operations per second of the fastest tile; None if none was timed."""
        return max((self.cost(side) / s for side, s in self.best.items() if s), default=None)

    def run(self, side: int) -> None:
        """Predict as many cores inside a large slide as the device takes at once; time them."""
        self.flops += self.cost(side)
        seconds = self.time(side)
        self.seconds += seconds
        self.best[side] = min(seconds, self.best.get(side, seconds))

    def time(self, side: int) -> float:
        """Return the seconds that it takes to predict these cores."""
        border, slots = self._predictor.border, self._predictor.slots
        origin = round_up(border.before, border.period)
        core = Box(origin, origin, origin + side, origin + side)
        shape = (origin + side + border.after,) * 2
        window = border.window(core, shape)
        pixels = np.random.default_rng(0).integers(0, 256, (*window.shape, 3), dtype=np.uint8)

        def predict(_: int) -> None:
            self._predictor.predict(pixels, window, core, shape, probabilities=self._probabilities)

        start = time.perf_counter()
        with ThreadPoolExecutor(slots) as pool:
            list(pool.map(predict, range(slots)))
        return time.perf_counter() - start

    def affords(self, sides: Sequence[int], limit: SearchLimit) -> bool:
        """Return whether one more run of each of these sides is within the limit."""
        more = sum(map(self.cost, sides))
        if self.flops + more > limit.most_flops:
            return False
        seconds = more / self.rate if self.rate else 0.0
        return self.seconds + seconds <= limit.most_seconds(self.rate)

    def speeds(self) -> dict[int, float]:
        """Return millions of core pixels per second by side."""
        slots = self._predictor.slots
        return {side: slots * side**2 / s / 1e6 for side, s in sorted(self.best.items())}

    def choose(self, tile: int) -> TileChoice:
        """Return the choice of `tile`, with the speeds of all sides that were tried."""
        return TileChoice(tile, "searched", self.speeds(), self.seconds)


def _choose_fastest(
    trial: _Trial, sides: Sequence[int], preferred: int, limit: SearchLimit
) -> TileChoice:
    trial.run(sides[0])  # not counted: the first forward pass of a process builds kernels
    trial.best.clear()
    # The preferred tile first: if no time is left after it, it is chosen.
    order = sorted(sides, key=lambda side: (side != preferred, side))
    for _ in range(3):  # in turns, so that a busy moment doesn't hit one tile alone
        for side in order:
            # The first run of a side allocates too, and isn't counted.
            runs = [side] if side in trial.best else [side, side]
            if not trial.affords(runs, limit):
                continue
            for _ in runs[1:]:
                trial.run(side)
                del trial.best[side]
            trial.run(side)
    speeds = trial.speeds()
    if preferred not in speeds:
        return replace(trial.choose(preferred), source="default")
    fastest = max(speeds, key=speeds.__getitem__)
    if speeds[fastest] < CLEAR_GAIN * speeds[preferred]:
        fastest = preferred
    return trial.choose(fastest)


def _choose_largest(
    trial: _Trial, sides: Sequence[int], default: int, limit: SearchLimit
) -> TileChoice:
    for side in reversed(sides):
        if side > default and not trial.affords([side] * GPU_TRIALS, limit):
            continue
        try:
            for _ in range(GPU_TRIALS):
                trial.run(side)
        except OptionError:
            if side == sides[0]:
                raise
            continue
        return trial.choose(side)
    raise AssertionError("no candidates")
