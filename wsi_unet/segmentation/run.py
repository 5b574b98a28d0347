"""One slide, start to end. The verbs that callers use are `plan` and `segment`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.errors import OptionError
from wsi_unet.models.model import Model
from wsi_unet.segmentation.dispatch.prepare import Preparation, SlideJob
from wsi_unet.segmentation.dispatch.slides import segment_cohort
from wsi_unet.segmentation.planning.options import OptionArguments, Options
from wsi_unet.segmentation.planning.plan import Plan
from wsi_unet.segmentation.report import (
    CohortProgress,
    ProgressCallback,
    Report,
    RunProgress,
    ignore_progress,
)

ModelSource = str | Path | Model
"""A bundled model's name, the path of a model, or a loaded model."""


def plan(
    slide: str | Path,
    output: str | Path | None = None,
    model: ModelSource | Sequence[ModelSource] = "nuclei-he",
    *,
    cluster: ClusterOptions | None = None,
    overwrite: bool = False,
    **options: Unpack[OptionArguments],
) -> Plan:
    """Work out what `segment` would do and what it would cost. Nothing is written.

    The arguments are those of `segment`.

    Raises:
        InputError: the slide, the model or an option is unusable.
        OutputError: the output can't be used.
        PlanError: the machine can't afford the run.
        ClusterError: there is no cluster.
    """
    job = _job(slide, output, model, overwrite, options)
    with open_client(cluster) as client:
        return Preparation(client).plan(job)


def segment(
    slide: str | Path,
    output: str | Path | None = None,
    model: ModelSource | Sequence[ModelSource] = "nuclei-he",
    *,
    cluster: ClusterOptions | None = None,
    overwrite: bool = False,
    on_progress: ProgressCallback = ignore_progress,
    **options: Unpack[OptionArguments],
) -> Report:
    """Segment a slide into a pyramidal OME-Zarr; doing it again does only what is left.

    The labels are those of one forward pass over the whole slide, however it is cut into tiles
    and whatever happens on the way.

    Args:
        slide: path or URL of a slide that `open_slide` opens.
        output: path or URL of the OME-Zarr to write; None is `<stem>.ome.zarr` in the current
            folder.
        model: a bundled model's name, the path of a model, or a loaded one; or several, whose
            probabilities are averaged.
        cluster: where to compute; None is this process.
        overwrite: replace what is there under the model's name, if it differs or not.
        on_progress: called several times per second.
        options: see `Options`.

    Returns:
        What was done; `state` says whether it is finished. KeyboardInterrupt ends the run early
        with state "interrupted".

    Raises:
        InputError: the slide, the model or an option is unusable.
        OutputError: the output can't be used; nothing in it was changed.
        PlanError: the machine can't afford the run; nothing was written.
        ClusterError: there is no cluster, or it went away.
        KeyboardInterrupt: somebody ended the run before its first block.
    """
    job = _job(slide, output, model, overwrite, options)

    def tell(progress: CohortProgress) -> None:
        on_progress(progress.active[0] if progress.active else RunProgress("opening"))

    for outcome in segment_cohort([job], cluster, on_progress=tell):
        if outcome.error is not None:
            raise outcome.error
        if outcome.report is not None:
            return outcome.report
    raise KeyboardInterrupt


def _job(
    slide: str | Path,
    output: str | Path | None,
    model: ModelSource | Sequence[ModelSource],
    overwrite: bool,
    options: OptionArguments,
) -> SlideJob:
    models = [model] if isinstance(model, str | Path | Model) else model
    if not models:
        raise OptionError("model: name one, or several to be averaged")
    if any(isinstance(one, Model) and one.trusted for one in models):
        options = {**options, "trust": True}
    return SlideJob(
        slide=str(slide),
        output=None if output is None else str(output),
        model=_place(models[0]),
        others=tuple(map(_place, models[1:])),
        options=Options(**options),
        overwrite=overwrite,
    )


def _place(model: ModelSource) -> str:
    """Return what workers find a model by."""
    return str(model.path if isinstance(model, Model) else model)
