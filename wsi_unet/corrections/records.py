"""What is stored of corrections: a table per import, and the record that makes it count.

    <output>/objects/<label>.edited/<version>/<i>.<j>.parquet    the parts of the table
    <output>/.wsi_unet/<run>/objects/<label>.edited/edits.json   its record, put last

A version is named after the import's signature. The record names the version, so an import that was
interrupted leaves the table before as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.contents import read_label_names
from wsi_unet.labels.documents import Count, LabelValue, StoredDocument, Text
from wsi_unet.labels.names import OBJECTS, edited_name
from wsi_unet.labels.shards import Checksum, ShardRecord
from wsi_unet.objects.records import StageFiles, StageRecord
from wsi_unet.objects.report import Measure
from wsi_unet.objects.stage import check_current
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.store import ByteStore, get_bounded

MOST_RECORD_BYTES = 1 << 26
VERSION_DIGITS = 12

Completeness = Literal["partial", "whole", "regions"]
"""Which objects that aren't in the files were deleted: none, all, or those in some regions."""

BlockName = Annotated[str, Field(pattern=r"^\d{1,9}\.\d{1,9}$")]


class EditCounts(StoredDocument):
    """What became of the objects; each counts once.

    Attributes:
        unchanged: objects in the files with the pixels and class that they had.
        reclassified: those of another class, with the pixels that they had.
        reshaped: those of other pixels, whatever their class.
        added: objects that weren't there before.
        deleted: objects that aren't in the files, or of a class that is ignored there.
        absent: objects that aren't in the files, and stay as they are.
        ignored: outlines that weren't added because their class is ignored.
        of_other_groups: outlines of the objects of other label groups, which were left out.
        empty: outlines that cover no pixel, which were left out.
    """

    unchanged: Count = 0
    reclassified: Count = 0
    reshaped: Count = 0
    added: Count = 0
    deleted: Count = 0
    absent: Count = 0
    ignored: Count = 0
    of_other_groups: Count = 0
    empty: Count = 0

    @property
    def objects(self) -> int:
        """Number of objects after the edits."""
        return self.unchanged + self.reclassified + self.reshaped + self.added + self.absent


class EditedClass(StoredDocument):
    """A class of the corrected objects.

    Attributes:
        value: label value.
        name: its name.
        new: whether the model doesn't have it.
        objects: number of its objects.
        mean_area: their mean area, in the record's unit of area; None without objects.
    """

    value: LabelValue
    name: Text
    new: bool
    objects: Count
    mean_area: Measure | None


class ImportedFile(StoredDocument):
    """A file that was imported.

    Attributes:
        name: its name.
        sha256: checksum of its bytes.
    """

    name: Text
    sha256: Checksum


class EditedPart(StoredDocument):
    """A part of the table.

    Attributes:
        file: the record of its file.
        box: (y0, x0, y1, x1) of its objects, px of the labels.
    """

    file: ShardRecord
    box: tuple[Count, Count, Count, Count]


class EditRecord(StoredDocument):
    """What a table of corrected objects was made from.

    Attributes:
        signature: hash of the objects before, the files and what was said about them.
        objects_signature: signature of the objects before.
        labels_finished: when the labels were finished that those belong to.
        imported: when it was made, UTC.
        files: the files, in the order in which they were given.
        completeness: which absent objects were deleted.
        regions: the file with the regions in which they were; None for none.
        counts: what became of the objects.
        classes: the classes, background left out.
        unit: "µm", or "px" (of the slide) where its pixel size isn't known.
        values: the columns of what the pixels of objects have.
        parts: the parts by block.
    """

    format_version: Literal[1] = 1
    signature: Checksum
    objects_signature: Checksum
    labels_finished: Text
    imported: Text
    files: Annotated[tuple[ImportedFile, ...], Field(min_length=1, max_length=10_000)]
    completeness: Completeness
    regions: ImportedFile | None = None
    counts: EditCounts
    classes: Annotated[tuple[EditedClass, ...], Field(max_length=255)]
    unit: Literal["µm", "px"]
    values: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    parts: dict[BlockName, EditedPart]

    @property
    def class_names(self) -> dict[int, str]:
        """The names of the classes by label value."""
        return {each.value: each.name for each in self.classes}


