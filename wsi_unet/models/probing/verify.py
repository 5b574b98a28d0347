"""Whether a model is what its spec says, found out by running it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_unet.errors import ModelError, OptionError, first_line
from wsi_unet.geometry import Border, Box, round_up
from wsi_unet.models.inference.devices import resolve_precision
from wsi_unet.models.inference.predictor import Predictor
from wsi_unet.models.inference.tiles import measure_agreement
from wsi_unet.models.networks.interpolation import Placement
from wsi_unet.models.probing.probed_network import (
    ProbedNetwork,
    measure_range,
    wrap_in_float64,
    wrap_network,
)

if TYPE_CHECKING:
    from wsi_unet.models.model import Model
    from wsi_unet.models.spec import ModelSpec

TILE = 128
"""Side of the cores of real pixels, px, rounded up to the period."""

EQUAL_LABELS = 0.9999
"""Share of labels that two tilings have in common at least: in float32, classes may tie."""


@dataclass(frozen=True)
class Check:
    """One thing that was measured.

    Attributes:
        name: what.
        declared: what the spec says.
        measured: what was found.
        holds: whether they agree; None where nothing was declared.
    """

    name: str
    declared: str
    measured: str
    holds: bool | None


@dataclass(frozen=True)
class Verification:
    """What came of verifying a model.

    Attributes:
        name: the model's.
        sha256: its hash.
        exactness: what its spec makes it: "exact" or "approximate".
        checks: what was measured.
        seconds: how long that took.
    """

    name: str
    sha256: str
    exactness: str
    checks: tuple[Check, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing that was declared is wrong."""
        return all(check.holds is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {"holds": self.holds, **asdict(self)}


@dataclass(frozen=True)
class _Windows:
    """Where a model is looked at: one core with its window, inside an image.

    Attributes:
        border: the context that the core is declared to need.
        side: of the image, px.
        first: first row and column of the core, px of the image.
        core: its side, px.
        shift: how far its window begins inside the image, px; 0 where only one side is taken.
    """

    border: Border
    side: int
    first: int
    core: int
    shift: int

    @classmethod
    def of(cls, spec: ModelSpec) -> _Windows:
        needed, period = spec.architecture.border(), spec.architecture.period
        if spec.window is not None:
            whole = spec.border()
            core = whole.tile or period
            return cls(needed, spec.window, whole.before, core, 0)
        core = 3 * period  # so that its middle is spared by what reaches into it
        side = needed.before + core + needed.after + 2 * period
        return cls(needed, side, needed.before + period, core, period)

    @property
    def output(self) -> slice:
        """The core in the output for the image."""
        return slice(self.first - self.border.shrink, self.first - self.border.shrink + self.core)

    def beyond(self, before: int, after: int) -> Tensor:
        """Return what is further from the core than that, bool (rows, columns)."""
        spoil = torch.ones(self.side, self.side, dtype=torch.bool)
        kept = slice(max(0, self.first - before), self.first + self.core + after)
        spoil[kept, kept] = False
        return spoil


def verify_model(model: Model, pixels: Callable[[int], NDArray[np.uint8]]) -> Verification:
    """Measure what a model's spec declares, and how much its number type matters.

    Args:
        model: the checked model; its network is run on the CPU.
        pixels: returns uint8 (side, side, 3) to run it on, of the side that is asked for, px.

    Raises:
        ModelError: if it can't be loaded.
    """
    started = time.perf_counter()
    checks = tuple(_checks(model, pixels))
    seconds = time.perf_counter() - started
    return Verification(model.spec.name, model.sha256, model.spec.exactness, checks, seconds)


def _checks(model: Model, pixels: Callable[[int], NDArray[np.uint8]]) -> Iterator[Check]:
    spec, network = model.spec, model.build()
    windows = _Windows.of(spec)
    placed = spec.architecture.depends_on_size and spec.exactness == "exact"
    subject = wrap_network(network, spec.in_channels, placed=placed)
    image = subject.image(windows.side)
    try:
        clean = subject.run(image)
    except Exception as error:  # of whatever type: other people's networks
        reason = first_line(error)
        yield Check("output", _expected(spec, windows), f"fails: {reason}", False)
        return
    found = f"{'×'.join(map(str, clean.shape))} of {windows.side}×{windows.side} px"
    yield Check("output", _expected(spec, windows), found, found == _expected(spec, windows))
    if found != _expected(spec, windows):
        return
    exact = spec.exactness == "exact"
    if exact:
        yield _border(subject, windows, image, clean)
    precise = wrap_in_float64(network, spec.in_channels, windows.side, placed=placed)
    yield _tiling(precise, windows, exact=exact)
    del network, subject, precise
    yield from _on_pixels(model, pixels)


def _expected(spec: ModelSpec, windows: _Windows) -> str:
    side = windows.side - 2 * windows.border.shrink
    return f"{spec.classes_out}×{side}×{side} of {windows.side}×{windows.side} px"


def _border(subject: ProbedNetwork, windows: _Windows, image: Tensor, clean: Tensor) -> Check:
    """Spoil everything further from the core than the declared border, then ever more."""
    before, after = windows.border.before, windows.border.after
    declared = f"{before} px before, {after} px after a core"

    def reached(fewer_before: int, fewer_after: int) -> Tensor:
        spoil = windows.beyond(before - fewer_before, after - fewer_after)
        changed = subject.changed(image, clean, spoil)
        return changed[windows.output, windows.output]

    if bool(reached(0, 0).any()):
        return Check("border", declared, "more: the core changes with what lies further off", False)
    period = windows.border.period
    if windows.core < 3 * period:
        return Check("border", declared, "no more than that", True)
    spare = _spare(reached, period, windows.core)
    measured = f"{before - spare[0]} px before, {after - spare[1]} px after a core"
    return Check("border", declared, measured, True)


def _spare(reached: Callable[[int, int], Tensor], period: int, core: int) -> tuple[int, int]:
    """Return how many px less, before and after, don't reach the core either; up to a period."""
    middle = slice(period, core - period)
    low, high = [0, 0], [period - 1, period - 1]
    while low[0] < high[0] or low[1] < high[1]:
        tried = [(least + most + 1) // 2 for least, most in zip(low, high, strict=True)]
        changed = reached(tried[0], tried[1])
        for end, edge in enumerate((slice(0, period), slice(core - period, core))):
            if bool(changed[edge, middle].any()) or bool(changed[middle, edge].any()):
                high[end] = tried[end] - 1
            else:
                low[end] = tried[end]
    return low[0], low[1]


def _tiling(subject: ProbedNetwork, windows: _Windows, *, exact: bool) -> Check:
    """Compute the same pixels from two windows: of other sizes where there are any."""
    compare = _two_sizes if windows.shift else _two_places
    deviation = compare(subject, windows)
    name = str(subject.dtype).removeprefix("torch.")
    if deviation is None:
        return Check("tiling", "exact" if exact else "approximate", "no room to compare", None)
    measured = f"differs by {deviation:.1e} of the output's range ({name})"
    if not exact:
        return Check("tiling", "approximate", measured, None)
    return Check("tiling", "exact", measured, deviation <= subject.tolerance)


def _two_sizes(subject: ProbedNetwork, windows: _Windows) -> float:
    """Compare the core of the image with the core of its own window."""
    border, image = windows.border, subject.image(windows.side)
    window = slice(windows.shift, windows.side - windows.shift)
    whole = subject.run(image)
    place = Placement((windows.shift, windows.shift), (windows.side, windows.side))
    part = subject.run(image[:, :, window, window], place)
    first = border.before - border.shrink
    core = slice(first, first + windows.core)
    difference = whole[:, windows.output, windows.output] - part[:, core, core]
    return float(difference.abs().max() / measure_range(whole))


def _two_places(subject: ProbedNetwork, windows: _Windows) -> float | None:
    """Compare what two windows of the only size, a period apart, have in common."""
    border, side = windows.border, windows.side
    step = max(border.period, windows.core // 2)
    image = subject.image(side + step)
    one = subject.run(image[:, :, :side, :side])
    other = subject.run(image[:, :, step:, step:])
    # Where the declared border doesn't fit, the middle: what tiles would show is no nearer.
    lack = max(0, border.before + border.after + step + border.period - side)
    first = max(0, border.before - border.shrink - (lack + 1) // 2)
    end = one.shape[1] - max(0, border.after - border.shrink - (lack + 1) // 2)
    common = slice(first + step, end)
    there = slice(first, end - step)
    if common.start >= end:
        return None
    difference = one[:, common, common] - other[:, there, there]
    return float(difference.abs().max() / measure_range(one))


def _on_pixels(model: Model, pixels: Callable[[int], NDArray[np.uint8]]) -> Iterator[Check]:
    """Predict real pixels in two tilings, and in every number type."""
    predictor = Predictor(model, device="cpu", precision="float32")
    border = predictor.border
    origin = round_up(border.before, border.period)
    tile = border.tile or round_up(TILE, border.period)
    other = border.tile or round_up(TILE // 2, border.period)
    moved = origin + border.period
    cores = [Box(o, o, o + n, o + n) for o, n in ((origin, tile), (moved, other))]
    side = max(moved + other, origin + tile) + border.after
    image, shape = pixels(side), (side, side)
    views = [
        (np.ascontiguousarray(image[window.slices()]), window, core)
        for window, core in ((border.window(core, shape), core) for core in cores)
    ]
    labels = [predictor.predict(*view, shape).labels for view in views]
    common = cores[0].intersection(cores[1])
    parts = [
        found[:, *common.relative_to(core).slices()]
        for found, core in zip(labels, cores, strict=True)
    ]
    share = float(np.mean(parts[0] == parts[1]))
    exact = model.spec.exactness == "exact"
    holds = share >= EQUAL_LABELS if exact else None
    declared = "equal labels" if exact else "approximate"
    yield Check("tiles of pixels", declared, _percent(share), holds)
    del predictor
    for precision in model.spec.precisions:
        if precision != "float32":
            yield Check(precision, "", _agreement(model, precision, views[:1], shape), None)


def _agreement(
    model: Model,
    precision: str,
    views: list[tuple[NDArray[np.uint8], Box, Box]],
    shape: tuple[int, int],
) -> str:
    try:
        resolve_precision(precision, "cpu")
    except OptionError:
        return "not computed by this CPU"
    try:
        share = measure_agreement(Predictor(model, device="cpu", precision=precision), views, shape)
    except ModelError as error:
        return f"fails: {error}"
    return _percent(share or 0.0) + " as in float32"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} % of labels equal"
