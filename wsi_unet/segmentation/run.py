"""One slide, start to end. The verbs that callers use are `plan` and `segment`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Unpack

from wsi_unet.dask_cluster.cluster import ClusterArguments, ClusterOptions, open_client
from wsi_unet.errors import OptionError
from wsi_unet.models.checkpoint import Model
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

Source = str | Path | Model
"""A bundled model's name, the path of a model, or a loaded model."""


class RunArguments(OptionArguments, ClusterArguments, total=False):
    """The keyword arguments of `plan` and `segment`; see `Options` and `ClusterOptions`."""


def plan(
    slide: str | Path,
    output: str | Path | None = None,
    model: Source | Sequence[Source] = "nuclei-he",
    *,
    overwrite: bool = False,
    **options: Unpack[RunArguments],
) -> Plan:
    """Work out what `segment` would do and what it would cost. Nothing is written.

    The arguments are those of `segment`.

    Raises:
        InputError: the slide, the model or an option is unusable.
        OutputError: the output can't be used.
        PlanError: the machine can't afford the run.
        ClusterError: there is no cluster.
    """
    job, cluster = _job(slide, output, model, overwrite, options)
    with open_client(cluster) as client:
        return Preparation(client).plan(job)


def segment(
    slide: str | Path,
    output: str | Path | None = None,
    model: Source | Sequence[Source] = "nuclei-he",
    *,
    overwrite: bool = False,
    on_progress: ProgressCallback = ignore_progress,
    **options: Unpack[RunArguments],
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
        overwrite: replace what is there under the model's name, if it differs or not.
        on_progress: called several times per second.
        options: see `Options` and `ClusterOptions`.

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
    job, cluster = _job(slide, output, model, overwrite, options)

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
    model: Source | Sequence[Source],
    overwrite: bool,
    arguments: RunArguments,
) -> tuple[SlideJob, ClusterOptions]:
    """Tell the options of the run from those of the cluster."""
    models = [model] if isinstance(model, str | Path | Model) else model
    if not models:
        raise OptionError("model: name one, or several to be averaged")
    if any(isinstance(one, Model) and one.trusted for one in models):
        arguments = {**arguments, "trust": True}
    names = {field.name for field in fields(ClusterOptions)}
    given: dict[str, Any] = dict(arguments)
    cluster = ClusterOptions(**{name: given.pop(name) for name in names & given.keys()})
    job = SlideJob(
        slide=str(slide),
        output=None if output is None else str(output),
        model=_place(models[0]),
        others=tuple(map(_place, models[1:])),
        options=Options(**given),
        overwrite=overwrite,
    )
    return job, cluster


def _place(model: Source) -> str:
    """Return what workers find a model by."""
    return str(model.path if isinstance(model, Model) else model)
