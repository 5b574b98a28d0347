"""Which class of the truth is which of the prediction.

The values of the prediction are what both are compared in: values of the truth are turned into
them, by name where both have names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.names import fold, near
from wsi_unet.errors import EvaluationError, OptionError
from wsi_unet.ground_truth.truths import Truth

MOST = 256
"""Classes have values below this."""

Key = int | str
"""A class by value or by name."""
GivenClasses = Mapping[str, Key | tuple[Key, Key]]
"""By a class's name: what it is in the prediction, or that and what it is in the truth."""


@dataclass(frozen=True, eq=False)
class Classes:
    """How values of the truth become values of the prediction.

    Attributes:
        names: {value: name} of the classes there are; empty where only the pixels can tell.
        lookup: (n,) the prediction's value for each of the truth's.
    """

    names: Mapping[int, str]
    lookup: NDArray[np.uint8]

    def translate(self, truth: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Turn values of the truth into values of the prediction."""
        values: NDArray[np.uint8] = self.lookup[truth]
        return values


def parse_classes(text: str) -> GivenClasses:
    """Parse `NAME=PREDICTION[:TRUTH],…`, each of the two a value or a name.

    >>> parse_classes("cell=1:255, tumour=2:Tumor: Positive")
    {'cell': (1, 255), 'tumour': (2, 'Tumor: Positive')}

    Raises:
        OptionError: it looks different.
    """
    given: dict[str, Key | tuple[Key, Key]] = {}
    for part in text.split(","):
        name, equals, rest = (piece.strip() for piece in part.partition("="))
        prediction, colon, truth = (piece.strip() for piece in rest.partition(":"))
        if not name or not equals or not prediction or (colon and not truth):
            raise OptionError(
                f"classes {part.strip()!r}: write NAME=VALUE, or NAME=VALUE:TRUTH where the truth "
                "has another value or name for it, with commas between"
            )
        given[name] = (parse_key(prediction), parse_key(truth)) if colon else parse_key(prediction)
    return given


def parse_key(text: str) -> Key:
    """Return a value if the text is a whole number, else the name that it is."""
    return int(text) if text.isdecimal() else text


def resolve_classes(
    prediction: str,
    names: Mapping[int, str] | None,
    truth: Truth,
    given: GivenClasses,
    left_out: frozenset[int],
) -> Classes:
    """Find out which class is which.

    Args:
        prediction: its name, for messages.
        names: {value: name} of the prediction; None if it has no names.
        truth: the truth.
        given: what the caller says of it.
        left_out: values of the truth that are ignored.

    Raises:
        EvaluationError: a class of the truth is none of the prediction's.
        OptionError: the caller names a class that there isn't.
    """
    known = dict(names or {})
    pairs = {
        name: pair if isinstance(pair, tuple) else (pair, name) for name, pair in given.items()
    }
    aliases = {fold(name): value for value, name in known.items()}
    values: dict[int, int] = {}
    for name, (here, there) in pairs.items():
        value = _value_of(here, known, prediction, name)
        known.setdefault(value, name)
        aliases[fold(name)] = value
        if isinstance(there, int):
            values[there] = value
        else:
            aliases[fold(there)] = value
    if truth.names is None:
        return Classes(_with_background(known), _table(values, MOST))
    if not known:
        return _by_value(prediction, truth)
    for raw, name in truth.names.items():
        if raw in left_out or raw in values or raw == 0:
            continue
        if fold(name) not in aliases:
            raise EvaluationError(_unknown(truth, name, prediction, known))
        values[raw] = aliases[fold(name)]
    return Classes(_with_background(known), _table({**values, 0: 0}, max(truth.names) + 1))


def find_ignored(truth: Truth, ignored: Iterable[Key]) -> frozenset[int]:
    """Return the truth's values that are to be ignored.

    Raises:
        OptionError: a class of that name isn't there.
    """
    found: set[int] = set()
    for key in ignored:
        if isinstance(key, int) and truth.drawn is None:
            found.add(key)
            continue
        names = truth.names or {}
        values = {value for value, name in names.items() if fold(name) == fold(str(key))}
        if not values:
            raise OptionError(
                f"{truth.name}: has no class {key!r} to ignore{near(str(key), names.values())}"
            )
        found |= values
    return frozenset(found)


def _by_value(prediction: str, truth: Truth) -> Classes:
    """Return the truth's own classes, where the prediction is an image and has no names."""
    names = dict(truth.names or {})
    if truth.drawn is not None:
        some = ", ".join(f"{name}=VALUE" for name in dict.fromkeys(names.values()))
        raise EvaluationError(
            f"{truth.name}: has classes by name and {prediction} by value; say which is which with "
            f"--classes {some}"
        )
    return Classes(_with_background(names), _table({}, MOST))


def _value_of(key: Key, known: Mapping[int, str], prediction: str, name: str) -> int:
    if isinstance(key, str):
        for value, there in known.items():
            if fold(there) == fold(key):
                return value
        raise OptionError(
            f"classes {name}={key}: {prediction} has no class {key!r}{near(key, known.values())}"
        )
    if not 0 <= key < MOST:
        raise OptionError(f"classes {name}={key}: values of classes are 0 to {MOST - 1}")
    return key


def _table(values: Mapping[int, int], size: int) -> NDArray[np.uint8]:
    table = np.zeros(max(size, *values, 0) + 1 if values else size, np.uint8)
    table[:MOST] = np.arange(min(len(table), MOST))
    for there, here in values.items():
        table[there] = here
    return table


def _with_background(names: Mapping[int, str]) -> Mapping[int, str]:
    return dict(sorted({0: "background", **names}.items())) if names else {}


def _unknown(truth: Truth, name: str, prediction: str, known: Mapping[int, str]) -> str:
    there = ", ".join(f"{value} {one!r}" for value, one in sorted(known.items()))
    return (
        f"{truth.name}: the class {name!r} is none of {prediction} ({there})"
        f"{near(name, known.values())}; say --classes {name}=VALUE or --ignore {name!r}"
    )
