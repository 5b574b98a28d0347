"""Optimisers, learning-rate schedules and averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from wsi_unet.training.recipe_sections import Optimiser

WARM_UP = 0.05
"""Share of the iterations in which a "onecycle" rate rises."""

FIRST, LAST = 1 / 25, 1 / 250_000
"""First and last "onecycle" rate, as shares of the largest (Smith and Topin 2019)."""

POWER = 0.9
"""Exponent of a "poly" rate (Liu et al., ParseNet, 2015)."""


def build_optimiser(settings: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of a network's weights.

    Weight decay isn't applied to biases, nor to the scales and shifts of normalisation: they hardly
    overfit, and a scale that decays to 0 removes its channel.
    """
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=settings.rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            fused=True,
        )
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=settings.rate, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the optimiser's next steps."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def rate_at(settings: Optimiser, iteration: int, iterations: int) -> float:
    """Return the learning rate of an iteration.

    >>> [rate_at(Optimiser(rate=2, schedule="cosine"), i, 4) for i in (0, 2)]
    [2.0, 1.0]

    Args:
        settings: settings of the optimiser.
        iteration: number of the iteration, from 0.
        iterations: number of iterations.
    """
    return settings.rate * _SCHEDULES[settings.schedule](iteration, iterations)


def _poly(iteration: int, iterations: int) -> float:
    return float((1 - iteration / iterations) ** POWER)


def _cosine(iteration: int, iterations: int) -> float:
    return _anneal(1.0, 0.0, iteration / iterations)


def _onecycle(iteration: int, iterations: int) -> float:
    top = max(0.0, WARM_UP * iterations - 1)  # the iteration with the largest rate
    if iteration < top:
        return _anneal(FIRST, 1.0, iteration / top)
    return _anneal(1.0, LAST, (iteration - top) / max(1.0, iterations - 1 - top))


def _anneal(first: float, last: float, share: float) -> float:
    """Return a number between two others, interpolated by half a period of a cosine."""
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))


_SCHEDULES: Mapping[
    Literal["constant", "poly", "cosine", "onecycle"], Callable[[int, int], float]
] = {
    "constant": lambda iteration, iterations: 1.0,
    "poly": _poly,
    "cosine": _cosine,
    "onecycle": _onecycle,
}


class Average:
    """An exponential moving average of a network's weights and normalisation statistics.

    The weight of the past at the t-th step is min(α, 1 − 1/t) (Tarvainen and Valpola 2017): at
    first it is the plain mean, so the random initial weights are forgotten at once.

    Args:
        network: network whose weights are averaged; the average is on its device.
        share: weight of the past, α.

    Attributes:
        network: network with the averaged weights, in evaluation mode.
        count: number of steps averaged, t.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.count = 0
        self._share = share

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Add the network's current weights to the average."""
        self.count += 1
        new = 1 - min(self._share, 1 - 1 / self.count)
        mean: dict[str, Tensor] = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mean[name].lerp_(value, new)
            else:  # batch normalisation's count of batches
                mean[name].copy_(value)
