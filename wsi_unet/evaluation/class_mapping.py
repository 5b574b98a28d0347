"""Matching the classes of the truth with those of the prediction.

Both are compared in values of the prediction: values of the truth are translated into them, by name
where both have names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.class_names import fold_name, suggest_names
from wsi_unet.errors import EvaluationError, OptionError
from wsi_unet.ground_truth.truth import Truth

CLASS_VALUES = 256
"""Values of classes are below this."""

ClassId = int | str
"""A class, by value or by name."""
GivenClasses = Mapping[str, ClassId | tuple[ClassId, ClassId]]
"""By a class's name: its value or name in the prediction, or a tuple of that and in the truth."""


@dataclass(frozen=True, eq=False)
class ClassMapping:
    """How values of the truth become values of the prediction.

    Attributes:
        names: {value: name} of the classes; empty where they are known only from the pixels.
        lookup: (n,) the prediction's value for each value of the truth.
    """

    names: Mapping[int, str]
    lookup: NDArray[np.uint8]

    def translate(self, truth: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Turn values of the truth into values of the prediction."""
        values: NDArray[np.uint8] = self.lookup[truth]
        return values


def parse_classes(text: str) -> GivenClasses:
    """Parse `NAME=PREDICTION[:TRUTH],…`, where each is a value or a name.

    >>> parse_classes("cell=1:255, tumour=2:Tumor: Positive")
    {'cell': (1, 255), 'tumour': (2, 'Tumor: Positive')}

    Raises:
        OptionError: it has another form.
    """
    given: dict[str, ClassId | tuple[ClassId, ClassId]] = {}
    for item in text.split(","):
        name, equals, keys = (piece.strip() for piece in item.partition("="))
        prediction, colon, truth = (piece.strip() for piece in keys.partition(":"))
        if not name or not equals or not prediction or (colon and not truth):
            raise OptionError(
                f"`classes`: {item.strip()!r} isn't understood; write NAME=VALUE, or "
                "NAME=VALUE:TRUTH where the truth has another value or name for it, with commas "
                "between",
                option="classes",
            )
        value = parse_class_id(prediction)
        given[name] = (value, parse_class_id(truth)) if colon else value
    return given


def parse_class_id(text: str) -> ClassId:
    """Return the value that a text says, or the name if it isn't a whole number."""
    return int(text) if text.isdecimal() else text


def map_classes(
    prediction: str,
    names: Mapping[int, str] | None,
    truth: Truth,
    given: GivenClasses,
    ignored: frozenset[int],
) -> ClassMapping:
    """Find out which class of the truth is which of the prediction.

    Args:
        prediction: name of the prediction, for messages.
        names: {value: name} of the prediction; None if its values have no names.
        truth: the truth.
        given: the classes as the caller gave them.
        ignored: values of the truth that are ignored.

    Raises:
        EvaluationError: a class of the truth is none of the prediction's.
        OptionError: the caller names a class that doesn't exist.
    """
    known = dict(names or {})
    aliases = {fold_name(name): value for value, name in known.items()}
    lookup: dict[int, int] = {}
    for name, key in given.items():
        own, true = key if isinstance(key, tuple) else (key, name)
        value = _find_value(own, known, names or {}, prediction, name)
        known.setdefault(value, name)
        aliases[fold_name(name)] = value
        if isinstance(true, int):
            lookup[true] = value
        else:
            aliases[fold_name(true)] = value
    if truth.names is None:
        return ClassMapping(_add_background(known), _lookup_table(lookup, CLASS_VALUES))
    if not known:
        return _map_by_value(prediction, truth)
    for true_value, name in truth.names.items():
        if true_value in ignored or true_value in lookup or true_value == 0:
            continue
        if fold_name(name) not in aliases:
            raise EvaluationError(_describe_unknown(truth, name, prediction, known))
        lookup[true_value] = aliases[fold_name(name)]
    table = _lookup_table({**lookup, 0: 0}, max(truth.names) + 1)
    return ClassMapping(_add_background(known), table)


def find_ignored(truth: Truth, ignored: Iterable[ClassId]) -> frozenset[int]:
    """Return the truth's values that are to be ignored.

    Raises:
        OptionError: the truth has no class of that name.
    """
    values: set[int] = set()
    for key in ignored:
        if isinstance(key, int) and truth.annotations is None:
            values.add(key)
            continue
        names = truth.names or {}
        folded = fold_name(str(key))
        named = {value for value, name in names.items() if fold_name(name) == folded}
        if not named:
            raise OptionError(
                f"{truth.name}: has no class {key!r} to ignore"
                f"{suggest_names(str(key), names.values())}",
                option="ignore",
            )
        values |= named
    return frozenset(values)


def _map_by_value(prediction: str, truth: Truth) -> ClassMapping:
    """Keep the truth's classes, where the prediction is an image, whose values have no names."""
    names = dict(truth.names or {})
    if truth.annotations is not None:
        classes = ", ".join(f"{name}=VALUE" for name in dict.fromkeys(names.values()))
        raise EvaluationError(
            f"{truth.name}: has classes by name and {prediction} by value; say which is which with "
            f"`classes`: {classes}"
        )
    return ClassMapping(_add_background(names), _lookup_table({}, CLASS_VALUES))


def _find_value(
    key: ClassId, known: Mapping[int, str], names: Mapping[int, str], prediction: str, given: str
) -> int:
    """Return the prediction's value of the class that the caller gave as `given`.

    Args:
        key: the value, or the name.
        known: the classes so far by value, those that the caller gave among them.
        names: the prediction's own.
        prediction: name of the prediction.
        given: name of the class.
    """
    if isinstance(key, str):
        for value, name in known.items():
            if fold_name(name) == fold_name(key):
                return value
        raise OptionError(
            f"`classes`: {given}={key}: {prediction} has no class {key!r}"
            f"{suggest_names(key, known.values())}",
            option="classes",
        )
    if not 0 <= key < CLASS_VALUES:
        raise OptionError(
            f"`classes`: {given}={key}: values of classes are 0 to {CLASS_VALUES - 1}",
            option="classes",
        )
    if names and key not in names and key != 0:
        classes = ", ".join(f"{value} {item!r}" for value, item in sorted(names.items()))
        raise OptionError(
            f"`classes`: {given}={key}: {prediction} has no class of value {key} ({classes})",
            option="classes",
        )
    return key


def _lookup_table(values: Mapping[int, int], size: int) -> NDArray[np.uint8]:
    """Return the prediction's value for each of the truth's, which is the same if not in `values`.

    Args:
        values: the prediction's value by the truth's.
        size: number of entries, at least.
    """
    table = np.zeros(max(size, *values, 0) + 1 if values else size, np.uint8)
    table[:CLASS_VALUES] = np.arange(min(len(table), CLASS_VALUES))
    for true_value, value in values.items():
        table[true_value] = value
    return table


def _add_background(names: Mapping[int, str]) -> Mapping[int, str]:
    return dict(sorted({0: "background", **names}.items())) if names else {}


def _describe_unknown(truth: Truth, name: str, prediction: str, known: Mapping[int, str]) -> str:
    classes = ", ".join(f"{value} {item!r}" for value, item in sorted(known.items()))
    return (
        f"{truth.name}: the class {name!r} is none of {prediction} ({classes})"
        f"{suggest_names(name, known.values())}; say which it is with `classes` ({name}=VALUE), or "
        f"leave it out with `ignore={name!r}`"
    )
