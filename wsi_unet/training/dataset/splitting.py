"""Which fields are trained on and which only measured: by patient, each source by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from wsi_unet.errors import RecipeError
from wsi_unet.training.fields import Field
from wsi_unet.training.recipe import Recipe

F = TypeVar("F", bound=Field)


@dataclass(frozen=True)
class FieldSplit(Generic[F]):
    """Fields by what they are for. What is of one patient is all in one part.

    Attributes:
        training: what is learnt from.
        validation: the fold that is held out, and measured now and then.
        hold_out: by number, the sources that are held out as a whole and measured at the end.
    """

    training: list[F] = field(default_factory=list)
    validation: list[F] = field(default_factory=list)
    hold_out: Mapping[int, list[F]] = field(default_factory=dict)


def split_fields(recipe: Recipe, fields: Sequence[F]) -> FieldSplit[F]:
    """Split fields as a recipe says.

    The patients of each source are cut into folds of nearly equally many, so each fold has some of
    every source. One who is in several sources belongs where the first of them puts them. A random
    order depends on the seed and the source alone, so the folds of one seed are disjoint and
    together all there is.

    Raises:
        RecipeError: a source has fewer patients than folds; a patient is in a source that is held
            out and in one that isn't; nothing is left to train on, or none of it is of some class.
    """
    held_out = set(recipe.split.hold_out)
    hold_out = {
        number: [one for one in fields if one.source == number] for number in sorted(held_out)
    }
    rest = [one for one in fields if one.source not in held_out]
    _refuse_shared(rest, hold_out)
    fold_of = _folds(recipe, rest)
    fold = recipe.split.fold if recipe.split.folds > 1 else None
    training = [one for one in rest if fold_of[one.patient] != fold]
    validation = [one for one in rest if fold_of[one.patient] == fold]
    if not training:
        raise RecipeError(
            "split: nothing is left to train on; hold out fewer sources or use more folds"
        )
    _refuse_empty(recipe, training)
    return FieldSplit(training, validation, hold_out)


def _folds(recipe: Recipe, fields: Sequence[F]) -> dict[str, int]:
    """Return the fold of each patient."""
    fold_of: dict[str, int] = {}
    for source in sorted({one.source for one in fields}):
        patients = list(dict.fromkeys(one.patient for one in fields if one.source == source))
        if len(patients) < recipe.split.folds:
            raise RecipeError(
                f"split.folds: data.{source} ({recipe.data[source].images}) can't be cut into "
                f"{recipe.split.folds} folds, as its number of patients is {len(patients)}; use "
                f"{len(patients)} at most, or hold the source out"
            )
        new = [patient for patient in patients if patient not in fold_of]
        fold_of |= zip(new, _cut(recipe, source, len(new)), strict=True)
    return fold_of


def _cut(recipe: Recipe, source: int, patients: int) -> list[int]:
    """Return the fold of each of a number of patients, who are in natural order."""
    places = np.arange(patients)
    if recipe.split.order == "interleaved":
        return (places % recipe.split.folds).tolist()
    if recipe.split.order == "random":
        places = np.random.default_rng([recipe.running.seed, source]).permutation(patients)
    return (places * recipe.split.folds // max(1, patients)).tolist()


def _refuse_shared(rest: Sequence[F], hold_out: Mapping[int, Sequence[F]]) -> None:
    trained = {one.patient: one for one in rest}
    for number, fields in hold_out.items():
        for one in fields:
            other = trained.get(one.patient)
            if other is not None:
                raise RecipeError(
                    f"split.hold_out: the patient {one.patient!r} is in data.{number}, which is "
                    f"held out ({one.name}), and in data.{other.source}, which isn't "
                    f"({other.name}); what is measured would be known"
                )


def _refuse_empty(recipe: Recipe, training: Sequence[F]) -> None:
    """Refuse a class of which there isn't a pixel to learn from."""
    for index, one in enumerate(recipe.classes):
        if not math.fsum(each.amounts.get(index, 0) for each in training):
            raise RecipeError(
                f"classes: no pixel of what is trained on ({len(training)} images) is of the class "
                f"{one.name!r}; check its values or annotations, or leave the class out"
            )
