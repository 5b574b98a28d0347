"""One slide's planned run being carried out: its blocks, its progress, its end."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict

from distributed import Client

from wsi_unet import logs
from wsi_unet.dask_cluster.cluster import count_workers
from wsi_unet.dask_cluster.workers import ask_workers, list_workers
from wsi_unet.errors import OutputError
from wsi_unet.labels.layout import Frame
from wsi_unet.labels.progress import BlockFailure, BlockMarker
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.output import (
    OpenOutput,
    complete_image,
    complete_labels,
    is_complete,
    label_pixels,
    reopen,
)
from wsi_unet.segmentation.dispatch.tally import Tally
from wsi_unet.segmentation.parameters import ImageParameters, LabelParameters
from wsi_unet.segmentation.planning.plan import Plan
from wsi_unet.segmentation.report import ClassArea, Failure, Report, RunProgress, State
from wsi_unet.segmentation.worker.task import Run, Task, release_run
from wsi_unet.storage.lock import OutputLock

SHORTEST_DEADLINE = 900.0
"""Seconds that a block is given at least."""

DEADLINE_FACTOR = 20.0
"""How many times its estimated time a block is given at least."""

STOP_SECONDS = 5.0
"""How long a worker may take to say that it ends what it does."""

SLOWEST_FLOPS = 5e9
"""FLOP/s that any device reaches; bounds a block's time where no speed was measured."""


