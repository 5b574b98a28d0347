"""Which classes are exported, as which kind of QuPath's objects, and what they are called."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsi_unet.colour import Colour
from wsi_unet.errors import OptionError, OutputError
from wsi_unet.exports.options import ANNOTATION, DETECTION, ExportOptions
from wsi_unet.exports.results import ExportedGroup, ExportedObjects

MOST_ANNOTATIONS = 10_000
"""Most annotations of a class, unless `objects_as` asks for them: QuPath hangs on more."""


@dataclass(frozen=True)
class QuPathClass:
    """A class that is exported.

    Attributes:
        value: its label value.
        name: what QuPath calls it.
        colour: its colour.
        kind: "annotation" or "detection".
        objects: number of its objects.
    """

    value: int
    name: str
    colour: Colour
    kind: str
    objects: int

    def describe(self) -> dict[str, Any]:
        """Return what the file says about it, as JSON-able values."""
        return {
            "name": self.name,
            "color": list(self.colour),
            "objectType": self.kind,
            "objects": self.objects,
        }

    def write_properties(self) -> str:
        """Return the properties of its objects as JSON, without the brace at the end."""
        properties = {
            "objectType": self.kind,
            "classification": {"name": self.name, "color": list(self.colour)},
        }
        text = json.dumps(properties, ensure_ascii=False, separators=(",", ":"))
        return text.removesuffix("}")


@dataclass(frozen=True, eq=False)
class ClassGroup:
    """A label group that is exported.

    Attributes:
        group: the group.
        objects: its objects.
        classes: those of its classes that are exported.
    """

    group: ExportedGroup
    objects: ExportedObjects
    classes: tuple[QuPathClass, ...]

    @property
    def complete(self) -> bool:
        """Whether all of its objects are exported."""
        return len(self) == len(self.objects)

    def __len__(self) -> int:
        return sum(each.objects for each in self.classes)


def choose_classes(groups: Sequence[ExportedGroup], options: ExportOptions) -> list[ClassGroup]:
    """Return the classes of label groups that are exported.

    Objects become detections if the components of their class are single objects, and annotations
    otherwise, unless `objects_as` chooses one of the two for all. If several groups have a class of
    the same name, the group's name stands before it.

    Raises:
        OptionError: no group has the class, several have the same objects, or there would be more
            annotations than QuPath can show.
        OutputError: objects aren't there, or not current.
    """
    found = {group: group.open_objects() for group in groups}
    _check_identities(groups)
    names = Counter(name for group in groups for name in group.source.classes.values())
    if options.class_name is not None and options.class_name not in names:
        raise OptionError(
            f"`class_name` is {options.class_name!r}; give one of {', '.join(names)}",
            option="class_name",
        )
    return [
        ClassGroup(group, objects, tuple(_choose(group, objects, names, options)))
        for group, objects in found.items()
    ]


def _choose(
    group: ExportedGroup,
    objects: ExportedObjects,
    names: Mapping[str, int],
    options: ExportOptions,
) -> Iterator[QuPathClass]:
    for each in objects.record.classes:
        name = group.source.classes.get(each.value)
        if name is None:
            raise OutputError(
                f"{group.source.store}: the objects of {group.name!r} have the label value "
                f"{each.value}, which is none of their classes; find objects again"
            )
        if options.class_name not in (None, name):
            continue
        kind = options.objects_as or (
            DETECTION if has_object_rule(group, objects, name) else ANNOTATION
        )
        if options.objects_as is None and kind == ANNOTATION and each.objects > MOST_ANNOTATIONS:
            raise OptionError(
                f"{group.source.store}: {each.objects} objects of {name!r} would be annotations, "
                f"and QuPath hangs on more than {MOST_ANNOTATIONS}, since no object rule says that "
                "they are single objects; give `objects_as`, 'detection' or 'annotation'",
                option="objects_as",
            )
        shown = f"{group.name}: {name}" if names[name] > 1 else name
        yield QuPathClass(each.value, shown, group.colours[each.value], kind, each.objects)


def has_object_rule(group: ExportedGroup, objects: ExportedObjects, name: str) -> bool:
    """Return whether a class's components are single objects: nuclei, and not regions.

    That is so if the model's card has an object rule for it, or components are split.
    """
    rule = objects.record.rules.get(name)
    return name in group.source.provenance.rule.root or (rule is not None and rule.split != "none")


def _check_identities(groups: Sequence[ExportedGroup]) -> None:
    """Refuse groups whose objects would have the same UUIDs.

    Raises:
        OptionError: two groups have a class of the same name of the same model.
    """
    owners: dict[tuple[str, str], str] = {}
    for group in groups:
        for name in group.source.classes.values():
            owner = owners.setdefault((group.source.provenance.model.sha256, name), group.name)
            if owner != group.name:
                raise OptionError(
                    f"{group.source.store}: {owner!r} and {group.name!r} are of the same model, so "
                    f"objects of {name!r} in both would have the same UUIDs; export one at a time: "
                    "give `label`",
                    option="label",
                )
