"""Which outline is which object, and of which class: what can't be right is refused here."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from wsi_unet.annotations.annotation import UNCLASSIFIED
from wsi_unet.annotations.class_names import fold_name, suggest_names
from wsi_unet.corrections.edited_file import EditedFeatures
from wsi_unet.errors import AnnotationError
from wsi_unet.geometry import BlockIndex
from wsi_unet.objects.painting.stored import StoredObjects
from wsi_unet.wording import MOST_ITEMS, count

MOST_VALUE = 255
"""The largest label value."""

LONGEST_NAME = 1000
"""Most characters of a class's name, as in every record."""

SHIFT_TOLERANCE = 0.1
"""How far a shift may be from a whole number, px of the slide."""

FEWEST_SHIFTED = 3
"""Fewest objects that are refused as shifted alike; fewer may have been moved by hand."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The outlines of n that are of objects of a table.

    Attributes:
        features: of each object of a part, by block: its outline, -1 for none.
        known: (n,) which outlines are of an object.
        ids: identities of all objects.
        shifts: (known outlines, 2) from the middles of objects to those of their outlines, (y, x)
            px of the slide.
    """

    features: Mapping[BlockIndex, NDArray[np.int64]]
    known: NDArray[np.bool_]
    ids: NDArray[np.uint64]
    shifts: NDArray[np.float64]

    @classmethod
    def find(cls, features: EditedFeatures, objects: StoredObjects) -> Matches:
        """Find the outlines of objects by their UUIDs.

        Raises:
            OutputError: a part of the table isn't what was written.
        """
        blocks = sorted(objects.markers)
        tables = [objects.read_table(block, ["id", "uuid", "bbox"]) for block in blocks]
        uuids = [pa.array([], pa.string()), *(c for t in tables for c in t["uuid"].chunks)]
        outlines = pa.array([text or None for text in features.identities], pa.string())
        found = pc.index_in(pa.chunked_array(uuids), value_set=outlines, skip_nulls=True)
        indices = found.fill_null(-1).to_numpy().astype(np.int64)
        known = np.zeros(len(features), np.bool_)
        known[indices[indices >= 0]] = True
        ends = np.cumsum([len(table) for table in tables])
        ids = [np.zeros(0, np.uint64), *(table["id"].to_numpy() for table in tables)]
        middles = np.concatenate([np.zeros((0, 2)), *map(_find_middles, tables)])
        shifts = features.places[indices[indices >= 0]] - middles[indices >= 0]
        parts = dict(zip(blocks, np.split(indices, ends[:-1]), strict=True)) if blocks else {}
        return cls(parts, known, np.concatenate(ids), shifts)


def _find_middles(table: pa.Table) -> NDArray[np.float64]:
    """Return the middles (n, 2) of the bounding boxes of rows, (y, x) px of the slide."""
    bbox = table["bbox"].combine_chunks()
    ends = {name: pc.struct_field(bbox, name).to_numpy() for name in bbox.type.names}
    return np.stack([(ends["ymin"] + ends["ymax"]) / 2, (ends["xmin"] + ends["xmax"]) / 2], axis=1)


def refuse_shifted(shifts: NDArray[np.float64]) -> None:
    """Refuse outlines most of which are shifted alike: they count from somewhere else.

    Args:
        shifts: (n, 2) from objects to their outlines, px of the slide.

    Raises:
        AnnotationError: they are.
    """
    whole = np.rint(shifts)
    alike = np.abs(shifts - whole).max(axis=1, initial=0) < SHIFT_TOLERANCE
    found, counts = np.unique(whole[alike & whole.any(axis=1)], axis=0, return_counts=True)
    most = int(counts.max(initial=0))
    if most >= FEWEST_SHIFTED and 2 * most > len(shifts):
        y, x = found[np.argmax(counts)].astype(int).tolist()
        raise AnnotationError(
            f"{most} of {count(len(shifts), 'outline')} are shifted alike, by x {x}, y {y} px, "
            "from their objects: coordinates count from another point; give it: "
            f"`origin={-x},{-y}`"
        )


def refuse_repeated(features: EditedFeatures) -> None:
    """Refuse outlines of which several have one id.

    Raises:
        AnnotationError: there are such.
    """
    counts = Counter(text for text in features.identities if text)
    several = [text for text, number in counts.items() if number > 1]
    if several:
        feature = features.identities.index(several[0])
        raise AnnotationError(
            f"{count(len(several), 'id')} of the files' outlines "
            f"{'is' if len(several) == 1 else 'are'} there several times, first {several[0]} of "
            f"{features.locate(feature)}; give each file once, and export each object once"
        )


