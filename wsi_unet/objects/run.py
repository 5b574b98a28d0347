"""`find_objects`: from finished labels to the table of their objects."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import numpy as np

from wsi_unet import logs
from wsi_unet._version import __version__
from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.contents import choose_name, open_output, read_label_names
from wsi_unet.locations import Location
from wsi_unet.objects.faces import Component, Faces, join_faces
from wsi_unet.objects.finding import find_objects_of_block
from wsi_unet.objects.options import NumberPerClass, TextPerClass, resolve_rules
from wsi_unet.objects.records import ClassCounts, PartMarker, StageFiles, StageRecord
from wsi_unet.objects.report import ClassObjects, LabelObjects, ObjectsReport
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.objects.search import Objects, Search
from wsi_unet.objects.source import LabelSource
from wsi_unet.objects.table import TableFrame, encode_part, make_table
from wsi_unet.storage.concurrent import map_in_threads
from wsi_unet.storage.locking.lock import LockOwner, acquire
from wsi_unet.storage.store import ByteStore

THREADS = 2
"""Threads that find objects: most of the work is done without Python's lock."""

TABLE_VERSION = 1
"""Changes when the same labels and rule give another table, so that parts are made again."""


def find_objects(
    output: str | os.PathLike[str] | Location,
    *,
    label: str | None = None,
    split: TextPerClass = None,
    min_area: NumberPerClass = None,
    max_area: NumberPerClass = None,
) -> ObjectsReport:
    """Find, measure and store the objects of finished labels; each once, the same for any blocks.

    >>> report = wsi_unet.find_objects("slide.ome.zarr")          # doctest: +SKIP
    >>> wsi_unet.open_objects("slide.ome.zarr").to_table()        # doctest: +SKIP

    A table that is there already is completed: only what is missing, damaged or was made from other
    labels or by another rule is computed.

    Args:
        output: a finished result: a folder or an s3:// URL.
        label: name of the label group; None takes all of them.
        split: "none", or "distance:H" with a height in µm (px of the slide where its pixel size
            isn't known), for every class, or by the class's name; None: as the model's card says.
        min_area: objects with a smaller area are dropped, µm² (px²); likewise.
        max_area: objects with a larger area are dropped, µm² (px²); likewise.

    Raises:
        OptionError: a rule can't be, or names a class that isn't there.
        OutputError: there is no result, its labels aren't finished or are damaged, or the table
            can't be written.
        LockedError: a run is writing to the output.
    """
    started = time.monotonic()
    store = open_output(output)
    names = read_label_names(store)
    if label is not None or not names:
        names = [choose_name(output, "labels", names, label)]
    with acquire(store, owner=LockOwner.current("find objects")):
        sources = LabelSource.open_all(store, names)
        classes = dict.fromkeys(name for each in sources for name in each.classes.values())
        card = ObjectRule({k: v for each in sources for k, v in each.provenance.rule.root.items()})
        rule = resolve_rules(classes, card, split, min_area, max_area)
        store.remove_leftovers()
        labels = tuple(_Stage.plan(source, rule).execute() for source in sources)
    seconds = time.monotonic() - started
    total = sum(each.objects for each in labels)
    logs.event("found objects", output=str(output), objects=total, seconds=round(seconds, 3))
    return ObjectsReport(str(output), labels, seconds)


