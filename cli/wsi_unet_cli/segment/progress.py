"""The progress display of a run, of one slide or of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_unet.wording import count
from wsi_unet_cli.common.output import duration
from wsi_unet_cli.common.progress import Snapshot

if TYPE_CHECKING:
    from wsi_unet import CohortProgress
    from wsi_unet.segmentation.report import RunProgress


def describe_run(progress: RunProgress) -> Snapshot:
    """Describe how far one slide is."""
    return Snapshot(
        figures=_run_figures(progress),
        phase=progress.phase,
        done=progress.blocks_done + progress.blocks_failed,
        total=progress.blocks_total or None,
        seconds=progress.seconds,
        state=progress.phase,
    )


def describe_planning(progress: RunProgress) -> Snapshot:
    """Describe what is done to plan one of many slides; only what takes a while has a line."""
    state = None if progress.phase == "opening" else progress.phase
    return Snapshot(figures=progress.slide, phase=progress.phase, state=state)


def describe_cohort(progress: CohortProgress, seconds_left: float | None) -> Snapshot:
    """Describe how far a cohort is, and each of the slides being worked on.

    Args:
        progress: how far it is.
        seconds_left: estimate of the time left; None: unknown.
    """
    return Snapshot(
        figures=_cohort_figures(progress, seconds_left),
        done=progress.slides_done,
        total=progress.slides_total,
        seconds=progress.seconds,
        active=tuple((slide.slide, describe_run(slide)) for slide in progress.active),
    )


def _run_figures(progress: RunProgress) -> str:
    """Return blocks, speed, time left and how busy the device is, as far as they are known."""
    if not progress.blocks_total:
        return ""
    words = [f"{progress.blocks_done}/{count(progress.blocks_total, 'block')}"]
    if progress.blocks_failed:
        words.append(f"{progress.blocks_failed} failed")
    if progress.mpx_per_s:
        words.append(f"{progress.mpx_per_s:.2f} Mpx/s")
    if progress.seconds_left:
        words.append(f"{duration(progress.seconds_left)} left")
    if progress.device_busy:
        words.append(f"device {100 * progress.device_busy:.0f} % busy")
    return " · ".join(words)


def _cohort_figures(progress: CohortProgress, seconds_left: float | None) -> str:
    """Return slides, speed, time left and how busy the devices are, as far as they are known."""
    if progress.slides_total is None:
        words = [count(progress.slides_done, "slide")]
    else:
        words = [f"{progress.slides_done}/{count(progress.slides_total, 'slide')}"]
    if progress.slides_failed:
        words.append(f"{progress.slides_failed} failed")
    if progress.blocks_done:
        words.append(f"{progress.blocks_per_s:.2f} blocks/s")
        words.append(f"{progress.mpx_per_s:.2f} Mpx/s")
    if seconds_left:
        words.append(f"{duration(seconds_left)} left")
    if progress.device_busy:
        words.append(f"device {100 * progress.device_busy:.0f} % busy")
    return " · ".join(words)
