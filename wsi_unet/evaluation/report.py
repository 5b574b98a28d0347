"""The scores of an evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_unet.ground_truth.annotation_rasters import AnnotationFacts
from wsi_unet.metrics.boundaries import Boundaries, BoundaryPixels
from wsi_unet.metrics.confusion import class_pixels, nan_mean, pixel_error
from wsi_unet.metrics.instances import ObjectScores
from wsi_unet.metrics.segments import SegmentScores

EvaluationKind = Literal["classes", "objects", "segments"]
ObjectSource = Literal["stored", "components", "values", "annotations"]
"""What objects are: those that `find_objects` has stored, connected components of the labels, the
values of an image, or annotations."""


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; NaN where there is nothing to score. `metrics.confusion` defines them.

    Attributes:
        value: the class's value in the prediction.
        name: the class's name.
        truth_pixels: number of its pixels in the truth.
        prediction_pixels: number of its pixels in the prediction.
        dice: Dice coefficient; like the next three, NaN where the class is in neither.
        iou: intersection over union.
        precision: share of predicted pixels that are right; NaN also where none was predicted.
        recall: share of true pixels that were predicted; NaN also where the truth has none.
        pixel_error: share of the pixels that are of the class in just one of both.
        boundary_f1: boundary F1 within the tolerance; NaN without boundaries or tolerance.
    """

    value: int
    name: str
    truth_pixels: int
    prediction_pixels: int
    dice: float
    iou: float
    precision: float
    recall: float
    pixel_error: float
    boundary_f1: float


@dataclass(frozen=True)
class Evaluation:
    """The scores of a prediction against its truth; NaN where there is nothing to score.

    Attributes:
        prediction: path, URL or name of the prediction.
        truth: path, URL or name of the truth.
        kind: what is scored: classes, objects, or segments (cells that membranes separate).
        pixels: number of pixels that were compared.
        pixels_left_out: number of the prediction's pixels that weren't: outside of the regions,
            ignored, not covered by the truth, or not predicted.
        pixels_not_predicted: number of pixels among these that weren't compared only because the
            model didn't look there: outside of the tissue or of the run's regions.
        class_pixels_not_predicted: number of pixels among these that the truth doesn't call
            background. They count neither as right nor as wrong.
        tolerance: tolerance of boundaries, px; None if boundaries weren't scored.
        classes: scores of each class; of objects and of segments there are two classes: they, and
            the rest.
        confusion: number of pixels of class i in the truth (rows) and j in the prediction
            (columns).
        pixel_error: share of pixels whose class is wrong.
        mean_dice: mean Dice coefficient of the classes, without value 0 and without classes that
            are in neither.
        mean_iou: mean IoU of the same classes.
        mean_boundary_f1: mean boundary F1 of the same classes.
        objects: scores of objects; None unless `kind` is "objects".
        truth_objects: what the objects of the truth are: "stored" (by `find_objects`),
            "components" (of the labels), "values" (of an image) or "annotations".
        prediction_objects: what the objects of the prediction are.
        segments: scores of segments; None unless `kind` is "segments".
        truth_annotations: number of annotations; None unless the truth is annotations.
        within_annotations: number of annotations to compare within; None if there are none.
    """

    prediction: str
    truth: str
    kind: EvaluationKind
    pixels: int
    pixels_left_out: int
    pixels_not_predicted: int
    class_pixels_not_predicted: int
    tolerance: float | None
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    pixel_error: float
    mean_dice: float
    mean_iou: float
    mean_boundary_f1: float
    objects: ObjectScores | None = None
    segments: SegmentScores | None = None
    truth_annotations: AnnotationFacts | None = None
    within_annotations: AnnotationFacts | None = None
    truth_objects: ObjectSource | None = None
    prediction_objects: ObjectSource | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the scores as a JSON document; NaN becomes null."""
        document: dict[str, Any] = _replace_nan(dataclasses.asdict(self))
        return document


def score_classes(
    names: Mapping[int, str], matrix: NDArray[np.int64], boundaries: Boundaries | None
) -> tuple[ClassScores, ...]:
    """Score every class of a confusion matrix.

    Args:
        names: {value: name} of the classes, in the order of the matrix's rows.
        matrix: (k, k) numbers of pixels; rows are truth.
        boundaries: boundary pixels by value; None if they weren't counted.
    """
    scores = []
    for number, (value, name) in enumerate(names.items()):
        counts = class_pixels(matrix, number)
        edge = None if boundaries is None else boundaries.get(value, BoundaryPixels())
        scores.append(
            ClassScores(
                value=value,
                name=name,
                truth_pixels=counts.tp + counts.fn,
                prediction_pixels=counts.tp + counts.fp,
                dice=counts.dice,
                iou=counts.iou,
                precision=counts.precision,
                recall=counts.recall,
                pixel_error=counts.pixel_error,
                boundary_f1=math.nan if edge is None else edge.f1,
            )
        )
    return tuple(scores)


def summarise_classes(scores: tuple[ClassScores, ...], matrix: NDArray[np.int64]) -> dict[str, Any]:
    """Return the fields of `Evaluation` that follow from the scores of classes."""
    foreground = [item for item in scores if item.value != 0]
    return {
        "pixels": int(matrix.sum()),
        "classes": scores,
        "confusion": tuple(tuple(row) for row in matrix.tolist()),
        "pixel_error": pixel_error(matrix),
        "mean_dice": nan_mean([item.dice for item in foreground]),
        "mean_iou": nan_mean([item.iou for item in foreground]),
        "mean_boundary_f1": nan_mean([item.boundary_f1 for item in foreground]),
    }


def _replace_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
