"""What values and names in a truth mean: which class of the recipe, or nothing that is known.

Where label images have values as `segment` stores them, a recipe needs to say nothing: 0 is the
background (or no class at all), the other classes follow in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.names import fold, near
from wsi_unet.errors import RecipeError
from wsi_unet.training.fields import IGNORED, NOTHING
from wsi_unet.training.recipe import DataSource, Recipe

UNKNOWN = 253
"""Stands for values that mean nothing; a recipe has fewer classes."""
LARGEST_TABLE = 1 << 24
"""Values below this are looked up in a table."""


@dataclass(frozen=True)
class Meanings:
    """What the values of one truth mean.

    Attributes:
        labels: the label of each value.
        others: the label of all other values from 0; None: there may be none.
    """

    labels: Mapping[int, int]
    others: int | None = None

    def translate(self, values: NDArray[np.integer[Any]], name: str) -> NDArray[np.uint8]:
        """Return the labels of values.

        Args:
            values: of any shape.
            name: of the truth, for messages.

        Raises:
            RecipeError: a value means nothing.
        """
        last = min(len(self._table) - 1, np.iinfo(values.dtype).max)
        labels: NDArray[np.uint8] = self._table[np.clip(values, 0, last)]
        for value, label in self._far:
            labels[values == value] = label
        if values.dtype.kind == "i":
            labels[values < 0] = UNKNOWN
        wrong = labels == UNKNOWN
        if wrong.any():
            raise RecipeError(self._refusal(values[wrong], name))
        return labels

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        """The labels of values from 0; the last one is of all that are larger."""
        listed = [value for value in self.labels if 0 <= value < LARGEST_TABLE]
        table = np.full(max(listed, default=-1) + 2, self._other, np.uint8)
        table[listed] = [self.labels[value] for value in listed]
        return table

    @cached_property
    def _far(self) -> list[tuple[int, int]]:
        return [(value, label) for value, label in self.labels.items() if value >= LARGEST_TABLE]

    @property
    def _other(self) -> int:
        return UNKNOWN if self.others is None else self.others

    def _refusal(self, wrong: NDArray[np.integer[Any]], name: str) -> str:
        value = wrong.flat[0]
        pixels = int((wrong == value).sum())
        known = ", ".join(str(one) for one in sorted(self.labels)[:20])
        return (
            f"{name}: {pixels} px have the value {value}, which is none of the classes' ({known}"
            f"{', …' if len(self.labels) > 20 else ''}); give it to a class with values = […], or "
            f"leave it out with ignore = [{value}]"
        )


def unlabelled(recipe: Recipe) -> int:
    """Return the label of pixels that are of no object: the background's, where there is one.

    Without a background they are of no class, which a sigmoid head can learn and a softmax can't.
    """
    if recipe.background_index is not None:
        return recipe.background_index
    return NOTHING if recipe.head == "sigmoid" else IGNORED


def instance_meanings(recipe: Recipe, source: DataSource, key: str) -> Meanings:
    """Return what the numbers of objects mean: all are of the one class that isn't background.

    Raises:
        RecipeError: there are several such classes, or something is ignored by name.
    """
    indices = [i for i in range(len(recipe.classes)) if i != recipe.background_index]
    if len(indices) != 1:
        names = ", ".join(repr(recipe.classes[i].name) for i in indices)
        raise RecipeError(
            f'{key}.kind: "instances" have one class besides the background, but there are '
            f"{names or 'none'}; name the background, or use another kind of truth"
        )
    ignored = dict.fromkeys(_ignored_values(source, key), IGNORED)
    return Meanings({0: unlabelled(recipe), **ignored}, others=indices[0])


def class_meanings(recipe: Recipe, source: DataSource, key: str) -> Meanings:
    """Return what the values of a label image of classes mean.

    Raises:
        RecipeError: two classes have a value in common, or several have none; or something is
            ignored by name.
    """
    ignored = dict.fromkeys(_ignored_values(source, key), IGNORED)
    if all(one.values is None for one in recipe.classes):
        return Meanings({**_as_stored(recipe), **ignored})
    labels: dict[int, int] = {}
    rest = [i for i, one in enumerate(recipe.classes) if one.values is None]
    if len(rest) > 1:
        names = " and ".join(repr(recipe.classes[i].name) for i in rest[:2])
        raise RecipeError(
            f"classes: {names} have no values; only one class can have all values that no other has"
        )
    for index, one in enumerate(recipe.classes):
        for value in one.values or ():
            if labels.setdefault(value, index) != index:
                other = recipe.classes[labels[value]].name
                raise RecipeError(
                    f"classes: {other!r} and {one.name!r} both have the value {value}"
                )
    if recipe.background_index is None and not rest:
        labels.setdefault(0, unlabelled(recipe))
    return Meanings({**labels, **ignored}, others=rest[0] if rest else None)


def annotation_meanings(
    recipe: Recipe, ignored: Iterable[str], names: Mapping[int, str], name: str
) -> Meanings:
    """Return what values with names mean: of annotations, or of the classes of a label OME-Zarr.

    Args:
        recipe: its classes, and the annotations' names for them.
        ignored: names of what counts for nothing.
        names: of the values; 0, where it has none that is known, is what has no other.
        name: of the truth, for messages.

    Raises:
        RecipeError: names are none of the recipe's.
    """
    known = _known_names(recipe)
    left_out = {fold(one) for one in ignored}
    labels = {0: unlabelled(recipe)}
    unknown = []
    for value, there in names.items():
        if fold(there) in left_out:
            labels[value] = IGNORED
        elif fold(there) in known:
            labels[value] = known[fold(there)]
        elif value != 0:
            unknown.append(there)
    if unknown:
        raise RecipeError(_refuse_names(recipe, list(dict.fromkeys(unknown)), name))
    return Meanings(labels)


def refuse_useless(ignored: Iterable[str | int], there: Iterable[str], key: str) -> None:
    """Refuse to ignore names that no truth of a source has.

    Args:
        ignored: what its truths were searched for.
        there: all names in its truths.
        key: of the source in the recipe, for messages.

    Raises:
        RecipeError: names the first of them.
    """
    known = list(dict.fromkeys(there))
    folded = {fold(one) for one in known}
    for one in ignored:
        if isinstance(one, str) and fold(one) not in folded:
            raise RecipeError(
                f"{key}.ignore: no truth has a class {one!r}; there are "
                f"{', '.join(map(repr, known))}{near(one, known)}"
            )


def _as_stored(recipe: Recipe) -> dict[int, int]:
    """Return the labels of values as `segment` stores them."""
    background = recipe.background_index
    others = [i for i in range(len(recipe.classes)) if i != background]
    return {0: unlabelled(recipe), **dict(enumerate(others, 1))}


def _known_names(recipe: Recipe) -> dict[str, int]:
    known: dict[str, int] = {}
    for index, one in enumerate(recipe.classes):
        for name in one.annotations or (one.name,):
            if known.setdefault(fold(name), index) != index:
                other = recipe.classes[known[fold(name)]].name
                raise RecipeError(
                    f"classes: annotations named {name!r} are both {other!r} and {one.name!r}"
                )
    return known


def _ignored_values(source: DataSource, key: str) -> list[int]:
    values = []
    for one in source.ignore:
        if not isinstance(one, int):
            raise RecipeError(
                f"{key}.ignore: {one!r} is a name, but label images have values; give a number"
            )
        values.append(one)
    return values


def _refuse_names(recipe: Recipe, unknown: list[str], name: str) -> str:
    known = [there for one in recipe.classes for there in one.annotations or (one.name,)]
    listed = ", ".join(map(repr, unknown))
    one = len(unknown) == 1
    what = f"the class {listed} is" if one else f"the classes {listed} are"
    return (
        f"{name}: {what} none of the recipe's ({', '.join(map(repr, known))}); name "
        f"{'it' if one else 'them'} in annotations = […] of a class, or in ignore = […] of the data"
        f"{near(unknown[0], known)}"
    )
