"""The next slides of a cohort: opened, planned and laid out while others are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from distributed.comm.core import CommClosedError

from wsi_unet.errors import ClusterError
from wsi_unet.segmentation.report import RunProgress
from wsi_unet.segmentation.runs.execution import Execution
from wsi_unet.segmentation.runs.jobs import SlideJob
from wsi_unet.segmentation.runs.preparation import Preparation

MOST_PREPARING = 2
"""Slides being prepared at the same time."""

THREAD_NAME = "wsi-unet"
"""Name of the threads that prepare and complete outputs."""

A = TypeVar("A")
T = TypeVar("T")


@dataclass(eq=False)
class _Preparing:
    """A slide that is being prepared.

    Attributes:
        job: the slide.
        phase: what is being done with it.
    """

    job: SlideJob
    phase: str = "opening"

    def show(self, phase: str) -> None:
        self.phase = phase


class SlidesAhead:
    """Takes jobs one by one and prepares each in a thread.

    Args:
        jobs: the slides.
        preparation: prepares them.
    """

    def __init__(self, jobs: Iterable[SlideJob], preparation: Preparation) -> None:
        self._jobs = iter(jobs)
        self._preparation = preparation
        self._preparing: dict[Future[Execution], _Preparing] = {}

    def __len__(self) -> int:
        return len(self._preparing)

    @property
    def progress(self) -> list[RunProgress]:
        """What is being done with the slides that are being prepared."""
        return [RunProgress(one.phase, slide=one.job.slide) for one in self._preparing.values()]

    @property
    def futures(self) -> list[Future[Any]]:
        """The futures of the slides that are being prepared."""
        return list(self._preparing)

    def prepare_more(self, count: int) -> None:
        """Start to prepare slides.

        Args:
            count: how many more slides may be ahead.
        """
        for _ in range(min(count, MOST_PREPARING - len(self))):
            job = next(self._jobs, None)
            if job is None:
                return
            one = _Preparing(job)
            prepare = partial(self._preparation.prepare, show=one.show)
            self._preparing[run_in_background(prepare, job)] = one

    def take_prepared(self) -> Iterator[tuple[SlideJob, Execution | Exception]]:
        """Yield the slides that are prepared by now, or what was wrong with them.

        Raises:
            ClusterError: the scheduler went away, or there are no workers.
            CommClosedError: the scheduler went away while it was asked something.
            KeyboardInterrupt: somebody ended the run.
        """
        for future in [future for future in self._preparing if future.done()]:
            job = self._preparing.pop(future).job
            error = future.exception()
            if error is None:
                yield job, future.result()
            elif isinstance(error, Exception) and not isinstance(
                error, ClusterError | CommClosedError
            ):
                yield job, error
            else:
                raise error

    def close_when_prepared(self) -> None:
        """Unlock the outputs of slides that are still being prepared, as soon as they are."""
        for future in self._preparing:
            future.add_done_callback(_close)


def _close(future: Future[Execution]) -> None:
    if future.exception() is None:
        future.result().close()


def run_in_background(work: Callable[[A], T], argument: A) -> Future[T]:
    """Start `work` in a daemon thread and return the future of its result.

    A pool's threads would be waited for when the process ends.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work(argument))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name=THREAD_NAME, daemon=True).start()
    return future
