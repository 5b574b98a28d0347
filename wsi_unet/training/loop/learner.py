"""A network and its optimiser, which learn one iteration at a time.

Randomness (dropout) is seeded again in every iteration, from the training's seed and the iteration
alone, so a resumed training needs no generator's state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from wsi_unet.errors import TrainingError
from wsi_unet.models.inference.devices import is_out_of_memory
from wsi_unet.models.networks.build import build_network
from wsi_unet.models.number_types import Precision
from wsi_unet.training.loop.batches import Batch
from wsi_unet.training.loop.losses import Loss
from wsi_unet.training.loop.optimisers import Average, build_optimiser, rate_at, set_rate
from wsi_unet.training.recipe import Recipe
from wsi_unet.wording import count

_START = 2**32 - 1
"""Stands for the iteration in the seed of the initial weights."""


class DivergedError(TrainingError):
    """The network computes NaN or infinite numbers."""


@dataclass(frozen=True)
class Step:
    """Metrics of one iteration.

    Attributes:
        loss: loss of the batch, before the step.
        terms: terms of the loss, each multiplied by its weight, in the recipe's order.
        rate: learning rate.
    """

    loss: float
    terms: tuple[float, ...]
    rate: float


class Learner:
    """A network in training, with its optimiser and its averaged weights.

    Args:
        recipe: the recipe.
        losses: terms of the loss, each multiplied by its weight.
        device: "cpu" or "cuda:i".
        precision: number type of the convolutions, "float32" or "bfloat16"; weights, losses and
            steps are float32.

    Attributes:
        network: the network in training.
        iteration: iterations done.
        device: see above.
        precision: see above.
    """

    def __init__(
        self, recipe: Recipe, losses: Sequence[Loss], *, device: str, precision: Precision
    ) -> None:
        self.iteration = 0
        self.device = device
        self.precision = precision
        self._recipe = recipe
        self._losses = tuple(losses)
        torch.manual_seed(_mix_seed(recipe.running.seed, _START))
        self.network: nn.Module = build_network(recipe.network).to(
            device=device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self._optimiser = build_optimiser(recipe.optimiser, self.network)
        share = recipe.optimiser.average
        self._average = Average(self.network, share) if share else None

    @property
    def network_to_keep(self) -> nn.Module:
        """The network to measure and to keep: with the averaged weights, if there are any."""
        return self.network if self._average is None else self._average.network

    def learn(self, batch: Batch) -> Step:
        """Do one iteration.

        Raises:
            DivergedError: if the loss, or its gradient, is NaN or infinite; the weights stay.
            TrainingError: if the device has too little memory.
        """
        try:
            with _autotuned_cudnn(self.device):
                return self._learn(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            images, side = count(len(batch.where), "image"), batch.images.shape[-1]
            raise TrainingError(
                f"{self.device} has too little memory to learn from {images} of {side}×{side}"
                " px at once; use a smaller sampling.tile or sampling.batch, or a smaller network"
            ) from error

    @property
    def rate(self) -> float:
        """Learning rate of the next iteration."""
        running = self._recipe.running
        return rate_at(self._recipe.optimiser, self.iteration, running.iterations)

    def state(self) -> dict[str, Any]:
        """Return everything that the next iterations depend on."""
        average = self._average
        return {
            "iteration": self.iteration,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": average
            and {"network": average.network.state_dict(), "count": average.count},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Raises:
            KeyError, RuntimeError, ValueError, TypeError: if it doesn't fit this network.
        """
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._average is not None:
            self._average.network.load_state_dict(state["average"]["network"])
            self._average.count = int(state["average"]["count"])
        self.iteration = int(state["iteration"])

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which the network's convolutions have its precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, getattr(torch, self.precision))

    def _learn(self, batch: Batch) -> Step:
        torch.manual_seed(_mix_seed(self._recipe.running.seed, self.iteration))
        self.network.train()
        terms = self._terms(batch)
        loss = torch.stack(terms).sum()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._clip()
        values = torch.stack([norm, loss.detach(), *(term.detach() for term in terms)]).tolist()
        if not math.isfinite(sum(values)):
            raise self._diverged(batch, values[1])
        rate = self.rate
        set_rate(self._optimiser, rate)
        self._optimiser.step()
        self.iteration += 1
        if self._average is not None:
            self._average.add(self.network)
        return Step(values[1], tuple(values[2:]), rate)

    def _terms(self, batch: Batch) -> list[Tensor]:
        with self.autocast():
            logits: Tensor = self.network(batch.images)
        logits = logits.float().contiguous()  # losses are a quarter slower on channels last
        return [loss(logits, batch.labels, batch.weights) for loss in self._losses]

    def _clip(self) -> Tensor:
        """Clip the gradient's norm, if the recipe says so; return the norm before."""
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self._recipe.optimiser.clip:
            clip_grads_with_norm_(parameters, self._recipe.optimiser.clip, norm)
        return norm

    @torch.no_grad()
    def _diverged(self, batch: Batch, loss: float) -> DivergedError:
        """Return an error that names the samples with wrong numbers; if none has any, all."""
        samples = [batch.single(index) for index in range(len(batch.where))]
        wrong = [
            sample.where[0]
            for sample in samples
            if not all(bool(term.isfinite()) for term in self._terms(sample))
        ]
        what = "the loss" if not math.isfinite(loss) else "the loss's gradient"
        return DivergedError(
            f"{what} isn't a finite number in iteration {self.iteration + 1}, at "
            f"{'; '.join(wrong or batch.where)}; check the data there, or start over with a "
            "lower optimiser.rate, or with optimiser.clip (the last good model is kept)"
        )


@contextmanager
def _autotuned_cudnn(device: str) -> Iterator[None]:
    """Let cuDNN find the fastest algorithms inside: all batches of a training have one size.

    The setting is the process's, and restored afterwards.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device != "cpu"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _mix_seed(seed: int, iteration: int) -> int:
    """Return a 64-bit seed that differs between iterations and between seeds."""
    return int(np.random.SeedSequence([seed, iteration]).generate_state(1, np.uint64)[0])
