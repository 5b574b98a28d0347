"""The verbs for one slide: `plan` and `segment`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Unpack

from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.errors import OptionError
from wsi_unet.locations import Location
from wsi_unet.models.model import Model
from wsi_unet.segmentation.planning.options import OptionArguments, Options
from wsi_unet.segmentation.planning.plan import Plan
from wsi_unet.segmentation.report import (
    CohortProgress,
    ProgressCallback,
    Report,
    RunProgress,
    ignore_progress,
)
from wsi_unet.segmentation.runs.cohort import segment_cohort
from wsi_unet.segmentation.runs.jobs import SlideJob
from wsi_unet.segmentation.runs.preparation import Preparation

SlidePath = str | os.PathLike[str] | Location
"""The path or URL of a slide or an output."""

ModelLike = str | os.PathLike[str] | Model
"""A bundled model's name, the path of a model, or a loaded model."""


def plan(
    slide: SlidePath,
    output: SlidePath | None = None,
    model: ModelLike | Sequence[ModelLike] = "nuclei-he",
    *,
    cluster: ClusterOptions | None = None,
    overwrite: bool = False,
    **options: Unpack[OptionArguments],
) -> Plan:
    """Plan what `segment` would do and what it would cost. Nothing is written.

    The arguments are those of `segment`.

    Raises:
        InputError: the slide, the model or an option is unusable.
        OutputError: the output can't be used.
        PlanError: the machine can't afford the run.
        ClusterError: there is no cluster.
    """
    job = _make_job(slide, output, model, overwrite, options)
    with open_client(cluster) as client:
        return Preparation(client).plan(job)


def segment(
    slide: SlidePath,
    output: SlidePath | None = None,
    model: ModelLike | Sequence[ModelLike] = "nuclei-he",
    *,
    cluster: ClusterOptions | None = None,
    overwrite: bool = False,
    on_progress: ProgressCallback = ignore_progress,
    **options: Unpack[OptionArguments],
) -> Report:
    """Segment a slide into a pyramidal OME-Zarr, resuming an earlier run if there is one.

    The labels are those of one forward pass over the whole slide, however it is cut into tiles
    and whatever happens on the way.

    Args:
        slide: path or URL of a slide that `open_slide` opens.
        output: path or URL of the OME-Zarr to write; None is `<stem>.ome.zarr` in the current
            folder.
        model: a bundled model's name, the path of a model, or a loaded one; or several, whose
            probabilities are averaged.
        cluster: where to compute; None is this process.
        overwrite: replace what is stored under the model's name, whether it differs or not.
        on_progress: called several times per second. KeyboardInterrupt raised in it, or by Ctrl-C,
            ends the run early.
        options: see `Options`.

    Returns:
        What was done; `state` is "interrupted" after an early end.

    Raises:
        InputError: the slide, the model or an option is unusable.
        OutputError: the output can't be used; nothing in it was changed.
        PlanError: the machine can't afford the run; nothing was written.
        ClusterError: there is no cluster, or it went away.
        KeyboardInterrupt: the run was interrupted before its first block.
    """
    job = _make_job(slide, output, model, overwrite, options)

    def show(progress: CohortProgress) -> None:
        on_progress(progress.active[0] if progress.active else RunProgress("opening"))

    for outcome in segment_cohort([job], cluster, on_progress=show):
        if outcome.error is not None:
            raise outcome.error
        if outcome.report is not None:
            return outcome.report
    raise KeyboardInterrupt


def _make_job(
    slide: SlidePath,
    output: SlidePath | None,
    model: ModelLike | Sequence[ModelLike],
    overwrite: bool,
    options: OptionArguments,
) -> SlideJob:
    models = [model] if isinstance(model, str | os.PathLike | Model) else model
    if not models:
        raise OptionError(
            "there is no model: give `model` one, or several to be averaged", option="model"
        )
    if any(isinstance(model, Model) and model.trusted for model in models):
        options = {**options, "trust": True}
    return SlideJob(
        slide=str(slide),
        output=None if output is None else str(output),
        model=_locate_model(models[0]),
        other_models=tuple(map(_locate_model, models[1:])),
        options=Options(**options),
        overwrite=overwrite,
    )


def _locate_model(model: ModelLike) -> str:
    """Return the name or path by which workers find a model."""
    return str(model.path if isinstance(model, Model) else model)
