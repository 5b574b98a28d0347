"""From a network's output to probabilities and labels, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from wsi_unet.models.spec import ModelSpec

THRESHOLD = 0.5
"""Of a sigmoid whose spec has none."""


class Head(Protocol):
    """How one network's output, float32 (classes, rows, columns), is read.

    Scores are what labels are decided on: the output itself where that has the same order as the
    probabilities and costs less, else the probabilities. Probabilities are scores too.
    """

    def scores(self, output: Tensor) -> Tensor:
        """Return the scores (classes, rows, columns)."""

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the probabilities (classes, rows, columns), 0 to 1."""

    def labels(self, scores: Tensor) -> Tensor:
        """Return uint8 (label images, rows, columns)."""


def choose_head(spec: ModelSpec) -> Head:
    """Return how a model's output is read."""
    if spec.head == "softmax":
        return Softmax(spec.label_values, spec.activated)
    return Sigmoid(spec.thresholds or (THRESHOLD,) * len(spec.classes), spec.activated)


@dataclass(frozen=True)
class Softmax:
    """Classes that exclude each other: the largest wins, the first among equals.

    Attributes:
        values: the label value of each class.
        activated: whether the output already is the softmax.
    """

    values: tuple[int, ...]
    activated: bool

    def scores(self, output: Tensor) -> Tensor:
        """Return the output: the largest logit is the largest probability."""
        return output

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the softmax."""
        return scores if self.activated else scores.softmax(dim=0)

    def labels(self, scores: Tensor) -> Tensor:
        """Return one image: at each pixel the value of the class with the largest score."""
        best = scores[0]
        labels = torch.full(best.shape, self.values[0], dtype=torch.uint8, device=scores.device)
        for value, score in zip(self.values[1:], scores[1:], strict=True):
            labels.masked_fill_(score > best, value)
            best = torch.maximum(best, score)
        return labels[None]


@dataclass(frozen=True)
class Sigmoid:
    """Classes by themselves: a pixel belongs to those whose probability is above the threshold.

    Attributes:
        thresholds: of each class.
        activated: whether the output already is the sigmoid.
    """

    thresholds: tuple[float, ...]
    activated: bool

    def scores(self, output: Tensor) -> Tensor:
        """Return the probabilities, which the thresholds are for."""
        return output if self.activated else output.sigmoid()

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the scores."""
        return scores

    def labels(self, scores: Tensor) -> Tensor:
        """Return an image for each class: 1 where a pixel belongs to it."""
        above = [score > limit for score, limit in zip(scores, self.thresholds, strict=True)]
        return torch.stack(above).to(torch.uint8)


def quantise(probabilities: Tensor) -> Tensor:
    """Return uint8 (classes, rows, columns): 255 for certain."""
    scaled = (probabilities * 255).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).contiguous()
