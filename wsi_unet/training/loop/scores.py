"""How well a network does on the fields that it isn't trained on, in pixels that add up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from wsi_unet.metrics.confusion import (
    ClassPixels,
    class_pixels,
    confusion_matrix,
    mean_of,
    pixel_error,
)
from wsi_unet.metrics.overlaps import count_overlaps
from wsi_unet.models.spec import ModelSpec
from wsi_unet.training.fields import IGNORED

Counts = NDArray[np.int64]


class PixelCounts:
    """Counts of predicted and true classes, for one way of asking.

    With a softmax, each pixel has one class: one confusion matrix, of the classes and of none of
    them (the last). With a sigmoid each class is asked for by itself: a matrix of no and yes each.

    Args:
        spec: of the network.

    Attributes:
        matrices: (m, n, n) pixels; row: truth, column: prediction.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._classes = len(spec.classes)
        self._exclusive = spec.head == "softmax"
        self._index_of = np.full(256, self._classes, np.uint8)
        self._index_of[list(spec.label_values)] = np.arange(self._classes, dtype=np.uint8)
        many, side = (1, self._classes + 1) if self._exclusive else (self._classes, 2)
        self.matrices: Counts = np.zeros((many, side, side), np.int64)

    def add(self, truth: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        """Count pixels.

        Args:
            truth: (h, w) class index, `IGNORED` (not counted) or `NOTHING`.
            labels: (label images, h, w), label values, as a predictor gives them.
        """
        valid = truth != IGNORED
        if self._exclusive:
            pairs = [(np.minimum(truth, self._classes), self._index_of[labels[0]])]
        else:
            pairs = [
                ((truth == index).astype(np.uint8), labels[index]) for index in range(self._classes)
            ]
        for matrix, (true, predicted) in zip(self.matrices, pairs, strict=True):
            overlaps = count_overlaps(true, predicted, valid)
            matrix += confusion_matrix(overlaps, range(len(matrix)))

    def classes(self) -> list[ClassPixels]:
        """Return each class's counts, in the spec's order."""
        if self._exclusive:
            return [class_pixels(self.matrices[0], index) for index in range(self._classes)]
        return [class_pixels(matrix, 1) for matrix in self.matrices]

    def pixel_error(self) -> float:
        """Return the share of pixels with a wrong class; with a sigmoid, the classes' mean."""
        return mean_of([pixel_error(matrix) for matrix in self.matrices])


@dataclass(frozen=True)
class FieldClassScores:
    """How one class was found, NaN being a score of nothing.

    Attributes:
        name: of the class.
        pixels: of it in the truth.
        dice: see `wsi_unet.metrics.confusion.ClassPixels`.
        iou: likewise.
        precision: likewise.
        recall: likewise.
    """

    name: str
    pixels: int
    dice: float
    iou: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Scores:
    """How well fields were labelled, over the pixels of all of them together.

    Attributes:
        fields: how many.
        pixels: compared.
        pixel_error: share with a wrong class.
        mean_dice: mean over the classes but the background, and but those that are in neither.
        mean_iou: likewise.
        classes: each class's, in the recipe's order.
    """

    fields: int
    pixels: int
    pixel_error: float
    mean_dice: float
    mean_iou: float
    classes: tuple[FieldClassScores, ...]

    @classmethod
    def of(cls, counts: PixelCounts, spec: ModelSpec, fields: int) -> Scores:
        """Return the scores that counts give."""
        found = counts.classes()
        named = [
            FieldClassScores(one.name, p.tp + p.fn, p.dice, p.iou, p.precision, p.recall)
            for one, p in zip(spec.classes, found, strict=True)
        ]
        meant = [scores for scores in named if scores.name != spec.background]
        return cls(
            fields=fields,
            pixels=found[0].total,
            pixel_error=counts.pixel_error(),
            mean_dice=mean_of([scores.dice for scores in meant]),
            mean_iou=mean_of([scores.iou for scores in meant]),
            classes=tuple(named),
        )

    def to_json(self) -> dict[str, JsonValue]:
        """Return the scores as a card has them: rounded, `null` for a score of nothing."""
        return {
            "dice": rounded(self.mean_dice),
            "iou": rounded(self.mean_iou),
            "pixel_error": rounded(self.pixel_error),
            "pixels": self.pixels,
            "fields": self.fields,
            "classes": {
                one.name: {
                    "dice": rounded(one.dice),
                    "iou": rounded(one.iou),
                    "precision": rounded(one.precision),
                    "recall": rounded(one.recall),
                    "pixels": one.pixels,
                }
                for one in self.classes
            },
        }


def rounded(score: float) -> float | None:
    """Return a score with four digits; None for a score of nothing.

    >>> rounded(0.123456), rounded(float("nan"))
    (0.1235, None)
    """
    return None if math.isnan(score) else round(score, 4)


def column_names(classes: Sequence[str]) -> list[str]:
    """Return what the journal calls the scores."""
    return ["pixel_error", "mean_dice", "mean_iou", *(f"dice {name}" for name in classes)]


def columns(scores: Scores) -> list[float]:
    """Return the scores in that order."""
    each = (one.dice for one in scores.classes)
    return [scores.pixel_error, scores.mean_dice, scores.mean_iou, *each]
