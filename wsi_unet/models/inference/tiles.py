"""Choose the tile for a device by trying, and compare number types on real windows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Box, Shape, round_up
from wsi_unet.models.inference.ensemble import IntensityStatistics
from wsi_unet.models.inference.predictor import Predictor

CPU_TILES = (256, 384, 512, 768, 1024)
GPU_TILES = (256, 512, 1024, 2048, 4096)

PREFERRED = 512
"""Fastest or nearly so on the CPUs tried, so noise doesn't move the choice away from it."""

CLEAR_GAIN = 1.1
"""How much faster than the preferred tile another must be to be chosen."""

GPU_HEADROOM = 1.25
"""Over the estimate, for convolution workspaces and the allocator's rounding."""

MOST_VALUES = 2**31 - 1
"""In one tensor, so that GPU kernels can index it with 32 bits."""


@dataclass(frozen=True)
class TileChoice:
    """Which tile to use.

    Attributes:
        tile: side of the core, px.
        speeds: millions of core pixels per second, by tile, of those that were tried.
    """

    tile: int
    speeds: dict[int, float]


def choose_tile(
    predictor: Predictor,
    candidates: Sequence[int] | None = None,
    *,
    memory: int | None = None,
    budget_seconds: float = 15.0,
    probabilities: bool = False,
) -> TileChoice:
    """Try tiles on the predictor's device.

    On a CPU the fastest wins (its caches decide), on a GPU the largest that fits, which has the
    least border to recompute.

    Args:
        predictor: what will run.
        candidates: sides of cores to try, px, rounded up to the network's period.
        memory: bytes that a tile may take; None for no limit.
        budget_seconds: about how long to try; at least one tile is tried.
        probabilities: whether they will be asked for.

    Raises:
        OptionError: if not even the smallest candidate fits.
    """
    on_cpu = predictor.device == "cpu"
    ensemble, period = predictor.ensemble, predictor.border.period
    wanted = candidates or (CPU_TILES if on_cpu else GPU_TILES)
    sides = sorted({round_up(side, period) for side in wanted})

    def needs(side: int) -> float:
        estimate = ensemble.memory(side, predictor.precision, probabilities=probabilities)
        return predictor.slots * estimate * (1 if on_cpu else GPU_HEADROOM)

    fitting = [
        side
        for side in sides
        if (memory is None or needs(side) <= memory) and ensemble.largest_map(side) <= MOST_VALUES
    ]
    if not fitting:
        limit = "" if memory is None else f" of {memory / 2**20:.0f} MiB"
        raise OptionError(
            f"a tile of {sides[0]} px needs about {needs(sides[0]) / 2**20:.0f} MiB, more than "
            f"the limit{limit}; use a smaller --tile or --precision bfloat16"
        )
    trial = _Trial(predictor, probabilities)
    if on_cpu:
        return _fastest(trial, fitting, round_up(PREFERRED, period), budget_seconds)
    return _largest(trial, fitting)


class _Trial:
    """Runs tiles on noise and remembers the best time of each, in seconds."""

    def __init__(self, predictor: Predictor, probabilities: bool) -> None:
        self._predictor = predictor
        self._probabilities = probabilities
        self.best: dict[int, float] = {}

    def run(self, side: int) -> float:
        """Predict as many cores inside a large slide as the device takes at once.

        Returns:
            The seconds that one took.
        """
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
        seconds = (time.perf_counter() - start) / slots
        self.best[side] = min(seconds, self.best.get(side, seconds))
        return seconds

    def expected(self, side: int) -> float:
        """Seconds that a core of `side` px should take, from those tried."""
        nearest = min(self.best, key=lambda tried: abs(tried - side))
        return self.best[nearest] * (side / nearest) ** 2

    def choice(self, tile: int) -> TileChoice:
        """The choice of `tile`, with the speeds of all that were tried."""
        speeds = {side: side * side / seconds / 1e6 for side, seconds in self.best.items()}
        return TileChoice(tile, dict(sorted(speeds.items())))


def _fastest(trial: _Trial, sides: Sequence[int], preferred: int, budget: float) -> TileChoice:
    deadline = time.perf_counter() + budget
    trial.run(sides[0])  # the first forward of a process builds kernels: not counted
    trial.best.clear()
    # The preferred tile first: if the time is out after it, it is the choice.
    order = sorted(sides, key=lambda side: (side != preferred, side))
    for _ in range(3):  # in turns, so that a busy moment doesn't hit one tile alone
        for side in order:
            if trial.best and time.perf_counter() + 2 * trial.expected(side) > deadline:
                continue  # twice: the first run of a side also allocates
            if side not in trial.best:
                trial.run(side)
                trial.best.pop(side)
            trial.run(side)
    speeds = trial.choice(0).speeds
    fastest = max(speeds, key=speeds.__getitem__)
    if preferred in speeds and speeds[fastest] < CLEAR_GAIN * speeds[preferred]:
        fastest = preferred
    return trial.choice(fastest)


def _largest(trial: _Trial, sides: Sequence[int]) -> TileChoice:
    for side in reversed(sides):
        try:
            for _ in range(3):
                trial.run(side)
        except OptionError:
            if side == sides[0]:
                raise
            continue
        return trial.choice(side)
    raise AssertionError("no candidates")


def measure_agreement(
    predictor: Predictor,
    windows: Iterable[tuple[NDArray[np.uint8], Box, Box]],
    shape: Shape,
    statistics: tuple[IntensityStatistics, ...] = (),
) -> float | None:
    """Return the share of pixels that get the same label as in float32; None without pixels.

    Args:
        predictor: whose precision to judge; in float32 the answer is 1 without computing.
        windows: pixels, window and core for `Predictor.predict`, cut from the slide at hand.
        shape: (rows, columns) of the slide on the model's grid, px.
        statistics: what the models' intensities are scaled with; () is their own constants.
    """
    if predictor.precision == "float32":
        return 1.0
    reference = Predictor(
        predictor.ensemble,
        device=predictor.device,
        precision="float32",
        threads=predictor.threads,
    )
    same = total = 0
    for pixels, window, core in windows:
        mine, exact = (
            p.predict(pixels, window, core, shape, statistics=statistics).labels
            for p in (predictor, reference)
        )
        same += int(np.count_nonzero(mine == exact))
        total += mine.size
    return same / total if total else None
