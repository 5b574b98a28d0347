"""Many slides through one bounded window of blocks; one slide is the smallest case.

While blocks of some slides are computed, the next slides are opened, planned and laid out, and the
small levels of the last ones are built, each in a thread of this process. What is held at any time
are the slides whose blocks are in flight and a few that wait, however many there are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, TypeVar

from distributed import Client
from distributed.comm.core import CommClosedError

from wsi_unet import logs
from wsi_unet.dask_cluster.cluster import count_workers, open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.scheduler import scheduler_lost_error
from wsi_unet.errors import ClusterError, OutputError
from wsi_unet.segmentation.dispatch.execution import Execution
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.dispatch.prepare import Preparation, SlideJob
from wsi_unet.segmentation.dispatch.stream import stream
from wsi_unet.segmentation.report import CohortProgress, Report, RunProgress, Waits
from wsi_unet.segmentation.worker.task import Run, Task

AHEAD = 3
"""Slides that are being prepared, or are prepared and wait, at most."""

PREPARING = 2
"""Slides being prepared at the same time."""

FINISHING = 8
"""Slides being completed from which on no more are taken: many workers end more than one client
completes, and what waits for that takes memory and threads."""

TELL_EVERY = 0.1
"""Seconds between two calls of `on_progress`, at least."""

LEAVE_SECONDS = 2.0
"""How long the end waits for slides that are being prepared or finished, to unlock them."""

COMPLETE_SECONDS = 120.0
"""How long slides may take to be completed after the cluster went away."""

THREAD_NAME = "wsi-unet"
"""Name of the threads that prepare and complete outputs."""

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What came of one slide.

    Attributes:
        job: the slide.
        report: what was done; None if it failed before its first block.
        error: what went wrong with the slide as a whole; failed blocks are in the report.
    """

    job: SlideJob
    report: Report | None
    error: Exception | None = None

    @property
    def state(self) -> str:
        """The report's state; "failed" without one."""
        return "failed" if self.report is None else self.report.state


CohortCallback = Callable[[CohortProgress], None]


def segment_cohort(
    jobs: Iterable[SlideJob],
    cluster: ClusterOptions | None = None,
    *,
    on_progress: CohortCallback = lambda _: None,
) -> Iterator[Outcome]:
    """Segment slides, blocks of several at a time; doing it again does only what is left.

    Args:
        jobs: the slides; taken one by one.
        cluster: where to compute; None is this process.
        on_progress: called about ten times a second. KeyboardInterrupt raised in it, or by Ctrl-C,
            ends everything early.

    Yields:
        What came of each slide, in the order in which they end. One that fails doesn't stop the
        others. After an interruption: those that had begun, with what they have done.

    Raises:
        OptionError: the cluster can't be used as asked.
        ClusterError: there is no cluster.
    """
    options = cluster or ClusterOptions()
    with open_client(options) as client:
        yield from _Cohort(client, jobs, options.max_retries, on_progress).run()


@dataclass
class _Begun:
    """A slide whose blocks are being done."""

    job: SlideJob
    execution: Execution
    in_flight: int = 0
    exhausted: bool = False


