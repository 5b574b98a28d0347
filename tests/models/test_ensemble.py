"""Ensembles, also of one model: names and costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from wsi_unet.errors import OptionError
from wsi_unet.geometry import Box
from wsi_unet.models.inference.ensemble import Ensemble, find_member_boxes
from wsi_unet.models.model import Model

MakeModel = Callable[..., Model]


@pytest.fixture
def make(make_model: MakeModel, tmp_path: Path) -> MakeModel:
    """Return a function that makes models."""
    numbers = itertools.count()

    def new(changes: dict[str, object] | None = None, /, **architecture: object) -> Model:
        return make_model(changes, path=tmp_path / str(next(numbers)), **architecture)

    return new


@pytest.mark.parametrize(
    ("changes", "architecture"),
    [
        ({}, {}),
        ({}, {"padding": "same", "odd": "zeros"}),
        ({}, {"padding": "same", "upsampling": "bilinear", "align_corners": True}),
        ({"window": 128}, {"padding": "same", "upsampling": "bilinear", "align_corners": True}),
        ({"window": 128}, {"padding": "same", "norm": "instance"}),
        ({"window": 124}, {}),
        ({"window": 44}, {"padding": "same"}),
    ],
)
def test_one_model_is_tiled_as_its_spec_says(
    make: MakeModel, changes: dict[str, object], architecture: dict[str, object]
) -> None:
    model = make(changes, **architecture)
    ensemble = Ensemble((model,))
    assert ensemble.border() == model.spec.border()
    assert ensemble.tile == model.spec.tile
    assert ensemble.exactness == model.spec.exactness
    assert (ensemble.name, ensemble.sha256) == (model.spec.name, model.sha256)
    assert [group.name for group in ensemble.groups] == [model.spec.name]
    assert ensemble.groups[0].classes == model.spec.labels


def test_windows_of_each_member_lie_in_the_ensembles(make: MakeModel) -> None:
    models = (
        make(),
        make({"name": "same"}, padding="same", depth=3),
        make({"name": "odd"}, padding="same", depth=1, odd="zeros"),
    )
    for members in (models, models[1:], models[:2]):
        ensemble = Ensemble(members)
        border, shape = ensemble.border(), (203, 331)
        for box in Box.from_shape(shape).tiles(64):
            core = border.core(box)
            window = border.window(core, shape)
            for member in ensemble.members:
                own_core, own_window = find_member_boxes(member.border(), core, shape)
                assert own_core.contains(box)
                assert window.contains(own_window)
                assert own_window == member.border().window(own_core, shape)


def test_long_names_are_cut_so_that_the_end_stays(make: MakeModel) -> None:
    models = make({"name": "n" * 64}), make({"name": "other"}, depth=1)
    assert Ensemble(models).name == "n" * 55 + ".ensemble"


def test_thresholds_are_common(make: MakeModel) -> None:
    sigmoid = {"head": "sigmoid", "background": None}
    one = make(sigmoid | {"thresholds": (0.5, 0.5, 0.4)})
    with pytest.raises(OptionError, match=r"in its thresholds \(none instead of"):
        Ensemble((one, make(sigmoid)))


def test_many_overlapping_classes_take_memory(make: MakeModel) -> None:
    def memory(changes: dict[str, object]) -> int:
        ensemble = Ensemble((make(changes, classes=8),))
        return ensemble.memory(512, "float32", probabilities=False)

    softmax = memory({})
    assert memory({"head": "sigmoid", "background": None}) == softmax + 8 * 8 * 512 * 512
