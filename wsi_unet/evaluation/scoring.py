"""Scores of a pair's classes, objects or segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.errors import EvaluationError
from wsi_unet.evaluation.class_mapping import GivenClasses, map_classes
from wsi_unet.evaluation.counting import (
    Numbering,
    Unpredicted,
    count_classes,
    count_objects,
    has_several_values,
)
from wsi_unet.evaluation.map_reduce import MapReduce
from wsi_unet.evaluation.pairs import AreaBoxes, Pair
from wsi_unet.evaluation.report import ObjectSource, score_classes, summarise_classes
from wsi_unet.geometry import Box
from wsi_unet.logs import warn
from wsi_unet.metrics.boundaries import count_boundaries
from wsi_unet.metrics.confusion import confusion_matrix
from wsi_unet.metrics.instances import score_objects
from wsi_unet.metrics.overlaps import Overlaps, count_overlaps
from wsi_unet.metrics.segments import label_segments, score_segments, thin_membranes
from wsi_unet.wording import write_size

MAX_SEGMENT_PIXELS = 1 << 26
"""Largest area whose membranes are thinned, as a whole: 8192 x 8192 px."""

Fields = dict[str, Any]
"""Fields of `Evaluation`."""


def evaluate_classes(
    pair: Pair, given: GivenClasses, tolerance: float | None, map_reduce: MapReduce
) -> Fields:
    """Score the classes of a pair.

    Args:
        pair: prediction and truth.
        given: the classes as the caller gave them.
        tolerance: tolerance of boundaries, px; None leaves them out.
        map_reduce: counts the boxes of the pair.

    Raises:
        EvaluationError: a value isn't a class, or there is nothing to compare.
        OptionError: the caller names a class that doesn't exist.
    """
    mapping = map_classes(
        pair.prediction.name, pair.prediction.classes, pair.truth, given, pair.ignored
    )
    counts = count_classes(pair.cut(), mapping, tolerance, map_reduce)
    _refuse_empty(pair, counts.overlaps)
    values = np.union1d(counts.overlaps.truth, counts.overlaps.prediction).tolist()
    names = mapping.names or {value: str(value) for value in values}
    _refuse_unknown_values(pair, counts.overlaps, names)
    matrix = confusion_matrix(counts.overlaps, list(names))
    boundaries = None if tolerance is None else counts.boundaries
    scores = score_classes(names, matrix, boundaries)
    _warn_of_absent_classes(pair, given, names, matrix)
    return {**summarise_classes(scores, matrix), **_report_unpredicted(counts.unpredicted)}


def _warn_of_absent_classes(
    pair: Pair, given: GivenClasses, names: Mapping[int, str], matrix: NDArray[np.int64]
) -> None:
    """Warn of classes that the caller gave and that have no pixel, which may be a slip."""
    prediction, truth = pair.prediction.name, pair.truth.name
    said = {key[0] if isinstance(key, tuple) else key for key in given.values()}
    for (value, name), true, predicted in zip(
        names.items(), matrix.sum(axis=1), matrix.sum(axis=0), strict=True
    ):
        if predicted or not {value, name} & said:
            continue
        if not true:
            warn(
                f"class {name!r} (value {value}) is nowhere in {prediction} and {truth}, so it has "
                "no score and isn't in the mean"
            )
        elif pair.prediction.classes is None:
            warn(f"class {name!r}: {prediction} has no pixel of value {value}; check `classes`")


def evaluate_objects(pair: Pair, tolerance: float | None, map_reduce: MapReduce) -> Fields:
    """Score the objects of a pair.

    Args:
        pair: prediction and truth.
        tolerance: tolerance of boundaries, px; None leaves them out.
        map_reduce: counts the boxes of the pair.

    Raises:
        EvaluationError: there is nothing to compare.
    """
    boxes = pair.cut()
    truth, prediction = _find_objects(pair, boxes, map_reduce)
    numbering = Numbering(truth != "components", prediction != "components", pair.tables)
    counts = count_objects(boxes, numbering, tolerance, map_reduce)
    _refuse_empty(pair, counts.overlaps)
    names = {0: "background", 1: "objects"}
    matrix = _foreground_matrix(counts.overlaps, names)
    scores = score_classes(names, matrix, None if tolerance is None else counts.boundaries)
    return {
        **summarise_classes(scores, matrix),
        **_report_unpredicted(counts.unpredicted),
        "objects": score_objects(counts.overlaps),
        "truth_objects": truth,
        "prediction_objects": prediction,
    }


def _find_objects(
    pair: Pair, boxes: AreaBoxes, map_reduce: MapReduce
) -> tuple[ObjectSource, ObjectSource]:
    """Return what the objects of truth and prediction are."""
    truth: ObjectSource = "components" if pair.truth.annotations is None else "annotations"
    prediction: ObjectSource = "components"
    may_be_numbered = (
        truth == "components" and pair.truth.numbered,
        pair.prediction.classes is None,
    )
    # An image with one value besides 0 is a mask, whose components are the objects.
    several = has_several_values(boxes, map_reduce) if any(may_be_numbered) else (False, False)
    if may_be_numbered[0] and several[0]:
        truth = "values"
    if may_be_numbered[1] and several[1]:
        prediction = "values"
    stored = [each is not None for each in pair.stored]
    return "stored" if stored[0] else truth, "stored" if stored[1] else prediction


def evaluate_segments(pair: Pair, tolerance: float | None) -> Fields:
    """Score the segments of a pair, which is read as a whole.

    Args:
        pair: prediction and truth.
        tolerance: tolerance of boundaries, px; None leaves them out.

    Raises:
        EvaluationError: the area is too large, or there is nothing to compare.
    """
    if pair.area.area > MAX_SEGMENT_PIXELS:
        raise EvaluationError(
            f"{pair.prediction.name}: {write_size(pair.area.shape)} are too many "
            "for `em`, which thins all membranes at once; give a `region`"
        )
    pixels = pair.read(pair.area)
    truth, prediction = (label_segments(values) for values in pixels.objects)
    drawn = count_overlaps(truth, prediction, pixels.valid)
    _refuse_empty(pair, drawn)
    thinned = count_overlaps(thin_membranes(truth), thin_membranes(prediction), pixels.valid)
    names = {0: "border", 1: "segments"}
    matrix = _foreground_matrix(drawn, names)
    boundaries = None
    if tolerance is not None:
        whole = Box.from_shape(pair.area.shape)
        boundaries = count_boundaries(truth > 0, prediction > 0, pixels.valid, whole, tolerance)
    scores = score_classes(names, matrix, boundaries)
    segments = replace(score_segments(thinned), rand_error=score_segments(drawn).rand_error)
    unpredicted = Unpredicted.count(pixels.truth, pixels.unpredicted)
    return {
        **summarise_classes(scores, matrix),
        **_report_unpredicted(unpredicted),
        "segments": segments,
    }


def _report_unpredicted(unpredicted: Unpredicted) -> Fields:
    return {
        "pixels_not_predicted": unpredicted.pixels,
        "class_pixels_not_predicted": unpredicted.in_class,
    }


def _refuse_unknown_values(pair: Pair, overlaps: Overlaps, names: Mapping[int, str]) -> None:
    """Refuse values that aren't classes.

    Raises:
        EvaluationError: names the first of them and how many pixels have it.
    """
    for name, values in (
        (pair.prediction.name, overlaps.prediction),
        (pair.truth.name, overlaps.truth),
    ):
        unknown = sorted({*values.tolist()} - {*names})
        if unknown:
            pixels = int(overlaps.pixels[values == unknown[0]].sum())
            known = ", ".join(f"{value} {item!r}" for value, item in names.items())
            raise EvaluationError(
                f"{name}: {pixels} px have the value {unknown[0]}, which is none of the classes "
                f"({known}); name it with `classes`, or leave it out with `ignore={unknown[0]}`"
            )


def _foreground_matrix(overlaps: Overlaps, names: Mapping[int, str]) -> NDArray[np.int64]:
    """Return the confusion matrix of background, 0, and all labels above it, 1."""
    foreground = Overlaps.from_pairs(
        (overlaps.truth > 0).astype(np.int64),
        (overlaps.prediction > 0).astype(np.int64),
        overlaps.pixels,
    )
    return confusion_matrix(foreground, list(names))


def _refuse_empty(pair: Pair, overlaps: Overlaps) -> None:
    if not overlaps.total:
        raise EvaluationError(
            f"{pair.prediction.name} and {pair.truth.name} have no pixel in common to compare; "
            "check that they are of one slide, the regions, what is ignored, and that the model "
            "looked there at all"
        )