class _Cohort:
    """The slides of one call, by where they are: to come, preparing, begun, finishing."""

    def __init__(
        self, client: Client, jobs: Iterable[SlideJob], retries: int, on_progress: CohortCallback
    ) -> None:
        self._client = client
        self._limits = Limits(retries=retries)
        self._on_progress = on_progress
        self._total = len(jobs) if isinstance(jobs, Sized) else None
        self._jobs = iter(jobs)
        self._stop = Event()
        self._preparation = Preparation(client, self._stop)
        self._preparing: dict[Future[Execution], SlideJob] = {}
        self._prepared: deque[_Begun] = deque()
        self._begun: dict[Run, _Begun] = {}
        self._finishing: dict[Future[Report], _Begun] = {}
        self._failed: list[Outcome] = []
        self._processes = max(1, count_workers(client).processes)
        self._started = time.perf_counter()
        self._told = 0.0
        self._slides_done = self._slides_failed = self._blocks = self._pixels = 0
        self._waits = Waits()

    def run(self) -> Iterator[Outcome]:
        """Do it all."""
        try:
            for event in stream(self._client, self._tasks(), limits=self._limits):
                if isinstance(event, BlockDone | BlockFailed):
                    self._take(event)
                yield from self._ended()
                self._tell()
            self._give_up()
            while self._finishing:
                self._tell()
                time.sleep(0.01)
                yield from self._ended()
            yield from self._ended()
        except KeyboardInterrupt:
            yield from self._interrupted()
        except ClusterError as error:
            yield from self._interrupted(error)
        except CommClosedError:  # the scheduler died while it was asked something
            yield from self._interrupted(scheduler_lost_error(self._client))
        finally:
            self._leave()

    def _tasks(self) -> Iterator[Task | None]:
        """Yield the blocks of one slide after the other; None while none is ready."""
        while True:
            self._look_ahead()
            if self._prepared:
                begun = self._prepared[0]
                task = begun.execution.next_task()
                if task is None:
                    begun.exhausted = True
                    self._prepared.popleft()
                    self._finish_if_ended(begun)
                    continue
                begun.in_flight += 1
                yield task
            elif self._preparing or len(self._finishing) >= FINISHING:
                yield None
            else:
                return

    def _look_ahead(self) -> None:
        """Take in what has been prepared, and let the next slides be."""
        for future in [future for future in self._preparing if future.done()]:
            job = self._preparing.pop(future)
            error = future.exception()
            if isinstance(error, CommClosedError):
                raise error
            if isinstance(error, Exception):
                self._failed.append(Outcome(job, None, error))
            elif error is not None:
                raise error
            else:
                begun = _Begun(job, future.result())
                begun.execution.start()
                self._prepared.append(begun)
                self._begun |= dict.fromkeys(begun.execution.runs, begun)
        while (
            len(self._preparing) < PREPARING
            and len(self._preparing) + len(self._prepared) < AHEAD
            and len(self._finishing) < FINISHING
        ):
            following = next(self._jobs, None)
            if following is None:
                return
            self._preparing[_in_background(self._preparation.prepare, following)] = following

    def _take(self, event: BlockDone | BlockFailed) -> None:
        begun = self._begun[event.task.run]
        begun.in_flight -= 1
        begun.execution.take(event)
        if isinstance(event, BlockDone):
            self._waits += Waits.of(event.marker)
            self._blocks += 1
        self._finish_if_ended(begun)

    def _finish_if_ended(self, begun: _Begun) -> None:
        if not begun.exhausted or begun.in_flight:
            return
        for run in begun.execution.runs:
            del self._begun[run]
        self._finishing[_in_background(_finish, begun.execution)] = begun

    def _ended(self) -> Iterator[Outcome]:
        """Yield what came of the slides that have ended since."""
        outcomes, self._failed = self._failed, []
        for future in [future for future in self._finishing if future.done()]:
            begun = self._finishing.pop(future)
            self._pixels += begun.execution.pixels
            error = future.exception()
            if error is None:
                outcomes.append(Outcome(begun.job, future.result()))
            elif isinstance(error, Exception):
                outcomes.append(Outcome(begun.job, None, error))
            else:
                raise error
        for outcome in outcomes:
            self._slides_done += 1
            self._slides_failed += outcome.state != "finished"
            logs.event(
                "slide ended", slide=outcome.job.slide, state=outcome.state, error=outcome.error
            )
            yield outcome

    def _give_up(self) -> None:
        """Finish what has blocks left although no more are begun: everything hung."""
        for begun in self._all_begun():
            begun.exhausted, begun.in_flight = True, 0
            self._finish_if_ended(begun)

    def _interrupted(self, error: ClusterError | None = None) -> Iterator[Outcome]:
        """Yield the slides that had begun, with what they have done."""
        self._stop.set()
        begun = self._all_begun()
        if error is None:
            for one in begun:
                one.execution.stop()
        # Completing needs no cluster, so its loss is no reason not to end well.
        deadline = time.monotonic() + (LEAVE_SECONDS if error is None else COMPLETE_SECONDS)
        while self._finishing and time.monotonic() < deadline:
            yield from self._ended()
            time.sleep(0.01)
        for one in [*begun, *self._finishing.values()]:
            try:
                outcome = Outcome(one.job, one.execution.report(interrupted=error is None), error)
            except OutputError as unreadable:  # one slide's store fails; the others have theirs
                outcome = Outcome(one.job, None, error or unreadable)
            yield outcome

    def _leave(self) -> None:
        """Give back the outputs of slides that never ended."""
        self._stop.set()
        for begun in self._all_begun():
            begun.execution.close()
        self._begun.clear()
        # Their threads end with the process, which may be next; their locks would stay.
        under_way: list[Future[Any]] = [*self._preparing, *self._finishing]
        wait(under_way, timeout=LEAVE_SECONDS)
        for future in self._preparing:
            future.add_done_callback(_close_prepared)

    def _all_begun(self) -> list[_Begun]:
        return list({id(begun): begun for begun in self._begun.values()}.values())

    def _tell(self) -> None:
        now = time.perf_counter()
        if now - self._told < TELL_EVERY:
            return
        self._told = now
        seconds = now - self._started
        begun = self._all_begun()
        active = [one.execution.progress() for one in (*begun, *self._finishing.values())]
        active += [RunProgress("opening", slide=job.slide) for job in self._preparing.values()]
        pixels = self._pixels + sum(one.pixels_done for one in active)
        busy = self._waits.predict / (seconds * self._processes)
        self._on_progress(
            CohortProgress(
                slides_total=self._total,
                slides_done=self._slides_done,
                slides_failed=self._slides_failed,
                blocks_done=self._blocks,
                blocks_in_flight=sum(one.in_flight for one in begun),
                pixels_done=pixels,
                seconds=seconds,
                mpx_per_s=pixels / seconds / 1e6,
                blocks_per_s=self._blocks / seconds,
                device_busy=min(1.0, busy),
                active=tuple(active),
            )
        )


def _finish(execution: Execution) -> Report:
    """Complete a slide's output, give it back and say what was done."""
    try:
        execution.complete()
        return execution.report()
    finally:
        execution.close()


def _close_prepared(future: Future[Execution]) -> None:
    if future.exception() is None:
        future.result().close()


def _in_background(work: Callable[[A], T], argument: A) -> Future[T]:
    """Start `work` in a thread that doesn't keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work(argument))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name=THREAD_NAME, daemon=True).start()
    return future
