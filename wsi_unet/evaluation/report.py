"""What an evaluation found."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_unet.ground_truth.drawing import AnnotationFacts
from wsi_unet.metrics.boundaries import Boundaries, BoundaryPixels
from wsi_unet.metrics.confusion import class_pixels, mean_of, pixel_error
from wsi_unet.metrics.instances import ObjectScores
from wsi_unet.metrics.segmentation import SegmentScores

Kind = Literal["classes", "objects", "segments"]


@dataclass(frozen=True)
class ClassScores:
    """One class; NaN is a score of nothing. See `metrics.confusion` for the definitions.

    Attributes:
        value: of the class in the prediction.
        name: of the class.
        truth_pixels: pixels of it in the truth.
        prediction_pixels: pixels of it in the prediction.
        dice: NaN where the class is in neither, as are the next ones.
        iou: intersection over union.
        precision: NaN also where it was never predicted.
        recall: NaN also where the truth has none.
        pixel_error: share of the pixels that are of the class in just one of both.
        boundary_f1: within the tolerance; NaN without boundaries, or if they weren't asked for.
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
    """How well a prediction agrees with the truth; NaN is a score of nothing.

    Attributes:
        prediction: what was evaluated.
        truth: what it was compared with.
        kind: what its values were taken for: classes, objects, or segments that borders part.
        pixels: how many pixels were compared.
        pixels_left_out: how many of the prediction's weren't: outside of the regions, ignored, or
            not covered by the truth.
        tolerance: of boundaries, px; None if they weren't asked for.
        classes: each class, by value; of objects and segments there are two: them, and the rest.
        confusion: pixels of class i in the truth (rows) and j in the prediction (columns).
        pixel_error: share of pixels whose class is wrong.
        mean_dice: mean over the classes but that of value 0, without those that are in neither.
        mean_iou: the same of IoU.
        mean_boundary_f1: the same of the boundary F1.
        objects: scores of objects, None unless they were asked for.
        segments: scores of segments, None unless they were asked for.
        truth_annotations: what was read of the truth, None unless it is annotations.
        within_annotations: what was read of the regions, None unless there are any.
    """

    prediction: str
    truth: str
    kind: Kind
    pixels: int
    pixels_left_out: int
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

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document; NaN becomes null."""
        document: dict[str, Any] = _without_nan(dataclasses.asdict(self))
        return document


def score_classes(
    names: Mapping[int, str], matrix: NDArray[np.int64], boundaries: Boundaries | None
) -> tuple[ClassScores, ...]:
    """Score every class of a confusion matrix.

    Args:
        names: {value: name} in the order of the matrix's rows.
        matrix: (k, k) pixels, rows are truth.
        boundaries: by value; None if they weren't counted.
    """
    scores = []
    for number, (value, name) in enumerate(names.items()):
        found = class_pixels(matrix, number)
        edge = None if boundaries is None else boundaries.get(value, BoundaryPixels())
        scores.append(
            ClassScores(
                value=value,
                name=name,
                truth_pixels=found.tp + found.fn,
                prediction_pixels=found.tp + found.fp,
                dice=found.dice,
                iou=found.iou,
                precision=found.precision,
                recall=found.recall,
                pixel_error=found.pixel_error,
                boundary_f1=math.nan if edge is None else edge.f1,
            )
        )
    return tuple(scores)


def summary_of(scores: tuple[ClassScores, ...], matrix: NDArray[np.int64]) -> dict[str, Any]:
    """Return what an `Evaluation` says of all classes together."""
    counted = [one for one in scores if one.value != 0]
    return {
        "pixels": int(matrix.sum()),
        "classes": scores,
        "confusion": tuple(tuple(row) for row in matrix.tolist()),
        "pixel_error": pixel_error(matrix),
        "mean_dice": mean_of([one.dice for one in counted]),
        "mean_iou": mean_of([one.iou for one in counted]),
        "mean_boundary_f1": mean_of([one.boundary_f1 for one in counted]),
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
