"""Evaluating a prediction, from what it is to what it is worth."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypedDict, Unpack

import numpy as np
from dask.delayed import Delayed
from numpy.typing import NDArray

from wsi_unet import logs
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.errors import EvaluationError, OptionError
from wsi_unet.evaluation.classes import GivenClasses, Key, resolve_classes
from wsi_unet.evaluation.compute import Compute
from wsi_unet.evaluation.counting import Kinds, count_classes, count_objects, has_several_values
from wsi_unet.evaluation.pairs import Comparison, Pair, open_pair
from wsi_unet.evaluation.report import Evaluation, Kind, score_classes, summary_of
from wsi_unet.geometry import Box
from wsi_unet.ground_truth.drawing import annotation_path
from wsi_unet.ground_truth.grids import Region
from wsi_unet.ground_truth.sources import Labels
from wsi_unet.metrics.boundaries import count_boundaries
from wsi_unet.metrics.confusion import confusion_matrix
from wsi_unet.metrics.instances import score_objects
from wsi_unet.metrics.overlaps import Overlaps, count_overlaps
from wsi_unet.metrics.segmentation import score_segments, segments_of, thin_boundaries

MOST_OF_SEGMENTS = 1 << 26
"""Pixels whose borders are thinned at once: 8192 x 8192."""
LARGEST_TOLERANCE = 256.0
"""px"""


class EvaluationArguments(TypedDict, total=False):
    """The keyword arguments of `evaluate`; see `EvaluationOptions` for each."""

    instances: bool
    em: bool
    classes: GivenClasses | None
    ignore: Iterable[Key]
    region: Region | None
    within: str | os.PathLike[str] | None
    tolerance: float | None
    label: str | None
    truth_label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What is compared, and how.

    Attributes:
        instances: score objects. Values of images are the numbers of objects (of an image with
            just one value, its connected parts are), every annotation is an object, and of class
            labels the connected parts of one class are.
        em: score segments that borders part, of value 0: V_rand, V_info and the Rand error. The
            area is read as a whole.
        classes: what a class is, by name: its value or name in the prediction, or a tuple of that
            and its value or name in the truth. Where both have names, equal names need no mention.
        ignore: values or names in the truth whose pixels aren't compared.
        region: (x, y, width, height) outside of which nothing is compared, full-resolution px.
        within: GeoJSON or ASAP XML outside of whose outlines nothing is compared.
        tolerance: distance up to which boundaries agree, px of the prediction; None to do without.
        label: the label group of the prediction, if it holds several.
        truth_label: the same of the truth.
    """

    instances: bool = False
    em: bool = False
    classes: GivenClasses | None = None
    ignore: Iterable[Key] = ()
    region: Region | None = None
    within: str | os.PathLike[str] | None = None
    tolerance: float | None = 2.0
    label: str | None = None
    truth_label: str | None = None

    def __post_init__(self) -> None:
        if self.instances and self.em:
            raise OptionError("instances and em: choose one of them")
        if self.classes and (self.instances or self.em):
            raise OptionError("classes: objects and segments are scored whatever their class")
        if self.tolerance is not None and not 0 <= self.tolerance <= LARGEST_TOLERANCE:
            raise OptionError(f"tolerance {self.tolerance:g} px: choose 0 to {LARGEST_TOLERANCE:g}")

    @property
    def kind(self) -> Kind:
        """What is scored."""
        return "objects" if self.instances else "segments" if self.em else "classes"


def evaluate(
    prediction: Labels,
    truth: Labels,
    *,
    cluster: ClusterOptions | None = None,
    **options: Unpack[EvaluationArguments],
) -> Evaluation:
    """Compare a prediction with the truth, on the prediction's pixels.

    >>> found = evaluate("slide.ome.zarr", "annotations.geojson")    # doctest: +SKIP
    >>> found.mean_dice, found.to_json()                             # doctest: +SKIP

    Args:
        prediction: a label OME-Zarr of ours, a PNG or TIFF, or what `open_labels` returned.
        truth: the same, or GeoJSON or ASAP XML with outlines in full-resolution px of the slide.
        cluster: worker processes or a cluster that count; None, and workers "auto", for threads
            of this process. Other processes open prediction and truth by themselves, so these
            must be files or URLs that they see.
        options: see `EvaluationOptions`.

    Raises:
        EvaluationError: they can't be read or compared, or there is nothing to compare.
        AnnotationError: annotations can't be read, or lie outside of the slide.
        OptionError: an option that can't be used; a cluster that can't be, or can't see the files.
        ClusterError: the cluster can't be started, or went away.
        OutputError: a folder is no output of ours, or has no such label group.
    """
    given, cluster = EvaluationOptions(**options), cluster or ClusterOptions()
    if is_wanted(cluster) and given.em:
        raise OptionError(
            "em: segments are scored as a whole, in this process; leave workers and scheduler out"
        )
    question = Comparison(
        prediction=prediction,
        truth=truth,
        label=given.label,
        truth_label=given.truth_label,
        ignore=tuple(given.ignore),
        region=given.region,
        within=None if given.within is None else annotation_path(given.within),
    )
    with computing(question, cluster) as (pair, compute):
        if given.kind == "objects":
            found = _of_objects(pair, given.tolerance, compute)
        elif given.kind == "segments":
            found = _of_segments(pair, given.tolerance)
        else:
            found = _of_classes(pair, given.classes or {}, given.tolerance, compute)
    pixels = Box.of_shape(pair.prediction.grid.shape).area
    logs.event(
        "evaluated", prediction=pair.prediction.name, truth=pair.truth.name, pixels=found["pixels"]
    )
    return Evaluation(
        prediction=pair.prediction.name,
        truth=pair.truth.name,
        kind=given.kind,
        pixels_left_out=pixels - found["pixels"],
        tolerance=given.tolerance,
        truth_annotations=pair.truth.drawn,
        within_annotations=None if pair.within is None else pair.within.facts,
        **found,
    )


