"""The verb `import_annotations`: from corrected outlines to a table of corrected objects."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsi_unet import logs
from wsi_unet._version import __version__
from wsi_unet.annotations.drawing import PolygonEdges
from wsi_unet.annotations.reading import parse_annotations
from wsi_unet.corrections.edited_file import EditedFeatures, EditedFile, LabelFrame
from wsi_unet.corrections.matching import (
    Matches,
    refuse_foreign,
    refuse_repeated,
    refuse_shifted,
    resolve_classes,
)
from wsi_unet.corrections.options import ImportOptions
from wsi_unet.corrections.parts import DeletedAreas, Edits
from wsi_unet.corrections.rasters import count_pixels
from wsi_unet.corrections.records import (
    EditCounts,
    EditedClass,
    EditedPart,
    EditFiles,
    EditRecord,
    ImportedFile,
    check_free,
    is_current,
    name_block,
)
from wsi_unet.corrections.rows import RowMaker
from wsi_unet.errors import AnnotationError, OptionError, OutputError
from wsi_unet.labels.contents import Output, choose_name, open_output, read_label_names
from wsi_unet.labels.names import edited_name
from wsi_unet.labels.shards import ShardRecord
from wsi_unet.locations import Location
from wsi_unet.objects.painting.stored import StoredObjects
from wsi_unet.objects.scan_origin import Origin, find_scan_origin
from wsi_unet.objects.source import LabelSource
from wsi_unet.objects.table import encode_part
from wsi_unet.storage.locking.lock import LockOwner, OutputLock, acquire
from wsi_unet.wording import count

EDITS_VERSION = 1
"""Changes when the same files and objects give another table."""

Files = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class CorrectionsReport:
    """Counts of what an import of corrections changed.

    Attributes:
        output: path or URL of the result.
        label: the label group.
        table: name of the table of corrected objects: "nuclei.edited".
        files: the files that were imported.
        counts: what became of the objects.
        classes: the classes of the corrected objects, background left out.
        unit: "µm", or "px" (of the slide) where its pixel size isn't known.
        written: whether the table was written; it was there already otherwise.
    """

    output: str
    label: str
    table: str
    files: tuple[str, ...]
    counts: EditCounts
    classes: tuple[EditedClass, ...]
    unit: str
    written: bool

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        document = {each.name: getattr(self, each.name) for each in fields(self)}
        classes = [each.model_dump() for each in self.classes]
        return document | {"counts": self.counts.model_dump(), "classes": classes}


def import_annotations(
    files: Files,
    output: Output,
    *,
    label: str | None = None,
    complete: bool = False,
    complete_within: str | os.PathLike[str] | None = None,
    new_classes: bool = False,
    ignore: Iterable[str] = (),
    origin: tuple[int, int] | None = None,
) -> CorrectionsReport:
    """Import objects that were corrected in QuPath, as a table beside that of the objects.

    >>> report = wsi_unet.import_annotations("edited.geojson", "slide.ome.zarr")  # doctest: +SKIP
    >>> wsi_unet.open_edited_objects("slide.ome.zarr").to_table()                 # doctest: +SKIP

    Outlines with the id of an object are that object: unchanged, of another class, or with other
    pixels. Other outlines are added. An object that isn't in the files stays as it is, unless they
    are said to be complete. The labels and the objects that were found stay as they are.

    Args:
        files: GeoJSON as QuPath exports it (packed by gzip or not), or several such files.
        output: the result: a folder or an s3:// URL.
        label: name of the label group; may be left out if there is only one.
        complete: the files hold every object, so others were deleted.
        complete_within: GeoJSON or ASAP XML with regions of which the files hold every object, so
            others whose centroid lies there were deleted.
        new_classes: keep names of classes that the model doesn't have.
        ignore: names of classes whose outlines aren't objects: they aren't added, and an object
            that has been given such a class is deleted.
        origin: (x, y) px of the slide from which the coordinates of all files count, where QuPath
            doesn't show all of a slide (MRXS, SCN, BIF); None: as the files say, or else the run.

    Returns:
        What became of the objects.

    Raises:
        AnnotationError: a file can't be read, or isn't of these objects; outlines lie outside of
            the slide, have ids twice, or classes that the model doesn't have.
        OptionError: options contradict each other.
        OutputError: there is no such result or label group, its objects weren't found yet or aren't
            current, nothing says from where the files count, or the table can't be written.
        LockedError: another process is writing to the output.
    """
    options = ImportOptions.parse(complete, complete_within, new_classes, ignore, origin)
    given = _read_files(files)
    regions = None if options.complete_within is None else EditedFile.read(options.complete_within)
    store = open_output(output)
    name = choose_name(output, "labels", read_label_names(store), label)
    check_free(store, name)
    with acquire(store, owner=LockOwner.current("import annotations")) as lock:
        (source,) = LabelSource.open_all(store, [name])
        objects = StoredObjects.open(store, name)
        importing = _Import(source, objects, given, regions, options)
        before = importing.files.read()
        record = importing.find_done(before)
        if record is not None:
            importing.files.remove_others(record.signature)  # one that ended early left them
        else:
            store.remove_leftovers()
            record = importing.carry_out(before, lock)
    counts = record.counts
    logs.event("imported annotations", output=str(output), **counts.model_dump())
    return CorrectionsReport(
        output=str(output),
        label=name,
        table=edited_name(name),
        files=tuple(str(file.path) for file in given),
        counts=counts,
        classes=record.classes,
        unit=record.unit,
        written=record is not before,
    )


def _read_files(files: Files) -> list[EditedFile]:
    given = [files] if isinstance(files, str | os.PathLike) else [*files]
    if not given:
        raise OptionError("there are no files to import; give at least one", option="files")
    for each in given:
        if Location.parse(each).is_url:
            raise AnnotationError(f"{each}: must be a file on a disk; copy it there")
    return [EditedFile.read(Path(each).expanduser()) for each in given]


@dataclass(frozen=True, eq=False)
class _Import:
    """One import.

    Attributes:
        source: the labels.
        objects: their objects.
        given: the files.
        regions: the file with the regions that the files are complete in; None for none.
        options: what the caller said.
    """

    source: LabelSource
    objects: StoredObjects
    given: Sequence[EditedFile]
    regions: EditedFile | None
    options: ImportOptions

    @property
    def files(self) -> EditFiles:
        """What is stored."""
        return EditFiles(self.source.store, self.source.run, self.source.label)

    @property
    def signature(self) -> str:
        """Hash of all that decides the table."""
        identity = {
            "edits": EDITS_VERSION,
            "objects": self.objects.signature,
            "labels_finished": self.source.finished,
            "files": sorted(file.sha256 for file in self.given),
            "complete": self.options.complete,
            "regions": None if self.regions is None else self.regions.sha256,
            "new_classes": self.options.new_classes,
            "ignore": self.options.ignore,
            "origin": self.options.origin,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def find_done(self, record: EditRecord | None) -> EditRecord | None:
        """Return the record that is stored, if it is of this import and its table is intact."""
        if record is None or record.signature != self.signature:
            return None
        done = is_current(record, self.objects.record)
        return record if done and self.files.are_stored(record, contents=True) else None

    def carry_out(self, before: EditRecord | None, lock: OutputLock) -> EditRecord:
        """Write the table, then the record; return that.

        Args:
            before: the record of the table before, which stays until this one is complete.
            lock: on the output.

        Raises:
            AnnotationError: the files can't be right; nothing has changed then.
            OutputError: something can't be read or written.
        """
        edits, left_out = self._prepare()
        signature, files = self.signature, self.files
        if before is None or before.signature != signature:
            files.remove_version(signature)  # what an interrupted import left
        parts = {}
        try:
            for block, table in edits.make_parts():
                name = name_block(block)
                data = encode_part(table, self._describe(signature, name))
                lock.check()
                files.store.put(files.find_key(signature, name), data)
                parts[name] = self._record_part(table, data)
        except AnnotationError:
            if before is None or before.signature != signature:
                files.remove_version(signature)
            raise
        edits.tally.add(**left_out)
        record = self._make_record(edits, parts)
        lock.check()
        files.write(record)
        files.remove_others(signature)
        return record

    def _prepare(self) -> tuple[Edits, dict[str, int]]:
        """Return the edits, and how many outlines are left out, by why."""
        source, objects = self.source, self.objects
        features = self._parse()
        self._refuse_unknown_deletions(features)
        refuse_repeated(features)
        matches = Matches.find(features, objects)
        known = matches.known
        others = self._find_of_others(features) & ~known
        refuse_foreign(features, ~known & ~others, known, f"{source.label!r} of {source.store}")
        refuse_shifted(matches.shifts)
        boundaries = {rule.boundary for rule in objects.record.rules.values()}
        classes = resolve_classes(
            features,
            ~others,
            {value: name for value, name in source.classes.items() if name not in boundaries},
            label=source.label,
            taken=source.classes,
            add=self.options.new_classes,
            ignore=self.options.ignore,
        )
        pixels = count_pixels(features.runs, len(features))
        foreign = ~known & ~others
        added = foreign & (classes.values > 0)
        empty = added & (pixels == 0)
        rows = RowMaker(source, classes.names, objects.record.values)
        edits = Edits(
            objects,
            features,
            matches,
            classes,
            added & ~empty,
            self._find_deleted_areas(features.origin),
            rows,
        )
        return edits, {
            "ignored": int((foreign & (classes.values == 0)).sum()),
            "of_other_groups": int(others.sum()),
            "empty": int(empty.sum()) + features.empty,
        }

    def _refuse_unknown_deletions(self, features: EditedFeatures) -> None:
        """Refuse outlines that enclose nothing in files that are said to be complete.

        They are left out with their ids, so objects would be deleted that nobody has deleted.

        Raises:
            AnnotationError: there are some.
        """
        if features.empty and (self.options.complete or self.regions is not None):
            option = "complete" if self.options.complete else "complete_within"
            outlines = count(features.empty, "outline encloses", "outlines enclose")
            raise AnnotationError(
                f"{outlines} nothing, so their objects would be deleted; draw them again or remove "
                f"them from the files, or leave `{option}` out"
            )

    def _parse(self) -> EditedFeatures:
        """Return the outlines of all files.

        Raises:
            AnnotationError: one can't be read, or is of another slide.
            OutputError: nothing says from where one counts.
        """
        frame = LabelFrame(self.source.grid.shape, self.source.downsample)
        own, parsed = self.source.provenance.slide, []
        for file in self.given:
            found = file.parse(frame, self.options.origin, self._find_origin)
            if found.slides and own.fingerprint not in found.slides:
                raise AnnotationError(
                    f"{file.path}: says that its objects are of another slide than "
                    f"{own.name or 'that'} of {self.source.store}; give it the result that it was "
                    "exported from"
                )
            parsed.append(found)
        return EditedFeatures.concatenate(parsed)

    def _find_origin(self) -> Origin:
        """Return from where files count that don't say it.

        Raises:
            OutputError: neither the result nor its slide says it.
        """
        try:
            return find_scan_origin(self.source)
        except OutputError as error:
            raise OutputError(f"{error}, or give `origin`") from error

    def _find_of_others(self, features: EditedFeatures) -> NDArray[np.bool_]:
        """Return which outlines (n,) are of an object of another label group of the result."""
        store, found = self.source.store, np.zeros(len(features), np.bool_)
        for name in read_label_names(store):
            if name != self.source.label:
                try:
                    found |= Matches.find(features, StoredObjects.open(store, name)).known
                except OutputError:  # it has no objects
                    continue
        return found

    def _find_deleted_areas(self, origin: Origin) -> DeletedAreas:
        """Return where absent objects were deleted; coordinates count from `origin`."""
        if self.regions is None:
            return DeletedAreas(self.options.completeness)
        found = parse_annotations(self.regions.path, self.regions.data)
        polygons = [
            tuple(ring + origin for ring in polygon)
            for each in found.annotations
            for polygon in each.polygons
        ]
        return DeletedAreas("regions", PolygonEdges.from_polygons(polygons))

    def _describe(self, signature: str, block: str) -> dict[str, Any]:
        """Return what a part says about itself."""
        return self.source.describe() | {
            "format_version": EDITS_VERSION,
            "version": __version__,
            "edited": True,
            "signature": signature,
            "objects_signature": self.objects.record.signature,
            "files": [file.model_dump() for file in self._name_files()],
            "block": block,
        }

    def _name_files(self) -> tuple[ImportedFile, ...]:
        return tuple(_name_file(file) for file in self.given)

    def _record_part(self, table: pa.Table, data: bytes) -> EditedPart:
        """Return the record of a part."""
        y, x = self.source.downsample
        bbox = table["bbox"].combine_chunks()
        columns = {name: bbox.field(name).to_numpy() for name in ("ymin", "xmin", "ymax", "xmax")}
        box = (
            round(columns["ymin"].min() / y),
            round(columns["xmin"].min() / x),
            round(columns["ymax"].max() / y),
            round(columns["xmax"].max() / x),
        )
        return EditedPart(file=ShardRecord.from_shard(data), box=box)

    def _make_record(self, edits: Edits, parts: dict[str, EditedPart]) -> EditRecord:
        source, tally = self.source, edits.tally
        pixel = source.pixel_size[0] * source.pixel_size[1]
        classes = tuple(
            EditedClass(
                value=value,
                name=name,
                new=value in edits.classes.new,
                objects=(objects := int(tally.objects[value])),
                mean_area=int(tally.pixels[value]) * pixel / objects if objects else None,
            )
            for value, name in sorted(edits.classes.names.items())
        )
        return EditRecord(
            signature=self.signature,
            objects_signature=self.objects.record.signature,
            labels_finished=source.finished,
            imported=datetime.now(UTC).isoformat(timespec="seconds"),
            files=self._name_files(),
            completeness=self.options.completeness,
            regions=None if self.regions is None else _name_file(self.regions),
            counts=tally.finish(),
            classes=classes,
            unit="µm" if source.micrometres else "px",
            values=self.objects.record.values,
            parts=parts,
        )


def _name_file(file: EditedFile) -> ImportedFile:
    name = file.path.name.encode("utf-8", "backslashreplace").decode()
    return ImportedFile(name=name[:1000], sha256=file.sha256)
