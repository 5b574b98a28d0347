"""The meanings of values and names in a ground truth: classes of the recipe, or ignored.

If label images have the values that `segment` stores, a recipe needn't list them: 0 is the
background (or no class at all), and the other classes follow in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_unet.annotations.class_names import fold_name, suggest_names
from wsi_unet.errors import RecipeError
from wsi_unet.training.fields import IGNORED, NOTHING
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_sections import DataSource

UNKNOWN = 253
"""Stands for the label of unknown values; a recipe has fewer classes."""
LARGEST_TABLE = 1 << 24
"""Values below this are looked up in a table."""


@dataclass(frozen=True)
class LabelMeanings:
    """The labels that the values of a truth stand for.

    Attributes:
        labels: label of each value.
        others: label of all other values from 0; None: other values are refused.
    """

    labels: Mapping[int, int]
    others: int | None = None

    def translate(self, values: NDArray[np.integer[Any]], name: str) -> NDArray[np.uint8]:
        """Return the labels of values.

        Args:
            values: values, of any shape.
            name: name of the truth, for messages.

        Raises:
            RecipeError: a value is unknown.
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
        """Labels of values from 0; the last one is the label of all larger values."""
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
        known = ", ".join(str(listed) for listed in sorted(self.labels)[:20])
        return (
            f"{name}: {pixels} px have the value {value}, which is none of the classes' ({known}"
            f"{', …' if len(self.labels) > 20 else ''}); give it to a class with values = […], or "
            f"ignore it with ignore = [{value}]"
        )


def outside_label(recipe: Recipe) -> int:
    """Return the label of pixels outside all objects: the background's, if there is one.

    Without a background they are of no class, which a sigmoid head can learn; a softmax can't, so
    they are ignored.
    """
    if recipe.background_index is not None:
        return recipe.background_index
    return NOTHING if recipe.head == "sigmoid" else IGNORED


def instance_meanings(recipe: Recipe, source: DataSource, key: str) -> LabelMeanings:
    """Return the meanings of object numbers: all are of the only class that isn't background.

    Args:
        recipe: recipe with the classes.
        source: data source that the label image is of.
        key: key of the source in the recipe, for messages.

    Raises:
        RecipeError: there are several such classes, or something is ignored by name.
    """
    indices = [i for i in recipe.truth_indices if i != recipe.background_index]
    if len(indices) != 1:
        names = ", ".join(repr(recipe.classes[i].name) for i in indices)
        raise RecipeError(
            f'{key}.kind: "instances" need one class besides the background, but there are '
            f"{names or 'none'}; name the background, or use another kind of truth"
        )
    ignored = dict.fromkeys(_ignored_values(source, key), IGNORED)
    return LabelMeanings({0: outside_label(recipe), **ignored}, others=indices[0])


def class_meanings(recipe: Recipe, source: DataSource, key: str) -> LabelMeanings:
    """Return the meanings of the values of a label image of classes.

    Args:
        recipe: recipe with the classes.
        source: data source that the label image is of.
        key: key of the source in the recipe, for messages.

    Raises:
        RecipeError: two classes have a value in common, or several have none; or something is
            ignored by name.
    """
    ignored = dict.fromkeys(_ignored_values(source, key), IGNORED)
    true_classes = {index: recipe.classes[index] for index in recipe.truth_indices}
    if all(listed.values is None for listed in true_classes.values()):
        return LabelMeanings({**_stored_values(recipe), **ignored})
    labels: dict[int, int] = {}
    rest = [i for i, listed in true_classes.items() if listed.values is None]
    if len(rest) > 1:
        names = " and ".join(repr(recipe.classes[i].name) for i in rest[:2])
        raise RecipeError(
            f"classes: {names} have no values; only one class can have all values that no other has"
        )
    for index, listed in true_classes.items():
        for value in listed.values or ():
            if labels.setdefault(value, index) != index:
                other = recipe.classes[labels[value]].name
                raise RecipeError(
                    f"classes: {other!r} and {listed.name!r} both have the value {value}"
                )
    if recipe.background_index is None and not rest:
        labels.setdefault(0, outside_label(recipe))
    return LabelMeanings({**labels, **ignored}, others=rest[0] if rest else None)


def annotation_meanings(
    recipe: Recipe, ignored: Iterable[str], names: Mapping[int, str], name: str
) -> LabelMeanings:
    """Return the meanings of values with names: of annotations, or of a label OME-Zarr's classes.

    Args:
        recipe: recipe with the classes, and the annotations' names for them.
        ignored: names to ignore.
        names: name of each value; 0, unless it has a known name, is outside all others.
        name: name of the truth, for messages.

    Raises:
        RecipeError: names aren't in the recipe.
    """
    known = _known_names(recipe)
    ignored_names = {fold_name(given) for given in ignored}
    labels = {0: outside_label(recipe)}
    unknown = []
    for value, class_name in names.items():
        if fold_name(class_name) in ignored_names:
            labels[value] = IGNORED
        elif fold_name(class_name) in known:
            labels[value] = known[fold_name(class_name)]
        elif value != 0:
            unknown.append(class_name)
    if unknown:
        raise RecipeError(_refuse_names(recipe, list(dict.fromkeys(unknown)), name))
    return LabelMeanings(labels)


def refuse_useless(ignored: Iterable[str | int], names: Iterable[str], key: str) -> None:
    """Refuse to ignore names that no truth of a source has.

    Args:
        ignored: names and values that the source ignores.
        names: all names in its truths.
        key: key of the source in the recipe, for messages.

    Raises:
        RecipeError: naming the first of them.
    """
    known = list(dict.fromkeys(names))
    folded = {fold_name(name) for name in known}
    for given in ignored:
        if isinstance(given, str) and fold_name(given) not in folded:
            raise RecipeError(
                f"{key}.ignore: no truth has a class {given!r}; the classes are "
                f"{', '.join(map(repr, known))}{suggest_names(given, known)}"
            )


def _stored_values(recipe: Recipe) -> dict[int, int]:
    """Return the labels of the values that `segment` stores."""
    background = recipe.background_index
    others = [i for i in recipe.truth_indices if i != background]
    return {0: outside_label(recipe), **dict(enumerate(others, 1))}


def _known_names(recipe: Recipe) -> dict[str, int]:
    known: dict[str, int] = {}
    for index in recipe.truth_indices:
        listed = recipe.classes[index]
        for name in listed.annotations or (listed.name,):
            if known.setdefault(fold_name(name), index) != index:
                other = recipe.classes[known[fold_name(name)]].name
                raise RecipeError(
                    f"classes: annotations named {name!r} are both {other!r} and {listed.name!r}"
                )
    return known


def _ignored_values(source: DataSource, key: str) -> list[int]:
    values = []
    for given in source.ignore:
        if not isinstance(given, int):
            raise RecipeError(
                f"{key}.ignore: {given!r} is a name, but label images have values; give a number"
            )
        values.append(given)
    return values


def _refuse_names(recipe: Recipe, unknown: list[str], name: str) -> str:
    """Return the message that refuses names which aren't in the recipe."""
    listed = [recipe.classes[index] for index in recipe.truth_indices]
    known = [given for each in listed for given in each.annotations or (each.name,)]
    names = ", ".join(map(repr, unknown))
    single = len(unknown) == 1
    what = f"the class {names} is" if single else f"the classes {names} are"
    return (
        f"{name}: {what} none of the recipe's ({', '.join(map(repr, known))}); name "
        f"{'it' if single else 'them'} in annotations = […] of a class, or in ignore = […] of the "
        f"data{suggest_names(unknown[0], known)}"
    )
