"""Choosing the tile size for a device by trying, and comparing number types on real windows."""

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
"""Side of the tile that was (nearly) fastest on all CPUs tried, px; noise mustn't outweigh that."""

CLEAR_GAIN = 1.1
"""How many times as fast as the preferred tile another must be to be chosen."""

GPU_HEADROOM = 1.25
"""Memory needed, relative to the estimate: convolutions need workspaces, the allocator rounds."""

MOST_VALUES = 2**31 - 1
"""The most values in one tensor, so that GPU kernels can index it with 32 bits."""


@dataclass(frozen=True)
class TileChoice:
    """A tile size and the speeds that led to it.

    Attributes:
        tile: side of the chosen tile's core, px.
        speeds: millions of core pixels per second by side, for all sides that were tried.
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
    """Choose a tile size by trying some on the predictor's device.

    On a CPU the fastest wins (its caches decide), on a GPU the largest that fits, since it spends
    the least on borders.

    Args:
        predictor: the models on their device.
        candidates: sides of cores to try, px; they are rounded up to the network's period.
        memory: bytes that a tile may take; None for no limit.
        budget_seconds: about how long to try; at least one tile is tried.
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
    trial = _Trial(predictor, probabilities)
    if on_cpu:
        return _choose_fastest(trial, fitting, round_up(PREFERRED, period), budget_seconds)
    return _choose_largest(trial, fitting)


class _Trial:
    """Runs tiles on noise and remembers the best time of each.

    Attributes:
        best: seconds per core, by the core's side in px.
    """

    def __init__(self, predictor: Predictor, probabilities: bool) -> None:
        self._predictor = predictor
        self._probabilities = probabilities
        self.best: dict[int, float] = {}

    def run(self, side: int) -> float:
        """Predict as many cores inside a large slide as the device takes at once.

        Returns:
            The seconds per core.
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

    def estimate(self, side: int) -> float:
        """Return the seconds that a core of `side` px should take, from the sides tried."""
        nearest = min(self.best, key=lambda tried: abs(tried - side))
        return self.best[nearest] * (side / nearest) ** 2

    def choose(self, tile: int) -> TileChoice:
        """Return the choice of `tile`, with the speeds of all sides that were tried."""
        speeds = {side: side * side / seconds / 1e6 for side, seconds in self.best.items()}
        return TileChoice(tile, dict(sorted(speeds.items())))


def _choose_fastest(
    trial: _Trial, sides: Sequence[int], preferred: int, budget: float
) -> TileChoice:
    deadline = time.perf_counter() + budget
    trial.run(sides[0])  # not counted: the first forward pass of a process builds kernels
    trial.best.clear()
    # The preferred tile first: if no time is left after it, it is chosen.
    order = sorted(sides, key=lambda side: (side != preferred, side))
    for _ in range(3):  # in turns, so that a busy moment doesn't hit one tile alone
        for side in order:
            if trial.best and time.perf_counter() + 2 * trial.estimate(side) > deadline:
                continue  # time for two runs: the first run of a side also allocates
            if side not in trial.best:
                trial.run(side)
                trial.best.pop(side)
            trial.run(side)
    speeds = trial.choose(0).speeds
    fastest = max(speeds, key=speeds.__getitem__)
    if preferred in speeds and speeds[fastest] < CLEAR_GAIN * speeds[preferred]:
        fastest = preferred
    return trial.choose(fastest)


def _choose_largest(trial: _Trial, sides: Sequence[int]) -> TileChoice:
    for side in reversed(sides):
        try:
            for _ in range(3):
                trial.run(side)
        except OptionError:
            if side == sides[0]:
                raise
            continue
        return trial.choose(side)
    raise AssertionError("no candidates")


def measure_agreement(
    predictor: Predictor,
    windows: Iterable[tuple[NDArray[np.uint8], Box, Box]],
    shape: Shape,
    statistics: tuple[IntensityStatistics, ...] = (),
) -> float | None:
    """Return the share of pixels that get the same label as in float32; None without pixels.

    Args:
        predictor: the models in the precision to judge; for float32, 1 is returned at once.
        windows: arguments for `Predictor.predict`: pixels of the slide, their window, its core.
        shape: (rows, columns) of the slide on the model's grid, px.
        statistics: how the models' intensities are normalised; () for their own constants.
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
        labels, exact = (
            p.predict(pixels, window, core, shape, statistics=statistics).labels
            for p in (predictor, reference)
        )
        same += int(np.count_nonzero(labels == exact))
        total += labels.size
    return same / total if total else None