def is_wanted(cluster: ClusterOptions) -> bool:
    """Whether other processes are asked for; "auto" means GPUs, which have nothing to do here.

    Raises:
        OptionError: a report is asked for that only a cluster gives.
    """
    wanted = isinstance(cluster.workers, int) or cluster.scheduler is not None
    if cluster.performance_report is not None and not wanted:
        raise OptionError("performance_report: it is a cluster's; give workers or a scheduler, too")
    return wanted


@contextmanager
def computing(question: Comparison, cluster: ClusterOptions) -> Iterator[tuple[Pair, Compute]]:
    """Open what is compared, and yield how to compute on it.

    Raises:
        OptionError: the cluster can't be used, or can't see the files, or the labels aren't files.
        ClusterError: it can't be started, or went away.
        WsiUnetError: see `open_pair`.
    """
    if not is_wanted(cluster):
        pair = open_pair(question)
        yield pair, Compute(lambda: pair, partial(Delayed.compute, scheduler="threads"))
        return
    # Dask's cluster, and torch, take seconds to import that most comparisons don't need.
    from wsi_unet.evaluation.cluster import computing_on_cluster

    with computing_on_cluster(question, cluster) as found:
        yield found


def _of_classes(
    pair: Pair, given: GivenClasses, tolerance: float | None, compute: Compute
) -> dict[str, Any]:
    classes = resolve_classes(
        pair.prediction.name, pair.prediction.classes, pair.truth, given, pair.ignored
    )
    counts = count_classes(pair.blocks(), classes, tolerance, compute)
    _refuse_nothing(pair, counts.overlaps)
    there = np.union1d(counts.overlaps.truth, counts.overlaps.prediction).tolist()
    names = classes.names or {value: str(value) for value in there}
    _refuse_others(pair, counts.overlaps, names)
    matrix = confusion_matrix(counts.overlaps, list(names))
    boundaries = None if tolerance is None else counts.boundaries
    return summary_of(score_classes(names, matrix, boundaries), matrix)


def _refuse_others(pair: Pair, overlaps: Overlaps, names: Mapping[int, str]) -> None:
    """Refuse values that are no class.

    Raises:
        EvaluationError: names the first of them and how many pixels have it.
    """
    for name, values in (
        (pair.prediction.name, overlaps.prediction),
        (pair.truth.name, overlaps.truth),
    ):
        others = sorted({*values.tolist()} - {*names})
        if others:
            pixels = int(overlaps.pixels[values == others[0]].sum())
            known = ", ".join(f"{value} {one!r}" for value, one in names.items())
            raise EvaluationError(
                f"{name}: {pixels} px have the value {others[0]}, which is none of the classes "
                f"({known}); name it with --classes, or leave it out with --ignore {others[0]}"
            )


def _of_objects(pair: Pair, tolerance: float | None, compute: Compute) -> dict[str, Any]:
    blocks = pair.blocks()
    drawn = pair.truth.drawn is not None
    asked = (pair.truth.numbered and not drawn, pair.prediction.classes is None)
    several = has_several_values(blocks, compute) if any(asked) else (False, False)
    kinds = Kinds(drawn or (asked[0] and several[0]), asked[1] and several[1])
    counts = count_objects(blocks, kinds, tolerance, compute)
    _refuse_nothing(pair, counts.overlaps)
    names = {0: "background", 1: "objects"}
    matrix = _of_two(counts.overlaps, names)
    boundaries = None if tolerance is None else counts.boundaries
    scores = score_classes(names, matrix, boundaries)
    return {**summary_of(scores, matrix), "objects": score_objects(counts.overlaps)}


def _of_segments(pair: Pair, tolerance: float | None) -> dict[str, Any]:
    if pair.area.area > MOST_OF_SEGMENTS:
        raise EvaluationError(
            f"{pair.prediction.name}: {pair.area.shape[1]} x {pair.area.shape[0]} px are too many "
            "for --em, which thins all borders at once; give a --region"
        )
    pixels = pair.read(pair.area)
    truth, prediction = (segments_of(values) for values in pixels.objects)
    raw = count_overlaps(truth, prediction, pixels.valid)
    _refuse_nothing(pair, raw)
    thin = count_overlaps(thin_boundaries(truth), thin_boundaries(prediction), pixels.valid)
    names = {0: "border", 1: "segments"}
    matrix = _of_two(raw, names)
    boundaries = None
    if tolerance is not None:
        whole = Box.of_shape(pair.area.shape)
        boundaries = count_boundaries(truth > 0, prediction > 0, pixels.valid, whole, tolerance)
    scores = score_classes(names, matrix, boundaries)
    segments = replace(score_segments(thin), rand_error=score_segments(raw).rand_error)
    return {**summary_of(scores, matrix), "segments": segments}


def _of_two(overlaps: Overlaps, names: Mapping[int, str]) -> NDArray[np.int64]:
    """Return the confusion matrix of something, 1, and the rest, 0."""
    two = Overlaps.of(
        (overlaps.truth > 0).astype(np.int64),
        (overlaps.prediction > 0).astype(np.int64),
        overlaps.pixels,
    )
    return confusion_matrix(two, list(names))


def _refuse_nothing(pair: Pair, overlaps: Overlaps) -> None:
    if not overlaps.total:
        raise EvaluationError(
            f"{pair.prediction.name} and {pair.truth.name} have no pixel in common to compare; "
            "check that they are of one slide, and the regions and what is ignored"
        )
