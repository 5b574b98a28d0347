"""Iterations, against a loop written by hand; and what happens when numbers are NaN."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.numbered import Numbered, put_together
from support.training import small_recipe, squares, train_small
from torch import Tensor
from torch.nn import functional as F

from wsi_unet.errors import TrainingError
from wsi_unet.models import Normalisation, load_model
from wsi_unet.training.artifacts.journal import read_journal
from wsi_unet.training.artifacts.state import read_state
from wsi_unet.training.augmentation.samples import Samples
from wsi_unet.training.loop.batches import Batch
from wsi_unet.training.loop.learner import DivergedError, Learner
from wsi_unet.training.loop.losses import Loss
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.run import build_losses

SCALING = Normalisation(mean=(0.4,) * 3, std=(0.3,) * 3)


def learner_of(recipe: Recipe, precision: Any = "float32") -> Learner:
    return Learner(recipe, build_losses(recipe), device="cpu", precision=precision)


def batch_of(recipe: Recipe, iteration: int) -> Batch:
    samples, size = Samples(recipe, [squares()], SCALING), recipe.sampling.batch
    return put_together([samples[iteration * size + i] for i in range(size)])


def by_hand(network: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the weighted cross entropy plus half of 1 − soft Dice of the cells."""
    logits = network(batch.images)
    each = F.cross_entropy(logits, batch.labels, reduction="none")
    cells, truth = logits.softmax(1)[:, 1], (batch.labels == 1).float()
    dice = (2 * (cells * truth).sum() + 1e-5) / (cells.sum() + truth.sum() + 1e-5)
    loss: Tensor = (each * batch.weights).sum() / batch.weights.sum() + 0.5 * (1 - dice)
    return loss


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_iterations_are_those_of_a_loop_written_by_hand(clip: float) -> None:
    recipe = small_recipe(
        loss=[{"name": "cross_entropy"}, {"name": "dice", "weight": 0.5}],
        optimiser={"name": "sgd", "rate": 0.1, "momentum": 0.8, "schedule": "poly", "clip": clip},
    )
    learner = learner_of(recipe)
    network = copy.deepcopy(learner.network).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.8)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=12, power=0.9)
    for iteration in range(5):
        batch = batch_of(recipe, iteration)
        loss: Any = by_hand(network, batch)
        optimiser.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        step = learner.learn(batch)
        assert step.loss == pytest.approx(loss.item(), rel=1e-5)
        assert step.loss == pytest.approx(sum(step.terms), rel=1e-6)
        assert step.rate == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    theirs = network.state_dict()
    for name, value in learner.network.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


def test_drop_out_depends_on_the_iteration_alone() -> None:
    recipe = small_recipe(network={"dropout": 0.5})
    batch = batch_of(recipe, 0)
    learner = learner_of(recipe)
    learner.learn(batch)
    state = copy.deepcopy(learner.state())
    second = learner.learn(batch)
    torch.rand(7)
    again = learner_of(recipe)
    again.restore(state)
    assert again.learn(batch) == second
    other = learner_of(recipe)
    other.restore({**state, "iteration": 5})
    assert other.learn(batch).loss != second.loss


def test_bfloat16_changes_the_arithmetic_and_not_the_weights() -> None:
    recipe = small_recipe()
    exact, rough = learner_of(recipe), learner_of(recipe, "bfloat16")
    batch = batch_of(recipe, 0)
    one, other = exact.learn(batch).loss, rough.learn(batch).loss
    assert one != other
    assert one == pytest.approx(other, rel=0.02)
    assert {p.dtype for p in rough.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_loss_that_is_nan_names_its_sample_and_changes_nothing(norm: str) -> None:
    recipe = small_recipe(network={"norm": norm})
    learner = learner_of(recipe)
    learner.learn(batch_of(recipe, 0))
    before = {name: value.clone() for name, value in learner.network.named_parameters()}
    batch = put_together([Numbered(side=32)[number] for number in (6, 7)])
    batch.images[1, 0, 5, 5] = math.nan
    with pytest.raises(DivergedError, match="the loss isn't a finite number in iteration 2, at 7 "):
        learner.learn(batch)
    assert learner.iteration == 1
    assert all(torch.equal(before[n], v) for n, v in learner.network.named_parameters())


def test_a_gradient_that_is_nan_is_distinguished_from_the_loss() -> None:
    recipe = small_recipe(network={"norm": "none"})
    batch = batch_of(recipe, 0)

    def steep(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        return (logits - logits.detach()).abs().sqrt().sum()

    learner = Learner(recipe, [steep], device="cpu", precision="float32")
    with pytest.raises(DivergedError, match="the loss's gradient isn't a finite number in iter"):
        learner.learn(batch)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_too_little_memory_is_one_clear_line(error: RuntimeError) -> None:
    recipe = small_recipe()

    def greedy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        raise error

    learner = Learner(recipe, [greedy], device="cpu", precision="float32")
    with pytest.raises(TrainingError, match="too little memory to learn from 2 images of 32×32 px"):
        learner.learn(batch_of(recipe, 0))


def test_the_last_good_model_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []

    def spoilt(recipe: Recipe) -> list[Loss]:
        (sound,) = build_losses(recipe)

        def loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
            calls.append(None)
            result: Tensor = sound(logits, labels, weights) * (math.nan if len(calls) > 6 else 1.0)
            return result

        return [loss]

    train_small(small_recipe(running={"iterations": 4}), tmp_path / "four")
    monkeypatch.setattr("wsi_unet.training.run.build_losses", spoilt)
    with pytest.raises(DivergedError, match=r"finite number in iteration 7, at squares \d at \("):
        train_small(small_recipe(), tmp_path / "model")
    journal = read_journal(tmp_path / "model" / "training" / "journal.csv")
    assert journal["iteration"] == [1, 2, 3, 4, 5, 6]
    assert read_state(tmp_path / "model" / "training" / "state").iteration == 4
    assert load_model(tmp_path / "model").sha256 == load_model(tmp_path / "four").sha256


def test_a_network_that_computes_nan_isnt_kept(tmp_path: Path) -> None:
    recipe = small_recipe(
        optimiser={"name": "sgd", "rate": 1e12},
        running={"validate_every": 1},
        network={"norm": "none"},
    )
    with pytest.raises(TrainingError, match="where squares 3 is measured; start over with a lower"):
        train_small(recipe, tmp_path / "model")
    assert not (tmp_path / "model" / "model.json").exists()
