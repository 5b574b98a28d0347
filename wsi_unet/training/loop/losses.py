"""Losses of a network's logits.

Logits are (n, k, h, w); labels are int64 (n, h, w): a class's index, `IGNORED` or `NOTHING`;
weights are (n, h, w): the weight of each pixel in the cross entropies. Ignored pixels influence
nothing. Pixels of no class are negatives of every class, which only sigmoid heads can learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from wsi_unet.errors import RecipeError
from wsi_unet.training.fields import IGNORED, NOTHING
from wsi_unet.training.recipe_sections import LossTerm

Head = Literal["softmax", "sigmoid"]

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function of (logits, labels, weights) that returns a scalar."""

SMOOTH = 1e-5
"""Added to numerator and denominator of overlaps, px; as in nnU-Net (Isensee et al. 2021)."""

LEAST_ERROR = 1e-7
"""Least 1 − p in the focal loss: at 0, a power below 1 has no finite slope."""


def build_loss(terms: Sequence[LossTerm], background: int | None, head: Head) -> Loss:
    """Return the sum of terms, each multiplied by its weight.

    Args:
        terms: terms of a recipe.
        background: index of the class that overlap terms leave out, unless they say otherwise;
            None: they take all classes.
        head: head of the network.

    Returns:
        A function that computes in float64 if the logits are float64, otherwise in float32. It
        raises RecipeError for labels that aren't classes, and for pixels of no class if the head is
        a softmax.

    Raises:
        RecipeError: a term isn't for this head.
    """
    known = TERMS[head]
    for term in terms:
        if term.name not in known:
            raise RecipeError(f"loss: {term.name!r} isn't for {head} heads; use {', '.join(known)}")

    def loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        _refuse_unknown_labels(labels, logits.shape[1], head)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        batch = LossBatch(logits, labels, weights, labels != IGNORED, head, background)
        return torch.stack([term.weight * known[term.name](batch, term) for term in terms]).sum()

    return loss


@dataclass(frozen=True, eq=False)
class LossBatch:
    """The input of a loss term.

    Attributes:
        logits: (n, k, h, w).
        labels: (n, h, w).
        weights: (n, h, w).
        counted: bool (n, h, w), false for ignored pixels.
        head: head of the network.
        background: index of the background class; None: there is none.
    """

    logits: Tensor
    labels: Tensor
    weights: Tensor
    counted: Tensor
    head: Head
    background: int | None

    @property
    def truth(self) -> Tensor:
        """(n, k, h, w): 1 for pixels of the class, 0 for others."""
        classes = torch.arange(self.logits.shape[1], device=self.labels.device)
        return (self.labels[:, None] == classes[:, None, None]).to(self.logits.dtype)

    def mean(self, errors: Tensor) -> Tensor:
        """Return the mean of errors (n, h, w) over the pixels that count; 0 if none does."""
        total = torch.where(self.counted, errors, 0).sum()
        return total / self.counted.sum().clamp_min(1)


def _refuse_unknown_labels(labels: Tensor, classes: int, head: Head) -> None:
    unknown = (labels >= classes) & (labels != IGNORED) | (labels < 0)
    if head == "sigmoid":
        unknown &= labels != NOTHING
    if not unknown.any():
        return
    label = int(labels[unknown][0])
    if label == NOTHING:
        raise RecipeError(
            "there are pixels of no class, which a softmax can't learn: give the recipe a "
            "background class, or head = 'sigmoid'"
        )
    raise RecipeError(f"there are pixels of label {label}, but the recipe has {classes} classes")


def _cross_entropy(batch: LossBatch, term: LossTerm) -> Tensor:
    """Return the mean over pixels of w · −ln p of the true class.

    Ronneberger et al. 2015, equation 1. The mean is over pixels, not over weights: twice the
    weights are twice the loss, as in the paper's sum.
    """
    return batch.mean(batch.weights * _softmax_surprise(batch))


def _binary_cross_entropy(batch: LossBatch, term: LossTerm) -> Tensor:
    """Return the mean over pixels and classes of w · −ln of the truth's probability."""
    return batch.mean(batch.weights * _sigmoid_surprise(batch).mean(dim=1))


def _softmax_focal(batch: LossBatch, term: LossTerm) -> Tensor:
    return batch.mean(_focus(_softmax_surprise(batch), term.gamma))


def _sigmoid_focal(batch: LossBatch, term: LossTerm) -> Tensor:
    return batch.mean(_focus(_sigmoid_surprise(batch), term.gamma).mean(dim=1))


def _softmax_surprise(batch: LossBatch) -> Tensor:
    """Return −ln p of the true class, (n, h, w); 0 for ignored pixels."""
    return F.cross_entropy(batch.logits, batch.labels, ignore_index=IGNORED, reduction="none")


def _sigmoid_surprise(batch: LossBatch) -> Tensor:
    """Return −ln of the truth's probability for each class, (n, k, h, w)."""
    return F.binary_cross_entropy_with_logits(batch.logits, batch.truth, reduction="none")


def _focus(surprise: Tensor, gamma: float) -> Tensor:
    """Return (1 − p)^γ · −ln p, where p is the truth's probability (Lin et al. 2017)."""
    error = (-torch.expm1(-surprise)).clamp_min(LEAST_ERROR)
    return error**gamma * surprise


def _dice(batch: LossBatch, term: LossTerm) -> Tensor:
    """Return 1 − 2 |p ∩ t| / (|p| + |t|)."""
    both, predicted, true = _overlaps(batch, term)
    return _mean_deficit(2 * both, predicted + true)


def _iou(batch: LossBatch, term: LossTerm) -> Tensor:
    """Return 1 − |p ∩ t| / |p ∪ t|."""
    both, predicted, true = _overlaps(batch, term)
    return _mean_deficit(both, predicted + true - both)


def _overlaps(batch: LossBatch, term: LossTerm) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of p · t, p and t over all pixels that count, each (classes,), px.

    p are the probabilities and t the truth of the classes, without the background unless the term
    includes it.
    """
    soft = torch.softmax if batch.head == "softmax" else _sigmoid
    left_out = None if term.background else batch.background
    kept = [i for i in range(batch.logits.shape[1]) if i != left_out]
    counted = batch.counted[:, None]
    probability = torch.where(counted, soft(batch.logits, 1)[:, kept], 0)
    truth = batch.truth[:, kept]
    pixels = (0, 2, 3)
    return (probability * truth).sum(pixels), probability.sum(pixels), truth.sum(pixels)


def _sigmoid(logits: Tensor, dim: int) -> Tensor:
    """Return the sigmoid, with the signature of torch.softmax."""
    return torch.sigmoid(logits)


def _mean_deficit(overlap: Tensor, whole: Tensor) -> Tensor:
    """Return the mean of 1 − overlap / whole over the classes with pixels; 0 if there is none."""
    present = whole > 0
    deficit = torch.where(present, 1 - (overlap + SMOOTH) / (whole + SMOOTH), 0)
    return deficit.sum() / present.sum().clamp_min(1)


TERMS: Mapping[Head, Mapping[str, Callable[[LossBatch, LossTerm], Tensor]]] = {
    "softmax": {
        "cross_entropy": _cross_entropy,
        "dice": _dice,
        "iou": _iou,
        "focal": _softmax_focal,
    },
    "sigmoid": {
        "binary_cross_entropy": _binary_cross_entropy,
        "dice": _dice,
        "iou": _iou,
        "focal": _sigmoid_focal,
    },
}
"""Known loss terms, by the network's head and by name."""
