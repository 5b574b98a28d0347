"""Executing one slide's planned run: its blocks, its progress, its completion."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict

from distributed import Client

from wsi_unet import logs
from wsi_unet.dask_cluster.workers import ask_workers, count_workers, list_workers
from wsi_unet.errors import OutputError
from wsi_unet.labels.progress import BlockFailure, BlockMarker
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.objects.source import LabelSource
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.policy import Limits, estimate_deadline
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters
from wsi_unet.segmentation.planning.plan import Plan
from wsi_unet.segmentation.report import Failure, Report, RunProgress, RunState
from wsi_unet.segmentation.runs.object_execution import ObjectExecution
from wsi_unet.segmentation.runs.output import (
    OpenOutput,
    complete_image,
    complete_labels,
    is_complete,
    measure_areas,
)
from wsi_unet.segmentation.runs.remaining import resume_run
from wsi_unet.segmentation.runs.tally import Tally
from wsi_unet.segmentation.worker.task import Run, Task, release_run
from wsi_unet.storage.locking.lock import OutputLock

STOP_SECONDS = 5.0
"""How long a worker may take to confirm that it ends what it does."""


class Execution:
    """One slide's run, laid out and locked; its caller records what becomes of its blocks.

    Args:
        client: the cluster.
        plan: what is to be done.
        ensemble: the models.
        output: the store, laid out.
        lock: on the store, held until `close`.
        limits: how patient the run is with its blocks.
        startup_seconds: how long opening, planning and measuring took.
        said: the warnings about models that were shown; those of this run are added.
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        ensemble: Ensemble,
        output: OpenOutput,
        lock: OutputLock,
        *,
        limits: Limits,
        startup_seconds: float,
        said: set[str],
    ) -> None:
        self._client = client
        self._plan = plan
        self._ensemble = ensemble
        self._output = output
        self._lock = lock
        self._limits = limits
        self._startup_seconds = startup_seconds
        self._said = said
        self._processes = max(1, count_workers(client).processes)
        self._arrays: dict[Run, LabelParameters | ImageParameters] = {output.labels: plan.labels}
        if output.image is not None and plan.image is not None:
            self._arrays[output.image] = plan.image
        self._tallies = {
            run: Tally(
                parameters.grid,
                plan.costs.tissue if run == output.labels else frozenset(),
                total=len(parameters.blocks()),
            )
            for run, parameters in self._arrays.items()
        }
        self._tasks = resume_run(output, self._arrays, self._tallies, self._estimate_deadline())
        self._started = time.perf_counter()
        self._phase = "segmenting"

    @property
    def slide(self) -> str:
        """The slide's file name."""
        return self._plan.labels.slide.name

    @property
    def runs(self) -> tuple[Run, ...]:
        """The arrays that are filled."""
        return tuple(self._arrays)

    @property
    def lost(self) -> bool:
        """Whether another process has taken the output over."""
        return self._lock.lost

    def start(self) -> None:
        """Start the clock and warn; the first block is about to be submitted."""
        self._started = time.perf_counter()
        blocks = self._labels.count_blocks()
        logs.event(
            "slide started", slide=self.slide, output=self._plan.output, blocks=asdict(blocks)
        )
        for warning in self._plan.slide_warnings:
            logs.warn(f"{self.slide}: {warning}", slide=self.slide, output=self._plan.output)
        model = self._ensemble.name
        for text in (f"{model}: {warning}" for warning in self._plan.model_warnings):
            if text not in self._said:
                self._said.add(text)
                logs.warn(text, model=model)

    @property
    def has_following(self) -> bool:
        """Whether another stage follows, if this one is finished."""
        return self._plan.objects is not None

    @property
    def waits(self) -> bool:
        """Whether there will be tasks although there is none now: never."""
        return False

    def next_task(self) -> Task | None:
        """Return the next block to do; None when there is none left.

        None too once another process has taken the output over.
        """
        return None if self.lost else next(self._tasks, None)

    def record(self, event: BlockDone | BlockFailed) -> None:
        """Record what became of a block of this run."""
        assert isinstance(event.task, Task)
        if isinstance(event, BlockFailed):
            self._record_failure(event.task, event.error)
        elif isinstance(event.result, BlockMarker):
            self._record_done(event.task, event.result)

    def complete(self) -> None:
        """Build the small levels of arrays that have all their blocks, unless they are there.

        Raises:
            OutputError: something can't be written, or another process has taken over.
        """
        self._phase = "finishing"
        self._lock.check()
        image, labels = self._output.image, self._output.labels
        if image is not None and self._plan.image is not None and self._needs_completion(image):
            complete_image(self._output, self._plan.image)
        if self._needs_completion(labels):
            complete_labels(
                self._output, self._plan.labels, classes=len(self._ensemble.spec.classes)
            )

    def start_following(self) -> ObjectExecution | None:
        """Return the stage that follows this one, if one was asked for and the labels are finished.

        It takes the lock over: its caller must `close` it instead of this one.

        Raises:
            OutputError: it can't be begun.
        """
        objects, report = self._plan.objects, self.make_report()
        if objects is None or report.state != "finished":
            return None
        sources = LabelSource.open_all(self._output.store, self._plan.labels.label_groups)
        return ObjectExecution(
            self._client,
            sources,
            objects.rule,
            self._lock,
            self._limits,
            objects.measure,
            labels=report,
        )

    def stop(self) -> None:
        """Have the workers end their blocks at the next tile; one that hangs isn't waited for."""
        workers = list_workers(self._client)
        for run in self._arrays:
            ask_workers(self._client, workers, release_run, run, seconds=STOP_SECONDS)

    def close(self) -> None:
        """Unlock the output."""
        self._lock.release()

    def measure_progress(self) -> RunProgress:
        """Return the progress of the run."""
        tally, seconds = self._labels, time.perf_counter() - self._started
        return RunProgress(
            phase=self._phase,
            slide=self.slide,
            output=self._plan.output,
            warnings=self._plan.warnings,
            blocks_done=tally.resumed + tally.done,
            blocks_total=tally.total,
            blocks_failed=len(tally.failures),
            pixels_done=tally.pixels,
            seconds=seconds,
            mpx_per_s=tally.pixels / seconds / 1e6,
            seconds_left=tally.estimate_seconds_left(seconds),
            device_busy=self._device_busy(seconds),
        )

    def make_report(self, *, interrupted: bool = False) -> Report:
        """Return what was done.

        Args:
            interrupted: whether the run was ended early on purpose.
        """
        seconds = time.perf_counter() - self._started
        tallies, labels, image = self._tallies, self._plan.labels, self._output.image
        state: RunState = "finished"
        if interrupted:
            state = "interrupted"
        elif not all(tally.complete for tally in tallies.values()):
            state = "incomplete"
        return Report(
            output=self._plan.output,
            label=labels.label,
            slide=labels.slide.name,
            state=state,
            blocks=self._labels.count_blocks(),
            classes=measure_areas(self._output, labels, self._ensemble),
            seconds=seconds,
            startup_seconds=self._startup_seconds,
            mpx_per_s=self._labels.pixels / seconds / 1e6,
            blocks_per_s=self._labels.done / seconds,
            waits=self._labels.waits,
            device_busy=self._device_busy(seconds),
            failures=tuple(f for tally in tallies.values() for f in tally.failures),
            image=None if image is None else tallies[image].count_blocks(),
            warnings=self._plan.warnings,
            parameters=labels.model_dump(mode="json"),
        )

    @property
    def pixels(self) -> int:
        """Level-0 label pixels of the blocks that this run has done."""
        return self._labels.pixels

    @property
    def _labels(self) -> Tally:
        return self._tallies[self._output.labels]

    def _device_busy(self, seconds: float) -> float:
        return min(1.0, self._labels.waits.predict / (seconds * self._processes))

    def _estimate_deadline(self) -> float:
        """Return after how many seconds a block counts as hung."""
        tile, block = self._plan.labels.tile, self._plan.labels.block
        flops = (block / tile) ** 2 * self._ensemble.flops(tile)
        return estimate_deadline(self._plan.costs.seconds_per_block, flops, self._limits)

    def _record_done(self, task: Task, marker: BlockMarker) -> None:
        self._tallies[task.run].count_done(marker)
        logs.event("block done", **_identify(task), seconds=marker.seconds)

    def _record_failure(self, task: Task, error: str) -> None:
        progress, tally = self._output.open_progress(task.run), self._tallies[task.run]
        marker = None
        with suppress(OutputError):  # a store that fails must not end the other slides
            marker = progress.read_marker(task.index, task.run.signature)
        if marker is not None and self._arrays[task.run].covers_block(marker):
            # An attempt that was given up has ended after all.
            self._record_done(task, marker)
            return
        logs.event("block failed", **_identify(task), error=error)
        tally.failures.append(Failure(task.index, error))
        failure = BlockFailure(block=task.index, error=error, attempts=task.attempt)
        with suppress(OutputError):  # on a full disk only the report says so
            progress.write_failure(failure)

    def _needs_completion(self, run: Run) -> bool:
        return self._tallies[run].complete and not is_complete(self._output, run)


def _identify(task: Task) -> dict[str, object]:
    """Return the fields that identify a block in the log."""
    run = task.run
    return {"output": run.output, "array": run.name, "block": task.index, "attempt": task.attempt}
