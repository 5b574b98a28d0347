"""How weights are changed: the optimiser, its rate as a function of the iteration, their mean."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from wsi_unet.training.recipe import Optimiser

WARM_UP = 0.05
"""Share of the iterations in which a "onecycle" rate rises."""

FIRST, LAST = 1 / 25, 1 / 250_000
"""What a "onecycle" rate begins and ends with, as a share of the largest (Smith and Topin 2019)."""

POWER = 0.9
"""Exponent of a "poly" rate (Liu et al., ParseNet, 2015)."""


def build_optimiser(settings: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    """Return what changes a network's weights.

    Decay isn't applied to biases, nor to the scales and shifts of normalisation: they have nothing
    to overfit with, and a scale drawn to 0 takes its channel away.
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
    """Let the optimiser's next step be of this rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def rate_at(settings: Optimiser, iteration: int, iterations: int) -> float:
    """Return the rate of an iteration.

    >>> [rate_at(Optimiser(rate=2, schedule="cosine"), i, 4) for i in (0, 2)]
    [2.0, 1.0]

    Args:
        settings: of the optimiser.
        iteration: from 0.
        iterations: how many there are.
    """
    return settings.rate * _SCHEDULES[settings.schedule](iteration, iterations)


def _poly(iteration: int, iterations: int) -> float:
    return float((1 - iteration / iterations) ** POWER)


def _cosine(iteration: int, iterations: int) -> float:
    return _between(1.0, 0.0, iteration / iterations)


def _onecycle(iteration: int, iterations: int) -> float:
    top = max(0.0, WARM_UP * iterations - 1)  # the iteration with the largest rate
    if iteration < top:
        return _between(FIRST, 1.0, iteration / top)
    return _between(1.0, LAST, (iteration - top) / max(1.0, iterations - 1 - top))


def _between(first: float, last: float, share: float) -> float:
    """Return what lies so far between two numbers, on half a wave of a cosine."""
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
    """An exponential mean of a network's weights, and of what its normalisation has seen.

    As long as there are few, it is their plain mean: share of the past min(α, 1 − 1/t) at the
    t-th (Tarvainen and Valpola 2017), so the random beginning is forgotten at once.

    Args:
        network: whose weights; on its device.
        share: α, of the past.

    Attributes:
        network: has the mean as its weights; in evaluation mode.
        count: how many were averaged, t.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.count = 0
        self._share = share

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Take the present weights into the mean."""
        self.count += 1
        new = 1 - min(self._share, 1 - 1 / self.count)
        mean: dict[str, Tensor] = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                mean[name].lerp_(value, new)
            else:  # batch norm's count of batches
                mean[name].copy_(value)
