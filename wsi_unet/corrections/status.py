"""The status of corrected objects, which anyone who can read a result may ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wsi_unet.corrections.records import EditFiles, EditRecord, is_current
from wsi_unet.errors import OutputError
from wsi_unet.labels.names import edited_name
from wsi_unet.objects.stage import check_current
from wsi_unet.objects.status import read_finished
from wsi_unet.storage.store import ByteStore

EditState = Literal["finished", "outdated", "damaged"]


@dataclass(frozen=True)
class EditStatus:
    """The corrected objects of one label group.

    Attributes:
        label: the label group.
        table: name of their table: "nuclei.edited".
        state: "finished", "outdated" (the objects, or their labels, have changed since) or
            "damaged" (parts are missing or aren't what was written).
        imported: when they were imported, UTC.
        files: names of the files that were imported.
        counts: what became of the objects, by the fields of `EditCounts`.
        classes: the classes of the corrected objects, by the fields of `EditedClass`.
        unit: "µm", or "px" (of the slide) where its pixel size isn't known.
    """

    label: str
    table: str
    state: EditState
    imported: str
    files: tuple[str, ...]
    counts: dict[str, int]
    classes: tuple[dict[str, Any], ...]
    unit: str


def read_edit_status(
    store: ByteStore, run: str, labels: Sequence[str], verify: bool
) -> Iterator[EditStatus]:
    """Yield the status of the corrected objects of label groups; nothing of groups without any.

    Args:
        store: the output.
        run: the run that made the labels.
        labels: its label groups.
        verify: read every part and compare its checksum, rather than only its length.

    Raises:
        OutputError: the store can't be read.
    """
    for label in labels:
        files = EditFiles(store, run, label)
        record = files.read()
        if record is not None:
            yield EditStatus(
                label=label,
                table=edited_name(label),
                state=_find_state(files, record, verify),
                imported=record.imported,
                files=tuple(file.name for file in record.files),
                counts=record.counts.model_dump(),
                classes=tuple(each.model_dump() for each in record.classes),
                unit=record.unit,
            )


def _find_state(files: EditFiles, record: EditRecord, verify: bool) -> EditState:
    try:
        objects = check_current(files.store, files.objects, read_finished(files.objects))
    except OutputError:
        return "outdated"
    if not is_current(record, objects):
        return "outdated"
    return "finished" if files.are_stored(record, contents=verify) else "damaged"
