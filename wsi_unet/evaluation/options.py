"""What `evaluate` compares, and how."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.errors import OptionError
from wsi_unet.evaluation.class_mapping import ClassId, GivenClasses
from wsi_unet.evaluation.report import EvaluationKind
from wsi_unet.ground_truth.grids import Region
from wsi_unet.locations import Location

LARGEST_TOLERANCE = 256.0
"""px"""


class EvaluationArguments(TypedDict, total=False):
    """The keyword arguments of `evaluate`; `EvaluationOptions` describes each."""

    instances: bool
    em: bool
    classes: GivenClasses | None
    ignore: Iterable[ClassId]
    region: Region | None
    within: str | os.PathLike[str] | Location | None
    tolerance: float | None
    label: str | None
    truth_label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What is compared, and how.

    Attributes:
        instances: score objects. Values of images are numbers of objects (if an image holds just
            one value, its connected components are the objects), every annotation is an object,
            and of class labels, those that `find_objects` has stored are, if they belong to the
            labels as they are, or else the connected components of each class.
        em: score segments that membranes (value 0) separate: V_rand, V_info and the Rand error. The
            area is read as a whole.
        classes: by a class's name, its value or name in the prediction, or a tuple of that and its
            value or name in the truth. Classes with equal names on both sides may be left out.
        ignore: values or names in the truth whose pixels aren't compared.
        region: (x, y, width, height) outside of which nothing is compared, full-resolution px.
        within: GeoJSON or ASAP XML outside of whose outlines nothing is compared.
        tolerance: distance up to which boundaries agree, px of the prediction; None leaves
            boundaries out.
        label: label group of the prediction, if it holds several; "nuclei.edited" stands for the
            objects of "nuclei" as people have corrected them (`import_annotations`).
        truth_label: label group of the truth, if it holds several; likewise.
    """

    instances: bool = False
    em: bool = False
    classes: GivenClasses | None = None
    ignore: Iterable[ClassId] = ()
    region: Region | None = None
    within: str | os.PathLike[str] | Location | None = None
    tolerance: float | None = 2.0
    label: str | None = None
    truth_label: str | None = None

    def __post_init__(self) -> None:
        if self.instances and self.em:
            raise OptionError("choose one of `instances` and `em`")
        if self.classes and (self.instances or self.em):
            raise OptionError(
                "`classes` doesn't go with `instances` or `em`: objects and segments are scored "
                "whatever their class",
                option="classes",
            )
        if self.tolerance is not None and not 0 <= self.tolerance <= LARGEST_TOLERANCE:
            raise OptionError(
                f"`tolerance={self.tolerance:g}`: choose 0 to {LARGEST_TOLERANCE:g} px",
                option="tolerance",
            )

    @property
    def kind(self) -> EvaluationKind:
        """What is scored."""
        return "objects" if self.instances else "segments" if self.em else "classes"


def needs_cluster(cluster: ClusterOptions) -> bool:
    """Return whether other processes are to compute; `workers="auto"` asks for GPUs, so for none.

    Raises:
        OptionError: a performance report is wanted, which only a cluster makes.
    """
    needed = isinstance(cluster.workers, int) or cluster.scheduler is not None
    if cluster.performance_report is not None and not needed:
        raise OptionError(
            "`performance_report` needs a Dask cluster; give `workers` or `scheduler`, too",
            option="performance_report",
        )
    return needed
