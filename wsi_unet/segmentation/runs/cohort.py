"""Segmenting many slides with a bounded number of blocks in flight; or just one slide.

While blocks of some slides are computed, the next slides are opened, planned and laid out, and the
small levels of the last ones are built, each in a thread of this process. However many slides there
are, only those are held whose blocks are in flight, and a few that wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from threading import Event

from distributed import Client
from distributed.comm.core import CommClosedError

from wsi_unet import logs
from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.scheduler import scheduler_lost_error
from wsi_unet.dask_cluster.workers import count_workers
from wsi_unet.errors import ClusterError, OutputError
from wsi_unet.labels.progress import BlockMarker
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.dispatch.stream import stream
from wsi_unet.segmentation.report import Report
from wsi_unet.segmentation.runs.execution import Execution
from wsi_unet.segmentation.runs.jobs import SlideJob, SlideOutcome
from wsi_unet.segmentation.runs.meter import CohortCallback, CohortMeter
from wsi_unet.segmentation.runs.object_execution import ObjectExecution
from wsi_unet.segmentation.runs.preparation import Preparation
from wsi_unet.segmentation.runs.slides_ahead import SlidesAhead, run_in_background
from wsi_unet.segmentation.worker.any_task import AnyRun, AnyTask

LIMITS = Limits()
"""How patient runs are with their blocks; the retries are the cluster options'."""

MOST_AHEAD = 3
"""Slides that are being prepared, or are prepared and wait, at most."""

MOST_FINISHING = 8
"""Slides being finished from which on no more are prepared: many workers complete more slides than
one client finishes, and those that wait for it take memory and threads."""

LEAVE_SECONDS = 2.0
"""How long the end waits for slides that are being prepared or finished, to unlock them."""

FINISH_SECONDS = 120.0
"""How long slides may take to be finished after the cluster went away."""


def segment_cohort(
    jobs: Iterable[SlideJob],
    cluster: ClusterOptions | None = None,
    *,
    on_progress: CohortCallback = lambda _: None,
) -> Iterator[SlideOutcome]:
    """Segment slides, blocks of several at a time, resuming earlier runs.

    Args:
        jobs: the slides; taken one by one.
        cluster: where to compute; None is this process.
        on_progress: called about ten times a second. KeyboardInterrupt raised in it, or by Ctrl-C,
            ends everything early.

    Yields:
        The outcome of each slide, in the order in which they end. One that fails doesn't stop the
        others. After an interruption: the slides that had started, with what they have done.

    Raises:
        OptionError: an option of the cluster is unusable.
        ClusterError: there is no cluster.
    """
    options = cluster or ClusterOptions()
    with open_client(options) as client:
        limits = replace(LIMITS, retries=options.max_retries)
        yield from _CohortRun(client, jobs, limits, on_progress).run()


@dataclass
class _RunningSlide:
    """A slide whose blocks are being done.

    Attributes:
        job: the slide.
        execution: the present stage of its run.
        in_flight: how many tasks of that are with the workers.
        exhausted: whether all its tasks were submitted.
    """

    job: SlideJob
    execution: Execution | ObjectExecution
    in_flight: int = 0
    exhausted: bool = False