@dataclass(frozen=True)
class EditFiles:
    """The files of the corrections of one label group's objects.

    Attributes:
        store: the output.
        run: name of the run that made the labels.
        label: name of the label group.
    """

    store: ByteStore
    run: str
    label: str

    @property
    def objects(self) -> StageFiles:
        """The files of the objects before."""
        return StageFiles(self.store, self.run, self.label)

    @property
    def folder(self) -> str:
        """Key of the folder of all versions of the table."""
        return f"{OBJECTS}/{edited_name(self.label)}"

    def find_version(self, signature: str) -> str:
        """Return the key of the folder of an import's parts."""
        return f"{self.folder}/{signature[:VERSION_DIGITS]}"

    def find_key(self, signature: str, block: str) -> str:
        """Return the key of a part."""
        return f"{self.find_version(signature)}/{block}.parquet"

    @property
    def _key(self) -> str:
        return f"{BOOKKEEPING}/{self.run}/objects/{edited_name(self.label)}/edits.json"

    def read(self) -> EditRecord | None:
        """Return the record, None if there is no sound one."""
        data = get_bounded(self.store, self._key, MOST_RECORD_BYTES)
        try:
            return None if data is None else EditRecord.model_validate_json(data)
        except ValidationError:
            return None

    def write(self, record: EditRecord) -> None:
        """Store the record: from now on its table counts."""
        self.store.put(self._key, record.model_dump_json().encode())

    def are_stored(self, record: EditRecord, *, contents: bool) -> bool:
        """Return whether all parts are stored as the record says.

        Args:
            record: the record.
            contents: read the parts too, rather than only compare their lengths.
        """
        keys = {
            self.find_key(record.signature, block): each.file
            for block, each in record.parts.items()
        }
        if contents:
            return all(file.is_intact(self.store, key) for key, file in keys.items())
        return all(self.store.size(key) == file.length for key, file in keys.items())

    def remove_others(self, signature: str) -> None:
        """Remove the parts of all imports but one."""
        kept, start = self.find_version(signature), len(self.folder) + 1
        versions = {key[start:].partition("/")[0] for key in self.store.list(self.folder)}
        for version in sorted(versions):
            if f"{self.folder}/{version}" != kept:
                self.store.delete_all(f"{self.folder}/{version}")

    def remove_version(self, signature: str) -> None:
        """Remove the parts of an import."""
        self.store.delete_all(self.find_version(signature))


def check_free(store: ByteStore, label: str) -> None:
    """Refuse a label group whose corrections would have the name of another label group.

    Raises:
        OutputError: there is one.
    """
    if edited_name(label) in read_label_names(store):
        raise OutputError(
            f"{store}: 'labels/{edited_name(label)}' are the labels of a run, so the corrected "
            f"objects of {label!r} can't be stored beside them; segment one of the two into "
            "another output"
        )


def is_current(record: EditRecord, objects: StageRecord) -> bool:
    """Return whether corrections are of these objects."""
    return (
        record.objects_signature == objects.signature
        and record.labels_finished == objects.labels_finished
    )


def check_current_edits(files: EditFiles, finished: str | None) -> EditRecord:
    """Return the record of a label group's corrections, which are of its objects as they are.

    Args:
        files: the group's files.
        finished: when its labels were finished; None if they aren't.

    Raises:
        OutputError: there are none, or the objects or labels have changed since.
    """
    record = files.read()
    if record is None:
        raise OutputError(
            f"{files.store}: no corrected objects of {files.label!r} are stored; import "
            "annotations to make them"
        )
    try:
        objects = check_current(files.store, files.objects, finished)
    except OutputError as error:
        raise OutputError(f"{error}, and import the annotations again") from error
    if not is_current(record, objects):
        raise OutputError(
            f"{files.store}: the corrected objects of {files.label!r} are outdated: objects were "
            "found anew since; export and correct those, or find them as before"
        )
    return record


def name_block(block: BlockIndex) -> str:
    """Return the name of a block's part.

    >>> name_block((3, 12))
    '3.12'
    """
    return f"{block[0]}.{block[1]}"