class Execution:
    """One slide's run, laid out and locked; its caller tells it what becomes of its blocks.

    Args:
        client: the cluster.
        plan: what is to be done.
        ensemble: what is run.
        output: the store, laid out.
        lock: on the store, held until `close`.
        startup_seconds: what it took to get here, for the report.
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        ensemble: Ensemble,
        output: OpenOutput,
        lock: OutputLock,
        startup_seconds: float,
    ) -> None:
        self._client = client
        self._plan = plan
        self._ensemble = ensemble
        self._output = output
        self._lock = lock
        self._startup_seconds = startup_seconds
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
        self._tasks = self._left()
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
        """Start the clock: its first block is about to be submitted."""
        self._started = time.perf_counter()
        blocks = self._labels.blocks()
        logs.event(
            "slide started", slide=self.slide, output=self._plan.output, blocks=asdict(blocks)
        )

    def next_task(self) -> Task | None:
        """Return a block that is left and wasn't returned before, None when there is none.

        There is none either when another process has taken the output over.
        """
        return None if self.lost else next(self._tasks, None)

    def take(self, event: BlockDone | BlockFailed) -> None:
        """Count what became of a block of this run."""
        if isinstance(event, BlockDone):
            self._take_done(event.task, event.marker)
        else:
            self._take_failure(event.task, event.error)

    def complete(self) -> None:
        """Build the small levels of what has all its blocks, unless that was done before.

        Raises:
            OutputError: if something can't be written, or another process has taken over.
        """
        self._phase = "finishing"
        if self.lost:
            raise OutputError(
                f"{self._plan.output}: another process has taken this output over, since this one "
                "gave no sign of life; run the same command again when that has ended"
            )
        image, labels = self._output.image, self._output.labels
        if image is not None and self._plan.image is not None and self._needs_completion(image):
            complete_image(self._output, self._plan.image)
        if self._needs_completion(labels):
            complete_labels(
                self._output, self._plan.labels, classes=len(self._ensemble.spec.classes)
            )

    def stop(self) -> None:
        """End blocks in work on the workers at their next tile; one that hangs isn't waited for."""
        workers = list_workers(self._client)
        for run in self._arrays:
            ask_workers(self._client, workers, release_run, run, seconds=STOP_SECONDS)

    def close(self) -> None:
        """Give the output back."""
        self._lock.release()

    def progress(self) -> RunProgress:
        """Return where the run is now."""
        tally, seconds = self._labels, time.perf_counter() - self._started
        return RunProgress(
            phase=self._phase,
            slide=self.slide,
            blocks_done=tally.resumed + tally.done,
            blocks_total=tally.total,
            blocks_failed=len(tally.failures),
            pixels_done=tally.pixels,
            seconds=seconds,
            mpx_per_s=tally.pixels / seconds / 1e6,
            seconds_left=tally.seconds_left(seconds),
            device_busy=self._device_busy(seconds),
        )

    def report(self, *, interrupted: bool = False) -> Report:
        """Return what was done.

        Args:
            interrupted: whether the run ends early because somebody wants it to.
        """
        seconds = time.perf_counter() - self._started
        tallies, labels = self._tallies, self._plan.labels
        state: State = "finished"
        if interrupted:
            state = "interrupted"
        elif not all(tally.complete for tally in tallies.values()):
            state = "incomplete"
        return Report(
            output=self._plan.output,
            label=labels.label,
            slide=labels.slide.name,
            state=state,
            blocks=self._labels.blocks(),
            classes=class_areas(self._output, labels, self._ensemble),
            seconds=seconds,
            startup_seconds=self._startup_seconds,
            mpx_per_s=self._labels.pixels / seconds / 1e6,
            blocks_per_s=self._labels.done / seconds,
            waits=self._labels.waits,
            device_busy=self._device_busy(seconds),
            failures=tuple(f for tally in tallies.values() for f in tally.failures),
            image=None if self._output.image is None else tallies[self._output.image].blocks(),
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

    def _left(self) -> Iterator[Task]:
        """Return the blocks that aren't done, the image's evenly mixed with the labels'.

        The image's blocks don't use the device, so they hide behind those that do.
        """
        queues = [self._left_of(run) for run in self._arrays]
        ranked = (
            [((rank + 1) / len(queue), task) for rank, task in enumerate(queue)] for queue in queues
        )
        return (task for _, task in heapq.merge(*ranked, key=lambda pair: pair[0]))

    def _left_of(self, run: Run) -> list[Task]:
        progress, tally = self._output.progress(run), self._tallies[run]
        left = dict.fromkeys(self._arrays[run].blocks())
        markers = (m for m in progress.read_markers(run.signature) if m.block in left)
        for marker, sound in progress.check_shards(markers):
            if sound:
                tally.take_resumed(marker)
                del left[marker.block]
            else:
                progress.forget_block(marker.block)
        if left:
            reopen(self._output, run)
        deadline = self._deadline()
        return [Task(run, index, deadline=deadline) for index in left]

    def _deadline(self) -> float:
        """Return after how many seconds a block counts as hung."""
        labels, costs = self._plan.labels, self._plan.costs
        per_block = costs.seconds_per_block
        if per_block is not None:
            return max(SHORTEST_DEADLINE, DEADLINE_FACTOR * per_block)
        tiles = (labels.block / labels.tile) ** 2
        slowest = tiles * self._ensemble.flops(labels.tile) / SLOWEST_FLOPS
        return max(SHORTEST_DEADLINE, slowest)

    def _take_done(self, task: Task, marker: BlockMarker) -> None:
        self._tallies[task.run].take_done(marker)
        logs.event("block done", **_names(task), seconds=marker.seconds)

    def _take_failure(self, task: Task, error: str) -> None:
        progress, tally = self._output.progress(task.run), self._tallies[task.run]
        marker = None
        with suppress(OutputError):  # a store that fails is no reason to end the other slides
            marker = progress.read_marker(task.index, task.run.signature)
        if marker is not None:  # an attempt that was given up has ended after all
            self._take_done(task, marker)
            return
        logs.event("block failed", **_names(task), error=error)
        tally.failures.append(Failure(task.index, error))
        failure = BlockFailure(block=task.index, error=error, attempts=task.attempt)
        with suppress(OutputError):  # on a full disk the report alone can tell
            progress.write_failure(failure)

    def _needs_completion(self, run: Run) -> bool:
        return self._tallies[run].complete and not is_complete(self._output, run)


def _names(task: Task) -> dict[str, object]:
    """Return what a log says of a block."""
    run = task.run
    return {"output": run.output, "array": run.name, "block": task.index, "attempt": task.attempt}


def class_areas(
    output: OpenOutput, labels: LabelParameters, ensemble: Ensemble
) -> tuple[ClassArea, ...]:
    """Return the area of every class over the blocks that are done."""
    frame = Frame.from_downsample(labels.resampling.downsample, labels.slide.mpp)
    counts = label_pixels(output.progress(output.labels), labels)
    overlapping = ensemble.spec.multi_label  # each group's background is but "not this class"
    areas = []
    for name, group, pixels in zip(labels.label_groups, ensemble.groups, counts, strict=True):
        predicted = sum(pixels)
        for label in group.classes[1 if overlapping else 0 :]:
            count = pixels[label.value] if pixels else 0
            area = ClassArea(
                value=label.value,
                name=label.name,
                color=label.color,
                pixels=count,
                area_mm2=frame.area_mm2(count),
                fraction=count / predicted if predicted else 0.0,
                group=name,
            )
            areas.append(area)
    return tuple(areas)
