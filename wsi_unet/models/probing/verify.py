"""Verifying a model's spec by running the model."""

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
from wsi_unet.models.inference.agreement import measure_agreement
from wsi_unet.models.inference.devices import resolve_precision
from wsi_unet.models.inference.predictor import Predictor
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
"""Side of the cores that real pixels are predicted in, px, rounded up to the period."""

EQUAL_LABELS = 0.9999
"""The least share of labels that two tilings must have in common: in float32, classes may tie."""


@dataclass(frozen=True)
class Check:
    """One property, as declared and as measured.

    Attributes:
        name: name of the property.
        declared: what the spec says.
        measured: what was measured.
        holds: whether both agree; None if the spec says nothing.
    """

    name: str
    declared: str
    measured: str
    holds: bool | None


@dataclass(frozen=True)
class Verification:
    """The result of verifying a model.

    Attributes:
        name: the model's name.
        sha256: the model's hash.
        exactness: "exact" or "approximate", as the spec declares.
        checks: the properties that were measured.
        seconds: how long measuring took.
    """

    name: str
    sha256: str
    exactness: str
    checks: tuple[Check, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether every declared property holds."""
        return all(check.holds is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the verification as a JSON document."""
        return {"holds": self.holds, **asdict(self)}


@dataclass(frozen=True)
class _ProbedCore:
    """A core on which a model is verified, with its window, inside an image.

    Attributes:
        border: the context that the core needs, as declared.
        side: side of the image, px.
        first: first row and column of the core, px of the image.
        core: side of the core, px.
        shift: first row and column of the core's window, px of the image; 0 if the model takes
            one side only, which is then the image's.
    """

    border: Border
    side: int
    first: int
    core: int
    shift: int

    @classmethod
    def choose(cls, spec: ModelSpec) -> _ProbedCore:
        """Return a core that suits a model."""
        needed, period = spec.architecture.border(), spec.architecture.period
        if spec.window is not None:
            whole = spec.border()
            core = whole.tile or period
            return cls(needed, spec.window, whole.before, core, 0)
        core = 3 * period  # so large that its middle is spared when its edges are changed
        side = needed.before + core + needed.after + 2 * period
        return cls(needed, side, needed.before + period, core, period)

    @property
    def output(self) -> slice:
        """The rows and columns of the core in the output for the image."""
        return slice(self.first - self.border.shrink, self.first - self.border.shrink + self.core)

    def mark_beyond(self, before: int, after: int) -> Tensor:
        """Return which pixels are further than that from the core, bool (rows, columns)."""
        spoil = torch.ones(self.side, self.side, dtype=torch.bool)
        kept = slice(max(0, self.first - before), self.first + self.core + after)
        spoil[kept, kept] = False
        return spoil


def verify_model(model: Model, pixels: Callable[[int], NDArray[np.uint8]]) -> Verification:
    """Measure what a model's spec declares, and how number types change its labels.

    Args:
        model: the model; its network is run on the CPU.
        pixels: takes a side in px and returns an image to predict, uint8 (side, side, 3).

    Raises:
        ModelError: the model can't be loaded.
    """
    started = time.perf_counter()
    checks = tuple(_measure(model, pixels))
    seconds = time.perf_counter() - started
    return Verification(model.spec.name, model.sha256, model.spec.exactness, checks, seconds)


def _measure(model: Model, pixels: Callable[[int], NDArray[np.uint8]]) -> Iterator[Check]:
    spec, network = model.spec, model.build()
    probed = _ProbedCore.choose(spec)
    placed = spec.architecture.depends_on_size and spec.exactness == "exact"
    subject = wrap_network(network, spec.in_channels, placed=placed)
    image = subject.image(probed.side)
    expected = _describe_output(spec, probed)
    try:
        clean = subject.run(image)
    except Exception as error:  # of any type: other people's networks
        reason = first_line(error)
        yield Check("output", expected, f"fails: {reason}", False)
        return
    measured = f"{'×'.join(map(str, clean.shape))} of {probed.side}×{probed.side} px"
    yield Check("output", expected, measured, measured == expected)
    if measured != expected:
        return
    exact = spec.exactness == "exact"
    if exact:
        yield _check_border(subject, probed, image, clean)
    precise = wrap_in_float64(network, spec.in_channels, probed.side, placed=placed)
    yield _check_tiling(precise, probed, exact=exact)
    del network, subject, precise
    yield from _check_pixels(model, pixels)


def _describe_output(spec: ModelSpec, probed: _ProbedCore) -> str:
    side = probed.side - 2 * probed.border.shrink
    return f"{spec.classes_out}×{side}×{side} of {probed.side}×{probed.side} px"


def _check_border(
    subject: ProbedNetwork, probed: _ProbedCore, image: Tensor, clean: Tensor
) -> Check:
    """Spoil all pixels further from the core than the declared border, then nearer ones too."""
    before, after = probed.border.before, probed.border.after
    declared = f"{before} px before, {after} px after a core"

    def find_changed(fewer_before: int, fewer_after: int) -> Tensor:
        spoil = probed.mark_beyond(before - fewer_before, after - fewer_after)
        changed = subject.find_changed(image, clean, spoil)
        return changed[probed.output, probed.output]

    if bool(find_changed(0, 0).any()):
        measured = "more: pixels further away change the core"
        return Check("border", declared, measured, False)
    period = probed.border.period
    if probed.core < 3 * period:
        return Check("border", declared, "no more than that", True)
    spare = _find_spare(find_changed, period, probed.core)
    measured = f"{before - spare[0]} px before, {after - spare[1]} px after a core"
    return Check("border", declared, measured, True)


def _find_spare(
    find_changed: Callable[[int, int], Tensor], period: int, core: int
) -> tuple[int, int]:
    """Return by how many px, less than a period, the border could be smaller before and after."""
    middle = slice(period, core - period)
    low, high = [0, 0], [period - 1, period - 1]
    while low[0] < high[0] or low[1] < high[1]:
        tried = [(least + most + 1) // 2 for least, most in zip(low, high, strict=True)]
        changed = find_changed(tried[0], tried[1])
        for end, edge in enumerate((slice(0, period), slice(core - period, core))):
            if bool(changed[edge, middle].any()) or bool(changed[middle, edge].any()):
                high[end] = tried[end] - 1
            else:
                low[end] = tried[end]
    return low[0], low[1]


def _check_tiling(subject: ProbedNetwork, probed: _ProbedCore, *, exact: bool) -> Check:
    """Compute the same pixels from two windows, of different sizes if the model takes them."""
    compare = _compare_two_sizes if probed.shift else _compare_two_positions
    deviation = compare(subject, probed)
    name = str(subject.dtype).removeprefix("torch.")
    if deviation is None:
        return Check("tiling", "exact" if exact else "approximate", "no room to compare", None)
    measured = f"differs by {deviation:.1e} of the output's range ({name})"
    if not exact:
        return Check("tiling", "approximate", measured, None)
    return Check("tiling", "exact", measured, deviation <= subject.tolerance)


def _compare_two_sizes(subject: ProbedNetwork, probed: _ProbedCore) -> float:
    """Compare the core computed from the whole image and from the core's own window."""
    border, image = probed.border, subject.image(probed.side)
    window = slice(probed.shift, probed.side - probed.shift)
    whole = subject.run(image)
    placement = Placement((probed.shift, probed.shift), (probed.side, probed.side))
    part = subject.run(image[:, :, window, window], placement)
    first = border.before - border.shrink
    core = slice(first, first + probed.core)
    difference = whole[:, probed.output, probed.output] - part[:, core, core]
    return float(difference.abs().max() / measure_range(whole))


def _compare_two_positions(subject: ProbedNetwork, probed: _ProbedCore) -> float | None:
    """Compare the overlap of two windows of the only size, whole periods apart.

    None: they have no overlap with enough context.
    """
    border, side = probed.border, probed.side
    step = max(border.period, probed.core // 2)
    image = subject.image(side + step)
    first_output = subject.run(image[:, :, :side, :side])
    second_output = subject.run(image[:, :, step:, step:])
    # If the declared border doesn't fit, compare the middle, as tiles would show it.
    lack = max(0, border.before + border.after + step + border.period - side)
    first = max(0, border.before - border.shrink - (lack + 1) // 2)
    end = first_output.shape[1] - max(0, border.after - border.shrink - (lack + 1) // 2)
    in_first, in_second = slice(first + step, end), slice(first, end - step)
    if in_first.start >= end:
        return None
    difference = first_output[:, in_first, in_first] - second_output[:, in_second, in_second]
    return float(difference.abs().max() / measure_range(first_output))


def _check_pixels(model: Model, pixels: Callable[[int], NDArray[np.uint8]]) -> Iterator[Check]:
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
    windows = [
        (np.ascontiguousarray(image[window.slices()]), window, core)
        for window, core in ((border.window(core, shape), core) for core in cores)
    ]
    labels = [predictor.predict(*arguments, shape).labels for arguments in windows]
    common = cores[0].intersection(cores[1])
    parts = [
        label_images[:, *common.relative_to(core).slices()]
        for label_images, core in zip(labels, cores, strict=True)
    ]
    share = float(np.mean(parts[0] == parts[1]))
    exact = model.spec.exactness == "exact"
    holds = share >= EQUAL_LABELS if exact else None
    declared = "equal labels" if exact else "approximate"
    yield Check("tiles of pixels", declared, _percent(share), holds)
    del predictor
    for precision in model.spec.precisions:
        if precision != "float32":
            yield Check(
                precision, "", _describe_agreement(model, precision, windows[:1], shape), None
            )


def _describe_agreement(
    model: Model,
    precision: str,
    windows: list[tuple[NDArray[np.uint8], Box, Box]],
    shape: tuple[int, int],
) -> str:
    try:
        resolve_precision(precision, "cpu")
    except OptionError:
        return "not computed by this CPU"
    try:
        share = measure_agreement(
            Predictor(model, device="cpu", precision=precision), windows, shape
        )
    except ModelError as error:
        return f"fails: {error}"
    return _percent(share or 0.0) + " as in float32"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} % of labels equal"