def refuse_foreign(
    features: EditedFeatures, foreign: NDArray[np.bool_], known: NDArray[np.bool_], where: str
) -> None:
    """Refuse outlines that are of other objects than those which are corrected.

    UUIDs of version 5 are made of what they identify, as ours are; programs draw those of new
    objects at random (version 4).

    Args:
        features: the outlines.
        foreign: (n,) which of them are of no object of the result.
        known: (n,) which of them are of an object that is corrected.
        where: the objects, for messages.

    Raises:
        AnnotationError: none is of such an object, or some are of others.
    """
    if not known.any():
        raise AnnotationError(
            f"none of the {count(len(features), 'outline')} has the id of an object of {where}; "
            "export the objects, correct them in QuPath, and export them from there with their ids"
        )
    others = [i for i in np.flatnonzero(foreign).tolist() if _is_derived(features.identities[i])]
    if others:
        raise AnnotationError(
            f"{len(others)} of {count(len(features), 'outline')} are of objects that aren't among "
            f"those of {where}, first {features.identities[others[0]]} of "
            f"{features.locate(others[0])}: they come from another slide, model or object rule; "
            "export the objects as they are now, and correct those"
        )


def _is_derived(identity: str) -> bool:
    """Return whether an id is a UUID of version 5.

    >>> _is_derived("886313e1-3b8a-5372-9b90-0c9aee199e5d"), _is_derived("1")
    (True, False)
    """
    try:
        return uuid.UUID(identity).version == 5
    except ValueError:
        return False


@dataclass(frozen=True, eq=False)
class FeatureClasses:
    """The classes of outlines.

    Attributes:
        values: (n,) label values; 0 where the class is ignored, or the outline isn't looked at.
        names: names of all classes by label value.
        new: label values of classes that the model doesn't have.
    """

    values: NDArray[np.uint8]
    names: Mapping[int, str]
    new: frozenset[int]


def resolve_classes(
    features: EditedFeatures,
    wanted: NDArray[np.bool_],
    names: Mapping[int, str],
    *,
    label: str,
    taken: Collection[int],
    add: bool,
    ignore: Collection[str],
) -> FeatureClasses:
    """Return the class of each outline: names are compared without regard to capitals and spaces.

    Args:
        features: the outlines.
        wanted: (n,) which of them are looked at.
        names: names of the classes that objects have, by label value.
        label: the label group, whose name may stand before those of its classes: "nuclei: tumour".
        taken: label values that no new class may have.
        add: whether names that no class has become new classes.
        ignore: names of classes whose outlines aren't objects.

    Raises:
        AnnotationError: names are those of no class.
    """
    ignored = {fold_name(name) for name in ignore}
    values = {fold_name(f"{label}: {name}"): value for value, name in names.items()}
    values |= {fold_name(name): value for value, name in names.items()}
    asked = Counter(name for name, own in zip(features.classes, wanted, strict=True) if own)
    unknown = [n for n in asked if fold_name(n) not in values and fold_name(n) not in ignored]
    _check_storable(unknown)
    if unknown and (not add or UNCLASSIFIED in unknown):
        raise AnnotationError(_describe_unknown(asked, unknown, names, add=add))
    complete, free = dict(names), _find_free({*names, *taken})
    for name in sorted(unknown):
        if fold_name(name) not in values:
            if not free:
                raise AnnotationError(
                    f"the class {name!r} would be one too many: labels have at most {MOST_VALUE}"
                )
            values[fold_name(name)] = free.pop(0)
            complete[values[fold_name(name)]] = name
    values |= dict.fromkeys(ignored, 0)
    of_features = [
        values[fold_name(name)] if own else 0
        for name, own in zip(features.classes, wanted, strict=True)
    ]
    new = frozenset(complete) - frozenset(names)
    return FeatureClasses(np.array(of_features, np.uint8), complete, new)


def _check_storable(names: Iterable[str]) -> None:
    """Refuse names that no record could hold.

    Raises:
        AnnotationError: one is very long, or holds half a character.
    """
    for name in names:
        if len(name) > LONGEST_NAME:
            raise AnnotationError(
                f"the class {name[:40]!r}… has {len(name)} characters; give it a name of at most "
                f"{LONGEST_NAME}"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise AnnotationError(f"the class {name!r} isn't valid Unicode; give it another name")


def _find_free(taken: Collection[int]) -> list[int]:
    """Return the label values above all that are taken."""
    return [*range(max(taken, default=0) + 1, MOST_VALUE + 1)]


def _describe_unknown(
    asked: Counter[str], unknown: Sequence[str], names: Mapping[int, str], *, add: bool
) -> str:
    unclassified = UNCLASSIFIED in unknown
    others = [name for name in unknown if name != UNCLASSIFIED]
    shown = [f"{name!r} ({count(asked[name], 'outline')})" for name in others[:MOST_ITEMS]]
    more = f" and {len(others) - MOST_ITEMS} others" if len(others) > MOST_ITEMS else ""
    known = ", ".join(map(repr, names.values()))
    told = []
    if others and not add:
        told.append(f"the model has no class {', '.join(shown)}{more}, only {known}")
    if unclassified:
        told.append(f"{count(asked[UNCLASSIFIED], 'outline')} without a class")
    suggestion = suggest_names(others[0], names.values()) if others and not add else ""
    cures = ["give them a class of the model", f"leave them out with `ignore` ({unknown[0]!r})"]
    if others and not add:
        cures.insert(1, "keep new classes with `new_classes`")
    return f"{' and '.join(told)}{suggestion}; {', or '.join(cures)}"
