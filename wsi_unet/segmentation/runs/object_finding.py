"""Finding the objects of an output's label groups on a cluster."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence

from distributed import Client

from wsi_unet import logs
from wsi_unet.dask_cluster.workers import ask_workers, list_workers, runs_in_this_process
from wsi_unet.objects.intensities.quantities import Measured
from wsi_unet.objects.report import LabelObjects
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.objects.source import LabelSource
from wsi_unet.objects.stage import Stage
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.report import RunProgress
from wsi_unet.segmentation.runs.group_finding import GroupFinding
from wsi_unet.segmentation.worker.any_task import AnyRun
from wsi_unet.segmentation.worker.object_task import (
    ObjectTask,
    release_objects,
    share_stage,
)
from wsi_unet.storage.locking.lock import OutputLock

FINDING = "finding objects"
STOP_SECONDS = 5.0
"""How long a worker may take to confirm that it starts no more tasks."""


class ObjectFinding:
    """Finding the objects of label groups, whose labels are finished.

    Args:
        client: the cluster.
        sources: the labels.
        rule: the rules of classes by name.
        lock: on the output, held until `close`.
        limits: how patient to be.
        measure: what is measured on the slide.

    Raises:
        SlideError: the slide can't be opened.
        OutputError: it isn't the same any more, or it can't be recorded that the objects are being
            found.
        OptionError: it is grey, so its stains can't be measured.
    """

    def __init__(
        self,
        client: Client,
        sources: Sequence[LabelSource],
        rule: ObjectRule,
        lock: OutputLock,
        limits: Limits,
        measure: Collection[Measured] = (),
    ) -> None:
        self._client = client
        self._here = runs_in_this_process(client)
        self._lock = lock
        self._output = str(sources[0].store)
        self._slide = sources[0].provenance.slide.name
        self._groups: dict[AnyRun, GroupFinding] = {}
        self._started = time.perf_counter()
        session = uuid.uuid4().hex[:12]
        for source in sources:
            stage = Stage.plan(source, rule, measure)
            group = GroupFinding(stage, session, limits)
            if self._here:
                share_stage(group.run, stage)
            else:
                stage.close()  # workers open their own
            self._groups[group.run] = group
        for group in self._groups.values():
            group.begin()

    @property
    def slide(self) -> str:
        """The slide's file name."""
        return self._slide

    @property
    def runs(self) -> tuple[AnyRun, ...]:
        """The label groups whose objects are found."""
        return tuple(self._groups)

    @property
    def lost(self) -> bool:
        """Whether another process has taken the output over."""
        return self._lock.lost

    @property
    def waits(self) -> bool:
        """Whether there will be tasks once those in flight have ended, although there is none."""
        return not self.lost and any(not each.exhausted for each in self._groups.values())

    @property
    def objects(self) -> tuple[LabelObjects, ...]:
        """What was found so far, by label group."""
        return tuple(group.report() for group in self._groups.values())

    def start(self) -> None:
        """Start the clock; the first task is about to be submitted."""
        self._started = time.perf_counter()
        logs.event(FINDING, slide=self.slide, output=self._output)

    def next_task(self) -> ObjectTask | None:
        """Return the next task; None if there is none now, or another process has taken over."""
        if self.lost:
            return None
        tasks = (group.next_task() for group in self._groups.values())
        return next((task for task in tasks if task is not None), None)

    def record(self, event: BlockDone | BlockFailed) -> None:
        """Record what became of a task."""
        self._groups[event.task.run].record(event)

    def complete(self) -> None:
        """Record that the tables are complete, or which blocks failed.

        Raises:
            OutputError: that can't be written, or another process has taken over.
        """
        if self._here:
            for group in self._groups.values():
                release_objects(group.run)
        self._lock.check()
        for group in self._groups.values():
            group.finish()

    def stop(self) -> None:
        """Have the workers start no more tasks."""
        workers = list_workers(self._client)
        for run in self._groups:
            ask_workers(self._client, workers, release_objects, run, seconds=STOP_SECONDS)

    def close(self) -> None:
        """Unlock the output."""
        self._lock.release()

    def measure_progress(self) -> RunProgress:
        """Return how far it is."""
        groups = self._groups.values()
        return RunProgress(
            phase=FINDING,
            slide=self.slide,
            output=self._output,
            blocks_done=sum(each.done for each in groups),
            blocks_total=sum(each.blocks for each in groups),
            blocks_failed=sum(each.failed for each in groups),
            seconds=time.perf_counter() - self._started,
        )
