"""Finding the objects of one label group: what decides them, and the work on each block.

Nothing here knows of Dask, or who asks for which block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsi_unet._version import __version__
from wsi_unet.errors import OutputError
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.shards import ShardRecord
from wsi_unet.objects.faces import Faces
from wsi_unet.objects.finding import find_objects_of_block
from wsi_unet.objects.intensities.quantities import Measured
from wsi_unet.objects.intensities.stored_values import StoredValues
from wsi_unet.objects.joining import Component
from wsi_unet.objects.reach import PartReach
from wsi_unet.objects.records import ClassCounts, PartMarker, StageFiles, StageRecord
from wsi_unet.objects.report import ClassObjects
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.objects.search import Objects, Search
from wsi_unet.objects.source import LabelSource
from wsi_unet.objects.table import TableFrame, encode_part, make_table
from wsi_unet.storage.store import ByteStore

TABLE_VERSION = 1
"""Changes when the same labels and rule give another table, so that parts are made again."""


@dataclass(frozen=True)
class MadePart:
    """A part that is stored.

    Attributes:
        marker: its marker.
        computed: whether it was computed now, rather than found intact.
    """

    marker: PartMarker
    computed: bool


@dataclass(frozen=True, eq=False)
class Stage:
    """Finding the objects of one label group by one rule.

    Attributes:
        source: the labels.
        files: what is stored.
        search: what is searched for.
        frame: where the labels lie on the slide, and what identifies their objects.
        rule: the rule of every class, by name.
        values: what the pixels of objects have, and is measured; None: nothing.
        signature: hash of all that decides the table but for the labels.
    """

    source: LabelSource
    files: StageFiles
    search: Search
    frame: TableFrame
    rule: ObjectRule
    values: StoredValues | None
    signature: str

    @classmethod
    def plan(
        cls, source: LabelSource, rule: ObjectRule, measure: Collection[Measured] = ()
    ) -> Stage:
        """Return the stage for some labels, to be closed; nothing is written.

        Args:
            source: the labels.
            rule: the rules of classes by name; those that aren't classes of the labels don't count.
            measure: what is measured on the slide, which is opened for it: "intensity", "stain".

        Raises:
            SlideError: the slide can't be opened.
            OutputError: it isn't the same any more.
            OptionError: it is grey, so its stains can't be measured.
        """
        values = StoredValues.open(measure, source.slide, source.probabilities)
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
            quantities=() if values is None else values.quantities,
        )
        own = ObjectRule({source.classes[value]: each for value, each in rules.items()})
        identity = {
            "table": TABLE_VERSION,
            "labels": source.describe(),
            "rule": own.model_dump(mode="json"),
            "predicted": source.hash_predicted(),
        }
        if values is not None:  # tables without keep the signature they had before there were any
            identity["values"] = values.identify()
        text = json.dumps(identity, sort_keys=True)
        return cls(
            source,
            StageFiles(source.store, source.run, source.label),
            Search(
                source.grid,
                rules,
                source.pixel_size,
                values=values,
                boundaries=rule.find_boundaries(source.classes),
            ),
            frame,
            own,
            values,
            hashlib.sha256(text.encode()).hexdigest(),
        )

    def make_record(self) -> StageRecord:
        """Return the record of the stage, not finished yet."""
        return StageRecord(
            signature=self.signature,
            rules=self.rule.root,
            labels_finished=self.source.finished,
            blocks=len(self.source.shards),
            unit="µm" if self.source.micrometres else "px",
            area_mm2=self.source.area_mm2,
            measure=() if self.values is None else self.values.measure,
            values=self.frame.value_columns,
        )

    def close(self) -> None:
        """Close the slide, where it was opened."""
        if self.values is not None:
            self.values.close()

    def is_current(self, record: StageRecord | None) -> bool:
        """Return whether a record says that the table is finished, and is this one."""
        return (
            record is not None
            and record.finished is not None
            and record.signature == self.signature
            and record.labels_finished == self.source.finished
        )

    def find_faces(self, block: BlockIndex) -> Faces:
        """Return what touches a block's faces, as found before if that was in the same labels.

        Raises:
            OutputError: the labels can't be read.
        """
        core, checksum = self.source.grid.core(block), self.source.shards[block]
        faces = self.files.read_faces(block, core, checksum)
        if faces is None:
            faces = Faces.find(self.source.labels(core), self.source.grid, block)
            self._check_wanted()
            self.files.write_faces(block, checksum, faces)
        return faces.without({*self.search.boundaries.values()})

    def make_part(self, block: BlockIndex, owned: Sequence[Component]) -> MadePart:
        """Find, measure and store the objects that begin in a block, unless they are there.

        Args:
            block: the block.
            owned: the components that begin in it and touch faces that it shares.

        Raises:
            OutputError: the labels can't be read, or the part can't be written.
        """
        inputs = self._hash_inputs(block, owned)
        before = self.files.read_part_marker(block, inputs)
        if before is not None:
            return MadePart(before, computed=False)
        objects = find_objects_of_block(self.source, self.search, block, owned)
        data = None
        if len(objects):
            provenance = self.source.describe() | {
                "format_version": TABLE_VERSION,
                "version": __version__,
                "rule": self.rule.model_dump(mode="json"),
                "signature": self.signature,
                "block": list(block),
            }
            if self.values is not None:
                provenance["values"] = self.values.identify()
            data = encode_part(make_table(objects, self.frame), provenance)
        self._check_wanted()
        marker = PartMarker(
            inputs=inputs,
            file=ShardRecord.from_shard(data),
            classes=_count_classes(objects),
            reach=PartReach.of(objects, self.source.grid.side),
            signature=self.signature,
        )
        self.files.write_part(block, data, marker)
        return MadePart(marker, computed=True)

    def _check_wanted(self) -> None:
        """Refuse to store what is no longer wanted: a task can outlive the run that wanted it.

        Raises:
            OutputError: another rule, or other labels, have replaced these.
        """
        record = self.files.read_stage()
        if record is None or record.signature != self.signature:
            raise OutputError(f"objects of {self.files.label!r} are being found by another rule")

    def _hash_inputs(self, block: BlockIndex, owned: Sequence[Component]) -> str:
        """Return the hash of all that a part is made from: the rule, and labels by checksum."""
        identify = self.source.identify_block
        touched = [
            [each.first, *_sides(each), [identify(other) for other in each.blocks]]
            for each in owned
        ]
        near = self.search.find_neighbours(block, [each.box for each in owned])
        around = [[other, identify(other)] for other in near if other in self.source.shards]
        inputs = [self.signature, block, identify(block), touched, *([around] if near else [])]
        text = json.dumps(inputs)
        return hashlib.sha256(text.encode()).hexdigest()

    def summarise(self, totals: Mapping[str, ClassCounts]) -> tuple[ClassObjects, ...]:
        """Return the classes with the numbers of their objects.

        Args:
            totals: the sums over all parts, by label value.
        """
        source = self.source
        pixel, area = source.pixel_size[0] * source.pixel_size[1], source.area_mm2
        classes = []
        for value, name in sorted(source.classes.items()):
            if value in self.search.boundaries.values():
                continue
            each, rule = totals.get(str(value), ClassCounts()), self.search.rules[value]
            found = ClassObjects(
                value=value,
                name=name,
                objects=each.objects,
                mean_area=each.pixels * pixel / each.objects if each.objects else None,
                density_per_mm2=each.objects / area if area else None,
                large=each.large,
                dropped_small=each.dropped_small,
                dropped_large=each.dropped_large,
                rule=rule.describe(),
            )
            classes.append(found)
        return tuple(classes)


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