@dataclass(frozen=True, eq=False)
class _Stage:
    """Finding the objects of one label group."""

    source: LabelSource
    files: StageFiles
    search: Search
    frame: TableFrame
    rule: ObjectRule
    signature: str

    @classmethod
    def plan(cls, source: LabelSource, rule: ObjectRule) -> _Stage:
        rules = rule.complete(source.classes)
        frame = TableFrame(
            columns=source.grid.shape[1],
            downsample=source.downsample,
            pixel_size=source.pixel_size,
            micrometres=source.micrometres,
            classes=source.classes,
            rules=rules,
            fingerprint=source.provenance.slide.fingerprint,
            model=source.provenance.model.sha256,
        )
        own = ObjectRule({source.classes[value]: each for value, each in rules.items()})
        identity = {
            "table": TABLE_VERSION,
            "labels": source.describe(),
            "rule": own.model_dump(mode="json"),
            "predicted": source.hash_predicted(),
        }
        text = json.dumps(identity, sort_keys=True)
        return cls(
            source,
            StageFiles(source.store, source.run, source.label),
            Search(source.grid, rules, source.pixel_size),
            frame,
            own,
            hashlib.sha256(text.encode()).hexdigest(),
        )

    def execute(self) -> LabelObjects:
        """Compute what is missing; every part is there afterwards."""
        blocks = sorted(self.source.shards)
        faces = dict(zip(blocks, map_in_threads(self._find_faces, blocks, THREADS), strict=True))
        owned = join_faces(self.source.grid, faces)
        inputs = {block: self._hash_inputs(block, owned.get(block, [])) for block in blocks}

        def read_marker(block: BlockIndex) -> PartMarker | None:
            return self.files.read_part_marker(block, inputs[block])

        markers = dict(zip(blocks, map_in_threads(read_marker, blocks, THREADS), strict=True))
        missing = [block for block in blocks if markers[block] is None]
        before = self.files.read_stage()
        stored = self._list_stored(markers)
        stale = set(self.files.list_parts()) - stored
        record = StageRecord(
            signature=self.signature,
            rules=self.rule.root,
            labels_finished=self.source.finished,
        )
        if missing or stale or before is None or not self._is_current(before):
            self.files.write_stage(record)
            make = partial(self._make_part, owned, inputs)
            for block, marker in zip(missing, map_in_threads(make, missing, THREADS), strict=True):
                markers[block] = marker
            found = self._list_stored(markers)
            for key in stale - found:
                self.files.store.delete(key)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            update = {"finished": now, "parts": len(found)}
            self.files.write_stage(record.model_copy(update=update))
        return self._report([m for m in markers.values() if m is not None], len(missing))

    def _list_stored(self, markers: Mapping[BlockIndex, PartMarker | None]) -> set[str]:
        """Return the keys of the parts that the markers say are stored."""
        return {
            self.files.part_key(block)
            for block, marker in markers.items()
            if marker is not None and not marker.file.empty
        }

    def _is_current(self, record: StageRecord) -> bool:
        return (
            record.finished is not None
            and record.signature == self.signature
            and record.labels_finished == self.source.finished
        )

    def _find_faces(self, block: BlockIndex) -> Faces:
        """Return what touches a block's faces, as found before if that was in the same labels."""
        core, checksum = self.source.grid.core(block), self.source.shards[block]
        faces = self.files.read_faces(block, core, checksum)
        if faces is None:
            faces = Faces.find(self.source.labels(core), self.source.grid, block)
            self.files.write_faces(block, checksum, faces)
        return faces

    def _hash_inputs(self, block: BlockIndex, owned: Sequence[Component]) -> str:
        """Return the hash of all that a part is made from: the rule, and labels by checksum."""
        shards = self.source.shards
        touched = [
            [each.first, *_sides(each), [shards[other] for other in each.blocks]] for each in owned
        ]
        text = json.dumps([self.signature, block, shards[block], touched])
        return hashlib.sha256(text.encode()).hexdigest()

    def _make_part(
        self,
        owned: dict[BlockIndex, list[Component]],
        inputs: dict[BlockIndex, str],
        block: BlockIndex,
    ) -> PartMarker:
        objects = find_objects_of_block(self.source, self.search, block, owned.get(block, []))
        data = None
        if len(objects):
            provenance = self.source.describe() | {
                "format_version": TABLE_VERSION,
                "version": __version__,
                "rule": self.rule.model_dump(mode="json"),
                "signature": self.signature,
                "block": list(block),
            }
            data = encode_part(make_table(objects, self.frame), provenance)
        return self.files.write_part(block, data, inputs[block], _count_classes(objects))

    def _report(self, markers: Sequence[PartMarker], computed: int) -> LabelObjects:
        source = self.source
        pixel = source.pixel_size[0] * source.pixel_size[1]
        area = source.predicted_pixels * pixel / 1e6 if source.micrometres else None
        classes = []
        for value, name in sorted(source.classes.items()):
            each = sum((m.classes.get(str(value), ClassCounts()) for m in markers), ClassCounts())
            rule = self.search.rules[value]
            classes.append(
                ClassObjects(
                    value=value,
                    name=name,
                    objects=each.objects,
                    mean_area=each.pixels * pixel / each.objects if each.objects else None,
                    density_per_mm2=each.objects / area if area else None,
                    large=each.large,
                    dropped_small=each.dropped_small,
                    dropped_large=each.dropped_large,
                    rule="none" if rule.h is None else f"distance:{rule.h:g}",
                )
            )
        unit = "µm" if source.micrometres else "px"
        return LabelObjects(source.label, unit, area, len(markers), computed, tuple(classes))


def _sides(component: Component) -> list[int]:
    box = component.box
    return [box.y0, box.x0, box.y1, box.x1]


def _count_classes(objects: Objects) -> dict[str, ClassCounts]:
    """Return what a part holds, by label value; values that it knows nothing about are left out."""
    counts = {}
    for value in sorted({*objects.dropped, *objects.values.tolist()}):
        own = objects.values == value
        small, big = objects.dropped.get(value, (0, 0))
        counts[str(value)] = ClassCounts(
            objects=int(np.count_nonzero(own)),
            pixels=int(objects.sums.moments[own, 0].sum()),
            large=int(np.count_nonzero(objects.large[own])),
            dropped_small=small,
            dropped_large=big,
        )
    return counts


def check_current(store: ByteStore, files: StageFiles, finished: str | None) -> StageRecord:
    """Return the record of a label group's objects, all of which are there.

    Args:
        store: the output.
        files: the group's files.
        finished: when its labels were finished; None if they aren't.

    Raises:
        OutputError: there are none, or some are missing, or they belong to other labels.
    """
    record = files.read_stage()
    again = "find objects again, which computes what is missing"
    if record is None:
        raise OutputError(
            f"{store}: no objects of {files.label!r} are stored; find objects to make them"
        )
    if finished is None or record.labels_finished != finished:
        raise OutputError(
            f"{store}: the objects of {files.label!r} belong to earlier labels; {again}"
        )
    if record.finished is None:
        raise OutputError(f"{store}: the objects of {files.label!r} aren't finished; {again}")
    return record
