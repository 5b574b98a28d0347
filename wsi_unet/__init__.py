"""Exact, resumable U-Net segmentation of whole slides into pyramidal OME-Zarr.

    >>> import wsi_unet
    >>> report = wsi_unet.segment("slide.svs", model="nuclei-he")  # doctest: +SKIP
    >>> labels = wsi_unet.open_labels(report.output)               # doctest: +SKIP

The public verbs live here and are loaded when first used (PEP 562), so that importing the
package costs next to nothing and torch is imported only to run a model.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.clusters.cluster import ClusterOptions
    from wsi_unet.cohorts.manifest import read_cohort
    from wsi_unet.cohorts.planning import plan_cohort
    from wsi_unet.cohorts.report import CohortReport
    from wsi_unet.errors import (
        AnnotationError,
        BlockError,
        ClusterError,
        EvaluationError,
        InputError,
        MaskError,
        ModelError,
        OptionError,
        OutputError,
        PlanError,
        RecipeError,
        SignatureError,
        SlideError,
        TrainingError,
        WsiUnetError,
    )
    from wsi_unet.evaluation import Evaluation, evaluate
    from wsi_unet.labels import open_labels, open_probabilities
    from wsi_unet.models import Model, bundled_models, load_model, save_model
    from wsi_unet.segment.cohort import Outcome, segment_cohort
    from wsi_unet.segment.lazy import map_unet
    from wsi_unet.segment.options import Options
    from wsi_unet.segment.plan import Plan
    from wsi_unet.segment.prepare import SlideJob
    from wsi_unet.segment.report import CohortProgress, Report, RunProgress
    from wsi_unet.segment.run import plan, segment
    from wsi_unet.segment.status import RunStatus, run_status
    from wsi_unet.slides import Slide, open_slide
    from wsi_unet.training import Training, train
    from wsi_unet.view import write_overlay

__version__ = "0.1.0"

_HOMES = {
    "wsi_unet.errors": (
        "AnnotationError",
        "BlockError",
        "ClusterError",
        "EvaluationError",
        "InputError",
        "MaskError",
        "ModelError",
        "OptionError",
        "OutputError",
        "PlanError",
        "RecipeError",
        "SignatureError",
        "SlideError",
        "TrainingError",
        "WsiUnetError",
    ),
    "wsi_unet.evaluation": ("Evaluation", "evaluate"),
    "wsi_unet.labels": ("open_labels", "open_probabilities"),
    "wsi_unet.models": ("Model", "bundled_models", "load_model", "save_model"),
    "wsi_unet.clusters.cluster": ("ClusterOptions",),
    "wsi_unet.segment.cohort": ("Outcome", "segment_cohort"),
    "wsi_unet.cohorts.report": ("CohortReport",),
    "wsi_unet.segment.lazy": ("map_unet",),
    "wsi_unet.cohorts.manifest": ("read_cohort",),
    "wsi_unet.segment.options": ("Options",),
    "wsi_unet.segment.plan": ("Plan",),
    "wsi_unet.cohorts.planning": ("plan_cohort",),
    "wsi_unet.segment.prepare": ("SlideJob",),
    "wsi_unet.segment.report": ("CohortProgress", "Report", "RunProgress"),
    "wsi_unet.segment.run": ("plan", "segment"),
    "wsi_unet.segment.status": ("RunStatus", "run_status"),
    "wsi_unet.slides": ("Slide", "open_slide"),
    "wsi_unet.training": ("Training", "train"),
    "wsi_unet.view": ("write_overlay",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AnnotationError",
    "BlockError",
    "ClusterError",
    "ClusterOptions",
    "CohortProgress",
    "CohortReport",
    "Evaluation",
    "EvaluationError",
    "InputError",
    "MaskError",
    "Model",
    "ModelError",
    "OptionError",
    "Options",
    "Outcome",
    "OutputError",
    "Plan",
    "PlanError",
    "RecipeError",
    "Report",
    "RunProgress",
    "RunStatus",
    "SignatureError",
    "Slide",
    "SlideError",
    "SlideJob",
    "Training",
    "TrainingError",
    "WsiUnetError",
    "__version__",
    "bundled_models",
    "evaluate",
    "load_model",
    "map_unet",
    "open_labels",
    "open_probabilities",
    "open_slide",
    "plan",
    "plan_cohort",
    "read_cohort",
    "run_status",
    "save_model",
    "segment",
    "segment_cohort",
    "train",
    "write_overlay",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that it lives in."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


class _Package(ModuleType):
    """This package: where a verb and a folder share a name (`segment`), the verb has it.

    Importing a submodule binds its name in the package it lies in, which would turn
    `wsi_unet.segment(...)` into a call of a module, depending on what was imported before.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
