"""Splitting fields into training, validation and held-out sources, by patient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Generic, TypeVar

import numpy as np

from wsi_unet.errors import RecipeError
from wsi_unet.training.fields import TrainingField
from wsi_unet.training.recipe import Recipe
from wsi_unet.wording import count

F = TypeVar("F", bound=TrainingField)


@dataclass(frozen=True)
class FieldSplit(Generic[F]):
    """Fields by their use; all fields of a patient have the same use.

    Attributes:
        training: fields to learn from.
        validation: fields of the held-out fold, measured at intervals during the training.
        hold_out: fields of the sources that are held out as a whole and measured at the end, by
            the source's number.
    """

    training: list[F] = dataclass_field(default_factory=list)
    validation: list[F] = dataclass_field(default_factory=list)
    hold_out: Mapping[int, list[F]] = dataclass_field(default_factory=dict)


def split_fields(recipe: Recipe, fields: Sequence[F]) -> FieldSplit[F]:
    """Split fields as a recipe says.

    The patients of each source are divided into folds of nearly equal size, so each fold has some
    of every source. A patient in several sources is in the fold that the first of them gives. A
    random order depends on the seed and the source alone, so the folds of one seed are disjoint and
    complete.

    Raises:
        RecipeError: a source has fewer patients than folds; a patient is in a source that is held
            out and in one that isn't; nothing is left to train on, or a class has no pixels in it.
    """
    held_out = set(recipe.split.hold_out)
    hold_out = {
        number: [field for field in fields if field.source == number] for number in sorted(held_out)
    }
    rest = [field for field in fields if field.source not in held_out]
    _refuse_shared_patients(rest, hold_out)
    fold_of = _assign_folds(recipe, rest)
    fold = recipe.split.fold if recipe.split.folds > 1 else None
    training = [field for field in rest if fold_of[field.patient] != fold]
    validation = [field for field in rest if fold_of[field.patient] == fold]
    if not training:
        raise RecipeError(
            "split: nothing is left to train on; hold out fewer sources or use more folds"
        )
    _refuse_empty_class(recipe, training)
    return FieldSplit(training, validation, hold_out)


def _assign_folds(recipe: Recipe, fields: Sequence[F]) -> dict[str, int]:
    """Return the fold of each patient."""
    fold_of: dict[str, int] = {}
    for source in sorted({field.source for field in fields}):
        patients = list(dict.fromkeys(field.patient for field in fields if field.source == source))
        if len(patients) < recipe.split.folds:
            cures = _advise_on_folds(recipe, source, len(patients))
            raise RecipeError(
                f"split.folds: data.{source} ({recipe.data[source].images}) can't be cut into "
                f"{count(recipe.split.folds, 'fold')}, as it has only "
                f"{count(len(patients), 'patient')}; {cures}"
            )
        new = [patient for patient in patients if patient not in fold_of]
        fold_of |= zip(new, _divide(recipe, source, len(new)), strict=True)
    return fold_of


def _advise_on_folds(recipe: Recipe, source: int, patients: int) -> str:
    """Return what to write where a source has fewer patients than there are folds."""
    cures = [f"split.folds = {patients}"] if patients > 1 else []
    cures.append("split.folds = 1 to train on all without measuring")
    if len(recipe.data) > 1:
        cures.append(f"split.hold_out = [{source}] to measure this source alone")
    return f"write {', or '.join(cures)}"


def _divide(recipe: Recipe, source: int, patients: int) -> list[int]:
    """Return the folds of a source's patients, who are in natural order."""
    ranks = np.arange(patients)
    if recipe.split.order == "interleaved":
        return (ranks % recipe.split.folds).tolist()
    if recipe.split.order == "random":
        ranks = np.random.default_rng([recipe.running.seed, source]).permutation(patients)
    return (ranks * recipe.split.folds // max(1, patients)).tolist()


def _refuse_shared_patients(rest: Sequence[F], hold_out: Mapping[int, Sequence[F]]) -> None:
    trained = {field.patient: field for field in rest}
    for number, fields in hold_out.items():
        for field in fields:
            other = trained.get(field.patient)
            if other is not None:
                raise RecipeError(
                    f"split.hold_out: the patient {field.patient!r} is in data.{number}, which is "
                    f"held out ({field.name}), and in data.{other.source}, which isn't "
                    f"({other.name}); the network would be measured on a patient it has seen"
                )


def _refuse_empty_class(recipe: Recipe, training: Sequence[F]) -> None:
    for index, recipe_class in enumerate(recipe.classes):
        if not math.fsum(field.amounts.get(index, 0) for field in training):
            raise RecipeError(
                f"classes: no pixel of the {count(len(training), 'image')} trained on is of the "
                f"class {recipe_class.name!r}; check its values or annotations, or leave the class "
                "out"
            )
