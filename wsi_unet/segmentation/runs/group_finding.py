"""Finding the objects of one label group on a cluster, as its client sees it.

First the faces of blocks come, row by row; joining them decides which block finishes which
component, and then the block's own part can be made. What is held is what may still grow, and
totals: no object, and no block that is done.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

from wsi_unet import logs
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.group_files import hide_folder
from wsi_unet.labels.names import OBJECTS
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.joining import Component, FaceJoiner
from wsi_unet.objects.painting.label_image import clear_object_image
from wsi_unet.objects.records import MOST_FAILURES, ClassCounts
from wsi_unet.objects.report import LabelObjects, PartFailure
from wsi_unet.objects.stage import MadePart, Stage
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.policy import Limits, estimate_deadline
from wsi_unet.segmentation.worker.object_task import FacesTask, ObjectRun, ObjectTask, PartTask

USUAL_PIXELS = 2e6
"""Label pixels per second in which a worker surely finds objects; bounds the time of a task."""

LONGEST_ERROR = 1000
"""Characters of an error that are stored."""


class GroupFinding:
    """The tasks of one stage, and what became of them.

    Args:
        stage: what is to be found.
        session: distinguishes this execution of the stage.
        limits: how patient to be.
    """

    def __init__(self, stage: Stage, session: str, limits: Limits) -> None:
        self._stage = stage
        self._limits = limits
        source = stage.source
        self.run = ObjectRun(str(source.store), source.label, source.run, stage.signature, session)
        blocks = sorted(source.shards)
        self._joiner = FaceJoiner(source.grid, blocks)
        self._faces = deque(blocks)
        self._parts: deque[PartTask] = deque()
        self._in_flight = 0
        self._before = stage.files.read_stage()
        self._totals: dict[str, ClassCounts] = {}
        self._stored: set[BlockIndex] = set()
        self._failures: list[PartFailure] = []
        self.blocks = len(blocks)
        """How many blocks have labels, and so faces and a part."""
        self.done = self.computed = 0
        """How many parts are stored, and how many of them were computed now."""

    @property
    def failed(self) -> int:
        """How many blocks failed."""
        return len(self._failures)

    @property
    def exhausted(self) -> bool:
        """Whether no task is left or in flight."""
        return not (self._faces or self._parts or self._in_flight)

    def begin(self) -> None:
        """Record the stage before its first task, unless the table is complete as it is.

        Raises:
            OutputError: that can't be written.
        """
        if not self._stage.is_current(self._before):
            clear_object_image(self._stage.files)  # it shows the objects of the table before
            hide_folder(self._stage.files.store, OBJECTS)
            self._stage.files.write_stage(self._stage.make_record())

    def next_task(self) -> ObjectTask | None:
        """Return the next task; None if there is none now."""
        if self._parts:
            self._in_flight += 1
            return self._parts.popleft()
        if self._faces:
            self._in_flight += 1
            block = self._faces.popleft()
            area = self._stage.source.grid.core(block).area
            return FacesTask(self.run, block, deadline=self._estimate_deadline(area))
        return None

    def record(self, event: BlockDone | BlockFailed) -> None:
        """Record what became of a task."""
        self._in_flight -= 1
        block = event.task.index
        if isinstance(event, BlockFailed):
            logs.event("objects failed", label=self.run.name, block=block, error=event.error)
            self._failures.append(PartFailure(block, event.error[:LONGEST_ERROR]))
        elif isinstance(event.result, Faces):
            for index, owned in self._joiner.add(block, event.result):
                self._parts.append(self._make_task(index, owned))
        elif isinstance(event.result, MadePart):
            self._count(block, event.result)

    def finish(self) -> None:
        """Record that the table is complete, or which blocks failed.

        If neither is known, because it ended early, the record stays: a table that was complete
        hasn't lost anything.

        Raises:
            OutputError: that can't be written.
        """
        files, record = self._stage.files, self._stage.make_record()
        if self._failures:
            failures = tuple(self._failures[:MOST_FAILURES])
            files.write_stage(record.model_copy(update={"failures": failures}))
        if self.done < self.blocks:
            return
        keys = {files.part_key(block) for block in self._stored}
        stale = set(files.list_parts()) - keys
        for key in stale:
            files.store.delete(key)
        files.forget_other_blocks(self._stage.source.shards)
        if self.computed or stale or not self._stage.is_current(self._before):
            update = {
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "parts": len(keys),
                "classes": self._stage.summarise(self._totals),
            }
            files.write_stage(record.model_copy(update=update))

    def report(self) -> LabelObjects:
        """Return what was found so far."""
        source = self._stage.source
        return LabelObjects(
            label=source.label,
            unit="µm" if source.micrometres else "px",
            area_mm2=source.area_mm2,
            parts=self.done,
            computed=self.computed,
            left=self.blocks - self.done,
            failures=tuple(self._failures),
            classes=self._stage.summarise(self._totals),
        )

    def _make_task(self, block: BlockIndex, owned: list[Component]) -> PartTask:
        area = self._stage.source.grid.core(block).area + sum(each.box.area for each in owned)
        return PartTask(self.run, block, owned=tuple(owned), deadline=self._estimate_deadline(area))

    def _estimate_deadline(self, pixels: int) -> float:
        return estimate_deadline(pixels / USUAL_PIXELS, 0.0, self._limits)

    def _count(self, block: BlockIndex, part: MadePart) -> None:
        self.done += 1
        self.computed += part.computed
        if not part.marker.file.empty:
            self._stored.add(block)
        for value, counts in part.marker.classes.items():
            self._totals[value] = self._totals.get(value, ClassCounts()) + counts
