"""Learning rates against PyTorch's schedules; weight decay; the average of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, PolynomialLR

from wsi_unet.models import UNet, UNetConfig
from wsi_unet.training.loop.optimisers import Average, build_optimiser, rate_at, set_rate
from wsi_unet.training.recipe_sections import Optimiser

THEIRS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
}


def settings(**values: Any) -> Optimiser:
    return Optimiser.model_validate({"name": "sgd", "rate": 0.5, "momentum": 0.0} | values)


@pytest.mark.parametrize("iterations", [30, 100, 1000])
@pytest.mark.parametrize(
    ("schedule", "oracle"),
    [
        ("poly", lambda o, n: PolynomialLR(o, total_iters=n, power=0.9)),
        ("cosine", lambda o, n: CosineAnnealingLR(o, T_max=n)),
        ("onecycle", lambda o, n: OneCycleLR(o, 0.5, total_steps=n, pct_start=0.05)),
    ],
)
def test_rates_are_those_of_pytorchs_schedules(
    schedule: str, oracle: Callable[[torch.optim.Optimizer, int], LRScheduler], iterations: int
) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = oracle(optimiser, iterations)
    expected = []
    for _ in range(iterations):
        expected.append(float(theirs.get_last_lr()[0]))
        optimiser.step()
        if len(expected) < iterations:
            theirs.step()
    ours = [rate_at(settings(schedule=schedule), i, iterations) for i in range(iterations)]
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "poly", "cosine", "onecycle"])
@pytest.mark.parametrize("iterations", [1, 2, 19, 21, 50])
def test_rates_are_above_nothing_and_at_most_the_largest(schedule: str, iterations: int) -> None:
    rates = [rate_at(settings(schedule=schedule), i, iterations) for i in range(iterations)]
    assert min(rates) > 0
    assert max(rates) == pytest.approx(0.5, rel=0.02)


def test_decay_draws_on_weights_only() -> None:
    network = UNet(UNetConfig(depth=1, base_width=2, norm="batch"))
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimiser = build_optimiser(settings(decay=0.1), network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, value in network.named_parameters():
        factor = 1 - 0.5 * 0.1 if value.ndim > 1 else 1.0
        torch.testing.assert_close(value, before[name] * factor)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_is_that_of_the_optimiser_named(name: str) -> None:
    values = torch.linspace(-1, 1, 6).reshape(2, 3)
    ours, theirs = (nn.Linear(3, 2, bias=False) for _ in range(2))
    for layer in (ours, theirs):
        with torch.no_grad():
            layer.weight.copy_(values)
    chosen = settings(name=name, decay=0.1, momentum=0.9, nesterov=name == "sgd")
    own = build_optimiser(chosen, ours)
    other = THEIRS[name](theirs.parameters())
    set_rate(own, 0.1)
    for _ in range(3):
        for layer, optimiser in ((ours, own), (theirs, other)):
            optimiser.zero_grad()
            loss: Any = (layer.weight**3).sum()
            loss.backward()
            optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_mean_of_weights_is_plain_first_and_exponential_later(share: float) -> None:
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
    network = nn.Sequential(convolution, norm)
    average = Average(network, share)
    seen, expected = [], 0.0
    for count in range(1, 30):
        value = float(np.random.default_rng(count).normal())
        with torch.no_grad():
            convolution.weight.fill_(value)
            norm.get_buffer("running_mean").fill_(-value)
            norm.get_buffer("num_batches_tracked").fill_(count)
        average.add(network)
        seen.append(value)
        past = min(share, 1 - 1 / count)
        expected = past * expected + (1 - past) * value
        state = average.network.state_dict()
        assert float(state["0.weight"]) == pytest.approx(expected, abs=1e-5)
        assert float(state["1.running_mean"]) == pytest.approx(-expected, abs=1e-5)
        assert int(state["1.num_batches_tracked"]) == count
        if count <= 1 / (1 - share):
            assert expected == pytest.approx(np.mean(seen))
    assert not average.network.training
