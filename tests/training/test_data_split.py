"""The split: each patient in one use, each fold measured once, each source in each fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.training_data import CELL, GROUND, INSTANCES, make_recipe, save, write_pairs

from wsi_unet.errors import RecipeError
from wsi_unet.geometry import Box, Shape
from wsi_unet.training.dataset import describe_fields, open_fields, split_fields
from wsi_unet.training.fields import FieldWindow
from wsi_unet.training.recipe import Recipe


@dataclass(frozen=True)
class Named:
    """A field of which only the patient and the source matter."""

    name: str
    patient: str
    source: int
    shape: Shape = (10, 10)
    amounts: Mapping[int, float] = field(default_factory=lambda: {0: 50.0, 1: 50.0}, hash=False)
    areas: Sequence[Box] = ()

    def read(self, window: Box) -> FieldWindow:
        raise NotImplementedError

    def point(self, index: int | None, rng: np.random.Generator) -> tuple[int, int]:
        raise NotImplementedError


def recipe_of(sources: int, **split: object) -> Recipe:
    data = [{"images": f"i{i}", "labels": "x"} for i in range(sources)]
    return make_recipe(*data, split=split)


def named(patients: Sequence[Sequence[str]]) -> list[Named]:
    return [
        Named(f"{source}/{i}", patient, source)
        for source, owners in enumerate(patients)
        for i, patient in enumerate(owners)
    ]


owners = st.lists(st.sampled_from([f"p{i}" for i in range(12)]), min_size=1, max_size=20)


@given(
    patients=st.lists(owners, min_size=1, max_size=3),
    folds=st.integers(2, 6),
    order=st.sampled_from(["contiguous", "interleaved", "random"]),
    seed=st.integers(0, 5),
)
def test_folds_are_disjoint_by_patient_and_together_all(
    patients: list[list[str]], folds: int, order: str, seed: int
) -> None:
    assume(all(len(set(one)) >= folds for one in patients))
    fields = named(patients)
    measured: Counter[str] = Counter()
    for fold in range(folds):
        recipe = recipe_of(len(patients), folds=folds, fold=fold, order=order)
        recipe = recipe.model_copy(
            update={"running": recipe.running.model_copy(update={"seed": seed})}
        )
        split = split_fields(recipe, fields)
        assert sorted([*split.training, *split.validation], key=str) == sorted(fields, key=str)
        trained = {one.patient for one in split.training}
        assert not trained & {one.patient for one in split.validation}
        measured.update(one.name for one in split.validation)
    assert measured == Counter(one.name for one in fields)


@given(
    sizes=st.lists(st.integers(5, 30), min_size=1, max_size=3),
    folds=st.integers(2, 5),
    order=st.sampled_from(["contiguous", "interleaved", "random"]),
)
def test_each_fold_has_an_equal_share_of_each_source(
    sizes: list[int], folds: int, order: str
) -> None:
    fields = named([[f"{source}-{i}" for i in range(n)] for source, n in enumerate(sizes)])
    for fold in range(folds):
        recipe = recipe_of(len(sizes), folds=folds, fold=fold, order=order)
        split = split_fields(recipe, fields)
        for source, size in enumerate(sizes):
            held_out = sum(one.source == source for one in split.validation)
            assert size // folds <= held_out <= -(-size // folds)


def test_orders() -> None:
    fields = named([[f"p{i}" for i in range(10)]])

    def held_out(order: str, fold: int, seed: int = 0) -> list[int]:
        recipe = recipe_of(1, folds=5, fold=fold, order=order)
        recipe = recipe.model_copy(
            update={"running": recipe.running.model_copy(update={"seed": seed})}
        )
        return [fields.index(one) for one in split_fields(recipe, fields).validation]

    assert [held_out("contiguous", fold) for fold in range(5)] == [
        [2 * fold, 2 * fold + 1] for fold in range(5)
    ]
    assert held_out("interleaved", 4) == [4, 9]
    assert held_out("random", 2) == held_out("random", 2)
    assert any(held_out("random", 2, 0) != held_out("random", 2, seed) for seed in range(1, 5))


def test_one_fold_trains_on_all() -> None:
    fields = named([["a", "b"], ["c"]])
    split = split_fields(recipe_of(2, folds=1), fields)
    assert split.training == fields
    assert split.validation == []
    assert split.hold_out == {}


def test_sources_are_held_out_as_a_whole() -> None:
    fields = named([["a", "b", "c"], ["d", "e"]])
    split = split_fields(recipe_of(2, folds=3, fold=1, hold_out=[1], order="contiguous"), fields)
    assert [one.patient for one in split.training] == ["a", "c"]
    assert [one.patient for one in split.validation] == ["b"]
    assert {number: [one.patient for one in there] for number, there in split.hold_out.items()} == {
        1: ["d", "e"]
    }


def test_a_patient_of_two_sources_has_one_use() -> None:
    fields = named([["a", "b", "c", "d"], ["d", "c", "x", "y"]])
    for fold in range(2):
        split = split_fields(recipe_of(2, folds=2, fold=fold), fields)
        trained = {one.patient for one in split.training}
        assert not trained & {one.patient for one in split.validation}


def test_impossible_splits_are_refused() -> None:
    fields = named([["a", "b", "a"], ["c", "d", "e"]])
    with pytest.raises(RecipeError, match=r"only 2 patients; write split\.folds = 2, or"):
        split_fields(recipe_of(2, folds=3), fields)
    with pytest.raises(RecipeError, match="nothing is left to train on"):
        split_fields(recipe_of(2, folds=2, hold_out=[0, 1]), fields)
    shared = named([["a", "b"], ["b", "c"]])
    with pytest.raises(RecipeError, match=r"'b' is in data.1, which is held out .*in data.0"):
        split_fields(recipe_of(2, folds=2, hold_out=[1]), shared)
    empty = [Named("x", "x", 0, amounts={0: 3.0, 1: 0.0})]
    with pytest.raises(RecipeError, match=r"no pixel of the 1 image .* is of the class 'cell'"):
        split_fields(recipe_of(1, folds=1), empty)


def test_what_is_trained_on_is_described(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, [(30, 40)] * 4)
    save(tmp_path / "other" / "z.png", pairs[0][0])
    save(tmp_path / "truth" / "z.png", pairs[0][1])
    recipe = make_recipe(
        {**INSTANCES, "license": "CC0-1.0", "citation": "Doe 2020"},
        {"images": "other", "labels": "truth", "kind": "instances"},
        split={"folds": 2, "order": "contiguous", "hold_out": [1]},
        classes=[GROUND, CELL],
    )
    portions = describe_fields(recipe, split_fields(recipe, open_fields(recipe, tmp_path)))
    assert [(one.source, one.part, one.files, one.patients) for one in portions] == [
        (0, "training", 2, 2),
        (0, "validation", 2, 2),
        (1, "apart", 1, 1),
    ]
    assert portions[0].megapixels == 0.002
    cells = sum(int((instances > 0).sum()) for _, instances in pairs[2:])
    assert portions[0].pixels == {"ground": 2400 - cells, "cell": cells}
    assert portions[0].license == "CC0-1.0"
    assert str(portions[1]).startswith("data.0 (images), validation: 2 images of 2 patients, 0.0")
