"""A planned run being carried out: its blocks streamed through Dask, its progress, its end."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from distributed import Client

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockGrid, BlockIndex
from wsi_unet.labels.layout import Frame
from wsi_unet.labels.progress import BlockFailure, BlockMarker
from wsi_unet.models.spec import ModelSpec
from wsi_unet.segment.cluster import process_count
from wsi_unet.segment.parameters import ImageParameters, LabelParameters
from wsi_unet.segment.plan import Plan
from wsi_unet.segment.report import (
    Blocks,
    ClassArea,
    Failure,
    ProgressCallback,
    Report,
    RunProgress,
    State,
    Waits,
)
from wsi_unet.segment.stream import Done, Event, Failed, stream
from wsi_unet.segment.target import (
    Opened,
    complete_image,
    complete_labels,
    is_complete,
    label_pixels,
)
from wsi_unet.segment.task import IMAGE, Run, Task, release_run

SHORTEST_DEADLINE = 900.0
"""Seconds that any block is given before it counts as hung."""

DEADLINE_FACTOR = 20.0
"""How many times its estimated time a block is given, its wait for others included."""


@dataclass
class _Tally:
    """What became of the blocks of one array so far: sums only, however many blocks there are.

    Attributes:
        grid: of the blocks.
        tissue: blocks that take time, as opposed to those of background alone.
        total: blocks of the run.
        resumed: blocks done before this run.
        done: blocks done by this run.
        empty: blocks among both that are stored as nothing.
        tissue_resumed: blocks with tissue among `resumed`.
        tissue_done: blocks with tissue among `done`.
        pixels: level-0 pixels of `done`.
        waits: what `done` took.
        failures: blocks that failed.
    """

    grid: BlockGrid
    tissue: frozenset[BlockIndex]
    total: int
    resumed: int = 0
    done: int = 0
    empty: int = 0
    tissue_resumed: int = 0
    tissue_done: int = 0
    pixels: int = 0
    waits: Waits = field(default_factory=Waits)
    failures: list[Failure] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return self.resumed + self.done == self.total

    def take_resumed(self, marker: BlockMarker) -> None:
        self.resumed += 1
        self.empty += marker.empty
        self.tissue_resumed += marker.block in self.tissue

    def take_done(self, marker: BlockMarker) -> None:
        self.done += 1
        self.empty += marker.empty
        self.tissue_done += marker.block in self.tissue
        self.pixels += self.grid.core(marker.block).area
        self.waits += Waits.of(marker)

    def blocks(self) -> Blocks:
        return Blocks(
            total=self.total,
            done=self.resumed + self.done,
            resumed=self.resumed,
            failed=len(self.failures),
            empty=self.empty,
        )

    def seconds_left(self, seconds: float) -> float | None:
        """Estimate from the blocks with tissue alone, since the others take next to no time."""
        if not self.tissue_done:
            return None
        left = len(self.tissue) - self.tissue_done - self.tissue_resumed
        return seconds / self.tissue_done * left


class Execution:
    """A planned run, laid out and ready to go."""

    def __init__(
        self,
        client: Client,
        plan: Plan,
        spec: ModelSpec,
        opened: Opened,
        on_progress: ProgressCallback,
    ) -> None:
        self._client = client
        self._plan = plan
        self._spec = spec
        self._opened = opened
        self._on_progress = on_progress
        self._processes = process_count(client)
        self._tallies: dict[str, _Tally] = {}
        self._started = time.perf_counter()

    def run(self, startup_seconds: float) -> Report:
        """Stream all blocks that are left, then complete what is complete.

        Args:
            startup_seconds: what it took to get here, for the report.
        """
        interrupted = False
        try:
            tasks = self._left()
            self._started = time.perf_counter()
            for event in stream(self._client, tasks, deadline=self._deadline()):
                self._take(event)
                self._tell("segmenting")
            self._tell("finishing")
            self._complete()
        except KeyboardInterrupt:
            interrupted = True
        seconds = time.perf_counter() - self._started
        self._release()
        return self._report(seconds, startup_seconds, interrupted)

    def _left(self) -> Iterator[Task]:
        """Return the blocks that aren't done, the image's evenly mixed with the labels'.

        The image's blocks don't use the device, so they hide behind those that do.
        """
        tissue = self._plan.costs.tissue
        queues = [self._left_of(self._opened.labels, self._plan.labels, tissue)]
        if self._opened.image is not None and self._plan.image is not None:
            queues.append(self._left_of(self._opened.image, self._plan.image, frozenset()))
        ranked = (
            [((rank + 1) / len(queue), task) for rank, task in enumerate(queue)] for queue in queues
        )
        return (task for _, task in heapq.merge(*ranked, key=lambda pair: pair[0]))

    def _left_of(
        self,
        run: Run,
        parameters: LabelParameters | ImageParameters,
        tissue: frozenset[BlockIndex],
    ) -> list[Task]:
        progress = self._opened.progress(run)
        indices = parameters.blocks()
        tally = _Tally(parameters.grid, tissue, total=len(indices))
        left = dict.fromkeys(indices)
        for marker in progress.markers():
            if marker.block not in left:
                continue
            if progress.shards_exist(marker):
                tally.take_resumed(marker)
                del left[marker.block]
            else:
                progress.forget(marker.block)
        self._tallies[run.name] = tally
        return [Task(run, index) for index in left]

    def _deadline(self) -> float:
        """Return after how many seconds a submitted block counts as hung."""
        seconds = self._plan.costs.seconds
        if seconds is None:
            return SHORTEST_DEADLINE
        per_block = seconds * self._processes / max(1, len(self._plan.costs.tissue))
        return max(SHORTEST_DEADLINE, DEADLINE_FACTOR * per_block)

    def _take(self, event: Event) -> None:
        if isinstance(event, Done):
            self._tallies[event.task.run.name].take_done(event.marker)
        elif isinstance(event, Failed):
            task = event.task
            self._tallies[task.run.name].failures.append(Failure(task.index, event.error))
            failure = BlockFailure(block=task.index, error=event.error, attempts=task.attempt)
            with suppress(OutputError):  # on a full disk the report alone can tell
                self._opened.progress(task.run).write_failure(failure)

    def _complete(self) -> None:
        """Build the small levels of what has all its blocks, unless that was done before."""
        image, labels = self._plan.image, self._plan.labels
        if image is not None and self._needs_completion(IMAGE):
            complete_image(self._opened, image)
        if self._needs_completion(labels.label):
            complete_labels(self._opened, labels, classes=len(self._spec.classes))

    def _needs_completion(self, name: str) -> bool:
        tally = self._tallies[name]
        if not tally.complete:
            return False
        return tally.done > 0 or not is_complete(self._opened, name)

    def _release(self) -> None:
        for run in (self._opened.labels, self._opened.image):
            if run is not None:
                self._client.run(release_run, run, on_error="ignore")

    @property
    def _labels(self) -> _Tally:
        return self._tallies[self._plan.labels.label]

    def _tell(self, phase: str) -> None:
        tally, seconds = self._labels, time.perf_counter() - self._started
        self._on_progress(
            RunProgress(
                phase=phase,
                blocks_done=tally.resumed + tally.done,
                blocks_total=tally.total,
                blocks_failed=len(tally.failures),
                pixels_done=tally.pixels,
                seconds=seconds,
                mpx_per_s=tally.pixels / seconds / 1e6,
                seconds_left=tally.seconds_left(seconds),
                device_busy=self._device_busy(seconds),
            )
        )

    def _device_busy(self, seconds: float) -> float:
        return min(1.0, self._labels.waits.predict / (seconds * self._processes))

    def _report(self, seconds: float, startup_seconds: float, interrupted: bool) -> Report:
        tallies, labels = self._tallies, self._plan.labels
        state: State = "finished"
        if interrupted:
            state = "interrupted"
        elif not all(tally.complete for tally in tallies.values()):
            state = "incomplete"
        return Report(
            output=str(self._plan.output),
            label=labels.label,
            slide=labels.slide.name,
            state=state,
            blocks=self._labels.blocks(),
            classes=class_areas(self._opened, labels, self._spec),
            seconds=seconds,
            startup_seconds=startup_seconds,
            mpx_per_s=self._labels.pixels / seconds / 1e6,
            waits=self._labels.waits,
            device_busy=self._device_busy(seconds),
            failures=tuple(f for tally in tallies.values() for f in tally.failures),
            image=tallies[IMAGE].blocks() if IMAGE in tallies else None,
            warnings=self._plan.warnings,
            parameters=labels.model_dump(mode="json"),
        )


def class_areas(opened: Opened, labels: LabelParameters, spec: ModelSpec) -> tuple[ClassArea, ...]:
    """Return the area of every class over the blocks that are done."""
    pixels = label_pixels(opened.progress(opened.labels), labels) or [0] * 256
    frame = Frame.of(labels.sampling.downsample, labels.slide.mpp)
    predicted = sum(pixels)
    return tuple(
        ClassArea(
            value=label.value,
            name=label.name,
            color=label.color,
            pixels=pixels[label.value],
            area_mm2=frame.area_mm2(pixels[label.value]),
            fraction=pixels[label.value] / predicted if predicted else 0.0,
        )
        for label in spec.labels
    )
