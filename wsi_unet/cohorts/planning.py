"""The plans of many slides, made on one cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.segmentation.planning.plan import Plan
from wsi_unet.segmentation.report import ProgressCallback, RunProgress, ignore_progress
from wsi_unet.segmentation.runs.jobs import SlideJob
from wsi_unet.segmentation.runs.preparation import Preparation


def plan_cohort(
    jobs: Iterable[SlideJob],
    cluster: ClusterOptions | None = None,
    *,
    on_progress: ProgressCallback = ignore_progress,
) -> Iterator[tuple[SlideJob, Plan | Exception]]:
    """Plan what `segment_cohort` would do with each slide. Nothing is written.

    Slides of about the same size are measured only once.

    Args:
        jobs: the slides; taken one by one.
        cluster: where they would be computed; None is this process.
        on_progress: called when something begins that takes a while.

    Yields:
        Each job with its plan, or with what is wrong with the slide.

    Raises:
        OptionError: an option of the cluster is unusable.
        ClusterError: there is no cluster.
    """
    with open_client(cluster) as client:
        preparation = Preparation(client)
        for job in jobs:
            on_progress(RunProgress("opening", slide=job.slide))

            def show(phase: str, slide: str = job.slide) -> None:
                on_progress(RunProgress(phase, slide=slide))

            try:
                planned: Plan | Exception = preparation.plan(job, show)
            except Exception as error:  # whatever is wrong with one slide, the others are planned
                planned = error
            yield job, planned
