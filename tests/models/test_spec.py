"""The spec: round trip, derived values, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from wsi_unet.models.architectures.program import ProgramConfig
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.spec import LabelClass, ModelClass, ModelSpec, Normalisation

MakeSpec = Callable[..., ModelSpec]


def classes(*names: str) -> tuple[ModelClass, ...]:
    return tuple(ModelClass(name=name, color="#0a0b0c") for name in names)


def test_json_round_trip(make_spec: MakeSpec) -> None:
    spec = make_spec({"metrics": {"dice": 0.8, "by field": [1, 2]}, "license": "CC0-1.0"})
    again = ModelSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.format_version == 1


@pytest.mark.parametrize(
    ("background", "values"), [("a", (0, 1, 2)), ("b", (1, 0, 2)), ("c", (1, 2, 0))]
)
def test_background_is_label_0_wherever_it_stands(
    make_spec: MakeSpec, background: str, values: tuple[int, ...]
) -> None:
    spec = make_spec({"background": background})
    assert spec.label_values == values
    assert [label.value for label in spec.labels] == [0, 1, 2]
    assert spec.labels[0].name == background


def test_without_background_classes_start_at_1(make_spec: MakeSpec) -> None:
    spec = make_spec({"background": None})
    assert spec.label_values == (1, 2, 3)
    assert [label.name for label in spec.labels] == ["background", "a", "b", "c"]
    assert spec.labels[1] == LabelClass(value=1, name="a", color="#102030")
    assert spec.labels[1].rgb == (16, 32, 48)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background": "z"}, "background: 'z' is none of the classes"),
        ({"classes": classes("a", "b", "a")}, "'a' is there 2 times"),
        ({"classes": classes("a", "b")}, "2 names for a network with 3 outputs"),
        ({"classes": classes("background", "b", "c"), "background": None}, "rename the class"),
        ({"classes": (*classes("a", "b"), {"name": "c", "color": "red"})}, "color"),
        ({"channel_order": "gray"}, "in_channels: 3, but channel order 'gray' has 1"),
        ({"channel_order": "hsv"}, "channel_order"),
        (
            {"scaling": Normalisation(mean=(0.5,), std=(1.0, 1.0, 1.0))},
            "scaling.mean: 1 number for 3 channels",
        ),
        ({"scaling": {"mean": (0.5,) * 3, "std": (1.0, 0.0, 1.0)}}, "greater than 0"),
        ({"scaling": {"mean": (0.5, 0.5, float("nan")), "std": (1.0,) * 3}}, "finite"),
        ({"mpp": 264.6}, "mpp"),
        ({"mpp": 0.0}, "mpp"),
        ({"name": "../up"}, "name"),
        ({"format_version": 2}, "2 is not a version this wsi-unet knows"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_refuses(make_spec: MakeSpec, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_spec(changes)


@pytest.mark.parametrize(
    "architecture", [{"depth": 7}, {"depth": 0}, {"classes": 256}, {"classes": 0}, {"padding": "x"}]
)
def test_refuses_architectures(architecture: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UNetConfig.model_validate(architecture)


def test_more_than_255_classes_are_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(ValidationError, match="at most 255"):
        make_spec({"classes": classes(*(f"c{i}" for i in range(256)))})


def test_names_on_disk_stay(make_spec: MakeSpec) -> None:
    """The keys of model.json stay, whatever Python calls them."""
    fields = make_spec(negative_slope=0.1).model_dump(mode="json")
    assert fields["architecture"]["leak"] == 0.1
    assert fields["scaling"]["mean"] == [0.7, 0.6, 0.5]
    assert "normalisation" not in fields
    program = ProgramConfig(
        kind="module",
        in_channels=3,
        classes=2,
        period=4,
        before=8,
        after=8,
        local=True,
        depends_on_size=True,
    )
    assert program.model_dump()["sized"] is True
    assert ProgramConfig.model_validate(program.model_dump()) == program


def test_an_object_rule_is_kept_and_is_no_part_of_the_identity(make_spec: MakeSpec) -> None:
    without = make_spec()
    assert "objects" not in json.loads(without.to_text())
    name = next(item.name for item in without.classes if item.name != without.background)
    rule = {name: {"split": "distance", "h": 0.75}}
    spec = ModelSpec.model_validate(without.model_dump() | {"objects": rule})
    assert ModelSpec.model_validate_json(spec.to_text()).objects == spec.objects
    assert spec.objects is not None
    assert spec.pixel_fields() == without.pixel_fields()
    with pytest.raises(ValueError, match="objects: 'ghost' is none of the classes"):
        ModelSpec.model_validate(without.model_dump() | {"objects": {"ghost": {}}})


def test_interiors_grow_into_another_class_of_the_same_labels(make_spec: MakeSpec) -> None:
    def make(boundary: str, **changes: object) -> ModelSpec:
        rule = {"b": {"split": "interior", "boundary": boundary, "growth": 1.5}}
        return make_spec({"objects": rule, **changes})

    spec = make("c")
    assert ModelSpec.model_validate_json(spec.to_text()) == spec
    for boundary, match in (
        ("ghost", "objects: 'ghost' is none of the classes"),
        ("a", "objects: 'a' is none of the classes that have objects"),
        ("b", "'b' is its own boundary"),
    ):
        with pytest.raises(ValueError, match=match):
            make(boundary)
    with pytest.raises(ValueError, match="'b' can't grow into 'c': with a sigmoid head"):
        make("c", head="sigmoid", background=None)
