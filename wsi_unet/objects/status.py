"""The status of the objects of a run's labels, which anyone who can read it may ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from wsi_unet.labels.documents import DamagedError, read_group_attributes
from wsi_unet.objects.records import StageFiles, StageRecord
from wsi_unet.objects.report import ClassObjects, PartFailure
from wsi_unet.storage.store import ByteStore

ObjectState = Literal["finished", "unfinished", "incomplete", "outdated"]


@dataclass(frozen=True)
class ObjectStatus:
    """How far finding the objects of one label group is.

    Attributes:
        label: the label group.
        state: "finished", "unfinished" (blocks are left), "incomplete" (blocks failed) or
            "outdated" (the labels have changed since, or are being computed again).
        unit: "µm", or "px" (of the slide) where its pixel size isn't known.
        area_mm2: area that was predicted; None where the pixel size isn't known.
        blocks: number of blocks with labels, each of which has a part.
        done: number of parts that are stored.
        classes: what was found of each class; empty unless it is finished.
        failures: blocks that failed when it was last tried.
        damaged: number of parts that aren't what was written.
    """

    label: str
    state: ObjectState
    unit: str
    area_mm2: float | None
    blocks: int
    done: int
    classes: tuple[ClassObjects, ...]
    failures: tuple[PartFailure, ...]
    damaged: int = 0

    @property
    def objects(self) -> int:
        """Number of objects of all classes."""
        return sum(each.objects for each in self.classes)


def read_object_status(
    store: ByteStore, run: str, labels: Sequence[str], verify: bool
) -> Iterator[ObjectStatus]:
    """Yield the status of the objects of label groups; nothing of groups without any.

    Args:
        store: the output.
        run: the run that made the labels.
        labels: its label groups.
        verify: read every part and compare its checksum, rather than only its length.

    Raises:
        OutputError: the store can't be read.
    """
    for label in labels:
        files = StageFiles(store, run, label)
        record = files.read_stage()
        if record is not None:
            yield _read_status(files, record, verify)


def _read_status(files: StageFiles, record: StageRecord, verify: bool) -> ObjectStatus:
    sound = Counter(files.check_parts(record.signature, contents=verify))
    state: ObjectState = "unfinished"
    if read_finished(files) != record.labels_finished:
        state = "outdated"
    elif record.finished is not None and sound[True] >= record.blocks:
        state = "finished"
    elif record.failures:
        state = "incomplete"
    return ObjectStatus(
        label=files.label,
        state=state,
        unit=record.unit,
        area_mm2=record.area_mm2,
        blocks=record.blocks,
        done=sound[True],
        classes=record.classes,
        failures=record.failures,
        damaged=sound[False],
    )


def read_finished(files: StageFiles) -> str | None:
    """Return when the labels were finished; None if they aren't."""
    try:
        attributes = read_group_attributes(files.store, f"labels/{files.label}", "labels")
    except DamagedError:
        return None
    finished: str | None = None if attributes is None else attributes["wsi_unet"]["finished"]
    return finished