class _CohortRun:
    """The slides of one call, by where they are: ahead, prepared, running, finishing."""

    def __init__(
        self, client: Client, jobs: Iterable[SlideJob], limits: Limits, on_progress: CohortCallback
    ) -> None:
        self._client = client
        self._limits = limits
        self._stop = Event()
        self._ahead = SlidesAhead(jobs, Preparation(client, limits, self._stop))
        self._prepared: deque[_RunningSlide] = deque()
        self._running: dict[AnyRun, _RunningSlide] = {}
        self._finishing: dict[Future[Report | ObjectExecution], _RunningSlide] = {}
        self._over = False  # whether no task is taken any more
        self._failed: list[SlideOutcome] = []
        total = len(jobs) if isinstance(jobs, Sized) else None
        self._meter = CohortMeter(total, max(1, count_workers(client).processes), on_progress)

    def run(self) -> Iterator[SlideOutcome]:
        """Segment all slides and yield their outcomes."""
        try:
            for event in stream(self._client, self._next_tasks(), limits=self._limits):
                if isinstance(event, BlockDone | BlockFailed):
                    self._record(event)
                yield from self._take_ended()
                self._report_progress()
            self._over = True
            self._give_up()
            while self._finishing:
                self._report_progress()
                time.sleep(0.01)
                yield from self._take_ended()
            yield from self._take_ended()
            self._report_progress(last=True)
        except KeyboardInterrupt:
            yield from self._interrupt()
        except ClusterError as error:
            yield from self._interrupt(error)
        except CommClosedError:  # the scheduler died while it was asked something
            yield from self._interrupt(scheduler_lost_error(self._client))
        finally:
            self._unlock_rest()

    def _next_tasks(self) -> Iterator[AnyTask | None]:
        """Yield the tasks of one slide after the other; None while none is ready."""
        while True:
            self._look_ahead()
            task = self._take_task()
            if task is None and not self._awaits_tasks():
                return
            yield task

    def _take_task(self) -> AnyTask | None:
        """Return the next task of the first slide that has one now."""
        for slide in tuple(self._prepared):
            task = slide.execution.next_task()
            if task is not None:
                slide.in_flight += 1
                return task
            if not slide.execution.waits:
                slide.exhausted = True
                self._prepared.remove(slide)
                self._finish_if_ended(slide)
        return None

    def _awaits_tasks(self) -> bool:
        """Return whether there will be tasks although there is none now."""
        if len(self._ahead) or self._prepared or len(self._finishing) >= MOST_FINISHING:
            return True
        slides = (*self._running_slides(), *self._finishing.values())
        return any(slide.execution.has_following for slide in slides)

    def _look_ahead(self) -> None:
        """Start the slides that are prepared by now, and have the next ones prepared."""
        for job, prepared in self._ahead.take_prepared():
            if isinstance(prepared, Exception):
                self._failed.append(SlideOutcome(job, None, prepared))
                continue
            self._start(_RunningSlide(job, prepared))
        if len(self._finishing) < MOST_FINISHING:
            self._ahead.prepare_more(MOST_AHEAD - len(self._ahead) - len(self._prepared))

    def _start(self, slide: _RunningSlide) -> None:
        """Start a stage of a slide."""
        slide.execution.start()
        self._prepared.append(slide)
        self._running |= dict.fromkeys(slide.execution.runs, slide)

    def _record(self, event: BlockDone | BlockFailed) -> None:
        slide = self._running[event.task.run]
        slide.in_flight -= 1
        slide.execution.record(event)
        if isinstance(event, BlockDone) and isinstance(event.result, BlockMarker):
            self._meter.count_block(event.result)
        self._finish_if_ended(slide)

    def _finish_if_ended(self, slide: _RunningSlide) -> None:
        if not slide.exhausted or slide.in_flight:
            return
        for run in slide.execution.runs:
            del self._running[run]
        self._finishing[run_in_background(_finish, slide.execution)] = slide

    def _take_ended(self) -> Iterator[SlideOutcome]:
        """Yield the outcomes of the slides that have ended since."""
        outcomes, self._failed = self._failed, []
        for future in [future for future in self._finishing if future.done()]:
            slide = self._finishing.pop(future)
            self._meter.count_pixels(slide.execution.pixels)
            error = future.exception()
            if error is None:
                ended = future.result()
                if isinstance(ended, Report):
                    outcomes.append(SlideOutcome(slide.job, ended))
                else:
                    self._start_following(_RunningSlide(slide.job, ended))
            elif isinstance(error, Exception):
                outcomes.append(SlideOutcome(slide.job, None, error))
            else:
                raise error
        for outcome in outcomes:
            self._meter.count_slide(finished=outcome.state == "finished")
            logs.event(
                "slide ended", slide=outcome.job.slide, state=outcome.state, error=outcome.error
            )
            yield outcome

    def _start_following(self, slide: _RunningSlide) -> None:
        """Start the second stage of a slide; end it at once where no task is taken any more."""
        self._start(slide)
        if self._over:
            slide.exhausted = True
            self._finish_if_ended(slide)

    def _give_up(self) -> None:
        """Finish slides whose remaining blocks all hang and aren't submitted again."""
        for slide in self._running_slides():
            slide.exhausted, slide.in_flight = True, 0
            self._finish_if_ended(slide)

    def _interrupt(self, error: ClusterError | None = None) -> Iterator[SlideOutcome]:
        """Yield the slides that had started, with what they have done.

        Args:
            error: the loss of the cluster; None if somebody interrupted.

        Raises:
            ClusterError: that loss, if no slide had started.
        """
        self._stop.set()
        running = self._running_slides()
        if error is None:
            for slide in running:
                slide.execution.stop()
        # Finishing needs no cluster, so it is done even if the cluster was lost.
        deadline = time.monotonic() + (LEAVE_SECONDS if error is None else FINISH_SECONDS)
        while self._finishing and time.monotonic() < deadline:
            yield from self._take_ended()
            time.sleep(0.01)
        started = [*self._running_slides(), *self._finishing.values()]
        if error is not None and not started:
            raise error
        for slide in started:
            try:
                report = slide.execution.make_report(interrupted=error is None)
                outcome = SlideOutcome(slide.job, report, error)
            except OutputError as unreadable:  # one slide's store fails; the others have theirs
                outcome = SlideOutcome(slide.job, None, error or unreadable)
            yield outcome

    def _unlock_rest(self) -> None:
        """Unlock the outputs of slides that never ended."""
        self._stop.set()
        for slide in self._running_slides():
            slide.execution.close()
        self._running.clear()
        # Their threads end with the process, which may end next; their locks would stay.
        wait([*self._ahead.futures, *self._finishing], timeout=LEAVE_SECONDS)
        self._ahead.close_when_prepared()
        for future in self._finishing:
            future.add_done_callback(_close_following)

    def _running_slides(self) -> list[_RunningSlide]:
        return list({id(slide): slide for slide in self._running.values()}.values())

    def _report_progress(self, *, last: bool = False) -> None:
        """Call `on_progress`, if the last call is long enough ago or this is the last one."""
        if not (last or self._meter.is_due()):
            return
        running = self._running_slides()
        active = [
            slide.execution.measure_progress() for slide in (*running, *self._finishing.values())
        ]
        active += self._ahead.progress
        self._meter.report(active, blocks_in_flight=sum(slide.in_flight for slide in running))


def _finish(execution: Execution | ObjectExecution) -> Report | ObjectExecution:
    """Complete a stage of a slide; return the next one, or unlock the output and return the report.

    Raises:
        OutputError: something can't be written; the output is unlocked.
    """
    following = None
    try:
        execution.complete()
        following = execution.start_following()
        return following or execution.make_report()
    finally:
        if following is None:
            execution.close()


def _close_following(future: Future[Report | ObjectExecution]) -> None:
    """Unlock the output of a slide of which another stage would have followed."""
    if future.exception() is None and isinstance(stage := future.result(), ObjectExecution):
        stage.close()
