"""Planning and running segmentations; the public names load on first use (PEP 562)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_unet.segment.cluster import ClusterOptions
    from wsi_unet.segment.cohort import Outcome, segment_cohort
    from wsi_unet.segment.lazy import map_unet
    from wsi_unet.segment.options import Options
    from wsi_unet.segment.plan import Plan
    from wsi_unet.segment.report import CohortProgress, Report, RunProgress
    from wsi_unet.segment.prepare import SlideJob, default_output
    from wsi_unet.segment.run import plan, segment
    from wsi_unet.segment.status import RunStatus, run_status

_HOME_OF = {
    "ClusterOptions": "cluster",
    "CohortProgress": "report",
    "Outcome": "cohort",
    "SlideJob": "prepare",
    "segment_cohort": "cohort",
    "Options": "options",
    "Plan": "plan",
    "Report": "report",
    "RunProgress": "report",
    "RunStatus": "status",
    "default_output": "prepare",
    "map_unet": "lazy",
    "plan": "run",
    "run_status": "status",
    "segment": "run",
}

__all__ = [
    "ClusterOptions",
    "CohortProgress",
    "Outcome",
    "SlideJob",
    "segment_cohort",
    "Options",
    "Plan",
    "Report",
    "RunProgress",
    "RunStatus",
    "default_output",
    "map_unet",
    "plan",
    "run_status",
    "segment",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that it lives in."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
