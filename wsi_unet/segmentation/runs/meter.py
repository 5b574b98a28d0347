"""Measuring the progress of a cohort, with counters that grow as blocks and slides end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.report import CohortProgress, RunProgress, Waits

CohortCallback = Callable[[CohortProgress], None]

PROGRESS_SECONDS = 0.1
"""Seconds between two calls of `on_progress`, at least."""


class CohortMeter:
    """Counts what a cohort has done, and reports it about ten times a second.

    Args:
        slides_total: how many slides there are; None where that isn't known.
        processes: worker processes, which share the time that devices are in use.
        on_progress: called with the progress.
    """

    def __init__(
        self, slides_total: int | None, processes: int, on_progress: CohortCallback
    ) -> None:
        self._slides_total = slides_total
        self._processes = processes
        self._on_progress = on_progress
        self._started = time.perf_counter()
        self._told = 0.0
        self._slides_done = self._slides_failed = self._blocks = self._pixels = 0
        self._waits = Waits()

    def count_block(self, marker: BlockMarker) -> None:
        """Count a block that is done."""
        self._waits += Waits.from_marker(marker)
        self._blocks += 1

    def count_pixels(self, pixels: int) -> None:
        """Count the level-0 label pixels of a slide that isn't active any more."""
        self._pixels += pixels

    def count_slide(self, *, finished: bool) -> None:
        """Count a slide that has ended."""
        self._slides_done += 1
        self._slides_failed += not finished

    def is_due(self) -> bool:
        """Return whether it is time to report the progress again."""
        return time.perf_counter() - self._told >= PROGRESS_SECONDS

    def report(self, active: Sequence[RunProgress], blocks_in_flight: int) -> None:
        """Call `on_progress`.

        Args:
            active: the slides that are being opened, segmented or finished.
            blocks_in_flight: blocks that are with the workers.
        """
        self._told = time.perf_counter()
        seconds = self._told - self._started
        pixels = self._pixels + sum(run.pixels_done for run in active)
        self._on_progress(
            CohortProgress(
                slides_total=self._slides_total,
                slides_done=self._slides_done,
                slides_failed=self._slides_failed,
                blocks_done=self._blocks,
                blocks_in_flight=blocks_in_flight,
                pixels_done=pixels,
                seconds=seconds,
                mpx_per_s=pixels / seconds / 1e6,
                blocks_per_s=self._blocks / seconds,
                device_busy=min(1.0, self._waits.predict / (seconds * self._processes)),
                active=tuple(active),
            )
        )
