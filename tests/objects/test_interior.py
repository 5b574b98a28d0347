"""The split "interior" as people state it: in cards, options and on the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from objects import shapes
from objects.test_growing import check_pixels, find_whole
from objects.test_run import add_group, edit, read_bytes
from support.labelled import write_store
from support.oracle import balanced_model, textured, write_png

import wsi_unet
from wsi_unet.errors import OptionError
from wsi_unet.models import UNetConfig
from wsi_unet.objects.options import resolve_rules
from wsi_unet.objects.records import StageRecord
from wsi_unet.objects.rule import ClassRule, ObjectRule
from wsi_unet_cli.main import cli

NAMES = ["nucleus", "tumour", "border"]
INTERIOR = {"split": "interior", "boundary": "border", "growth": 1.5}
RULE = "interior:border:1.5"


def test_older_rules_are_written_as_they_were() -> None:
    """Signatures of tables and UUIDs of objects come from these texts."""
    rule = ObjectRule({"a": ClassRule(), "b": ClassRule(split="distance", h=1, max_area=9)})
    assert rule.model_dump(mode="json") == {
        "a": {"split": "none", "h": None, "min_area": 0.0, "max_area": None},
        "b": {"split": "distance", "h": 1.0, "min_area": 0.0, "max_area": 9.0},
    }
    assert rule.root["a"].pixels_text() == '{"h": null, "split": "none"}'
    assert rule.root["b"].pixels_text() == '{"h": 1.0, "split": "distance"}'
    older = (
        '{"format_version": 1, "signature": "%s", "rules": {"a": {"split": "distance", "h": 1.0, '
        '"min_area": 0.0, "max_area": null}}, "labels_finished": "t"}' % ("0" * 64)
    )
    assert StageRecord.model_validate_json(older).rules == {"a": ClassRule(split="distance", h=1.0)}


def test_the_text_of_an_interior_says_what_it_grows_into_and_how_far() -> None:
    rule = ClassRule.model_validate(INTERIOR | {"min_area": 4})
    assert ClassRule.model_validate_json(rule.model_dump_json()) == rule
    assert rule.describe() == RULE
    texts = {
        ClassRule.model_validate(INTERIOR | change).pixels_text()
        for change in ({}, {"min_area": 4}, {"growth": 2}, {"boundary": "edge"})
    }
    assert len(texts) == 3


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        ({"split": "interior"}, "boundary: the split 'interior' needs it"),
        ({"split": "interior", "boundary": "border"}, "growth: the split 'interior' needs it"),
        ({"split": "none", "growth": 1}, "growth: .* no other has it"),
        ({"split": "distance", "h": 1, "boundary": "border"}, "boundary: .* no other has it"),
        (INTERIOR | {"h": 1}, "h: .* no other has it"),
        (INTERIOR | {"growth": 0}, "greater than 0"),
        (INTERIOR | {"growth": 1000}, "less than or equal to 100"),
        (INTERIOR | {"growth": float("nan")}, "finite"),
        (INTERIOR | {"growth": float("inf")}, "finite"),
        (INTERIOR | {"boundary": ""}, "at least 1 character"),
    ],
)
def test_rules_that_cannot_be(rule: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ClassRule.model_validate(rule)


@pytest.mark.parametrize(
    ("rules", "match"),
    [
        ({"border": INTERIOR}, "'border' is its own boundary"),
        (
            {"nucleus": INTERIOR, "border": {"min_area": 1}},
            "'border' is the boundary of 'nucleus', so it has no objects and no rule of its own",
        ),
        (
            {"nucleus": INTERIOR, "border": INTERIOR | {"boundary": "tumour"}},
            "'border' is the boundary of 'nucleus'",
        ),
    ],
)
def test_rules_that_contradict_each_other(rules: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ObjectRule.model_validate(rules)


def resolve(
    split: Any, min_area: Any = None, card: Any = None, groups: Any = (NAMES,)
) -> dict[str, str]:
    rule = resolve_rules(groups, [ObjectRule.model_validate(card or {})], split, min_area, None)
    return {name: f"{each.describe()} {each.min_area:g}" for name, each in rule.root.items()}


def test_what_is_said_for_every_class_leaves_boundaries_alone() -> None:
    card = {"nucleus": INTERIOR | {"min_area": 2}}
    own = {"nucleus": f"{RULE} 0", "tumour": "none 0", "border": "none 0"}
    assert resolve({"nucleus": RULE}) == own
    assert resolve(None, card=card) == own | {"nucleus": f"{RULE} 2"}
    both = {"nucleus": f"{RULE} 5", "tumour": f"{RULE} 5", "border": "none 0"}
    assert resolve(RULE, 5) == both
    assert resolve({None: "distance:1", "nucleus": RULE}) == own | {"tumour": "distance:1 0"}
    assert resolve("distance:1", card=card) == {
        "nucleus": "distance:1 2", "tumour": "distance:1 0", "border": "distance:1 0"
    }  # fmt: skip
    assert resolve({"nucleus": RULE}, card={"border": {"split": "distance", "h": 1}}) == own
    assert resolve({"nucleus": RULE, "border": "none"}) == own
    assert resolve("interior:a:b:2", groups=[["x", "a:b"]]) == {
        "x": "interior:a:b:2 0", "a:b": "none 0"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"split": {"border": RULE}},
            "'border': the boundary of `split` is 'border', the class its",
        ),
        ({"split": "interior:nucleus:1", "groups": [["nucleus"]]}, "no other class to grow into"),
        ({"split": {"nucleus": "interior:edge:1"}}, "'edge', which the labels don't have; they ha"),
        ({"split": {"nucleus": RULE}, "groups": [["nucleus"], ["border"]]}, "the same label group"),
        (
            {"split": {"nucleus": RULE, "border": "distance:1"}},
            "'border', so that can't have a rule of its own; leave it out of `split`",
        ),
        (
            {"split": {"border": "distance:1"}, "card": {"nucleus": INTERIOR}},
            "so that can't have a rule of its own; leave it out of `split`",
        ),
        ({"split": "interior:border"}, "give none, distance:H .* or interior:BOUNDARY:GROWTH"),
        ({"split": "interior:border:much"}, "give none, distance:H .* or interior:BOUND"),
        ({"split": "interior:border:-1"}, "the growth of `split`: .* greater than 0"),
        ({"split": "interior:border:inf"}, "the growth of `split`: .* finite"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], match: str) -> None:
    with pytest.raises(OptionError, match=match) as error:
        resolve(**options)
    assert error.value.option == "split"
    assert "\n" not in str(error.value)


def test_a_limit_for_a_boundary_is_refused_as_such() -> None:
    with pytest.raises(OptionError, match="leave it out of `min_area`") as error:
        resolve({"nucleus": RULE}, {"border": 3})
    assert error.value.option == "min_area"


def test_cards_that_contradict_each_other_are_named() -> None:
    rules: list[Any] = [{"nucleus": INTERIOR}, {"border": {"split": "distance", "h": 1}}]
    cards = [ObjectRule.model_validate(each) for each in rules]
    with pytest.raises(OptionError, match=r"contradict each other .*choose one `label`"):
        resolve_rules([NAMES], cards, None, None, None)


@pytest.fixture(scope="module")
def labels() -> shapes.Labels:
    """Return cells of two classes with boundaries between them, in four of six blocks."""
    whole = np.zeros((620, 1200), np.uint8)
    whole[430:580, 440:590] = shapes.cells(150)
    whole[500:504, 100:600] = 1
    around = whole[497:507, 97:603]
    around[around == 0] = 3
    return whole


@pytest.fixture
def store(tmp_path: Path, labels: shapes.Labels) -> Path:
    return write_store(tmp_path / "out.ome.zarr", labels, classes=("background", *NAMES))


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["objects", *map(str, arguments)])


def test_the_command(store: Path, labels: shapes.Labels) -> None:
    done = command(store, "--split", RULE, "--min-area", "tumour=1")
    assert done.exit_code == 0, done.output
    assert done.stdout.count(RULE) == 2
    assert "border " not in done.stdout
    table = wsi_unet.open_objects(store).to_table().sort_by("id")
    check_pixels(table, find_whole(labels, {1: (3, "1.5"), 2: (3, "1.5")}, ("0.5", "0.5")))
    document = json.loads(command(store, "--split", f"nucleus={RULE}", "--json").stdout)
    classes = document["labels"][0]["classes"]
    assert {each["name"]: each["rule"] for each in classes} == {"nucleus": RULE, "tumour": "none"}
    assert sum(each["objects"] for each in classes) == len(table)


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ("nucleus=interior:ghost:1", "the boundary of --split is 'ghost', which the labels don't"),
        ("nucleus=interior:border:0", "greater than 0"),
        ("interior:border", "give none, distance:H"),
    ],
)
def test_refusals(store: Path, split: str, match: str) -> None:
    done = command(store, "--split", split)
    assert done.exit_code == 2
    assert re.search(match, done.stderr), done.stderr
    assert not (store / "objects").exists()


def test_labels_of_their_own_have_no_common_boundary(store: Path) -> None:
    add_group(store, "nuclei", "more")
    assert wsi_unet.find_objects(store, split=RULE).state == "finished"

    def rename(group: str, name: str) -> None:
        def change(document: Any) -> None:
            for each in document["attributes"]["ome"]["image-label"]["properties"]:
                if each["class"] == name:
                    each["class"] = f"no {name}"

        edit(store / f"labels/{group}/zarr.json", change)

    rename("nuclei", "border")
    rename("more", "nucleus")
    with pytest.raises(OptionError, match="isn't in the same label group"):
        wsi_unet.find_objects(store, split={"nucleus": RULE})


def test_the_rule_of_the_card_is_used(store: Path) -> None:
    def add_card(document: Any) -> None:
        spec = {"objects": {"nucleus": INTERIOR}}
        document["attributes"]["wsi_unet"]["model"] = {"name": "m", "sha256": "0", "spec": spec}

    edit(store / "labels/nuclei/zarr.json", add_card)
    (found,) = wsi_unet.find_objects(store).labels
    assert {each.name: each.rule for each in found.classes} == {"nucleus": RULE, "tumour": "none"}


def test_changed_boundaries_make_parts_again_that_may_grow_into_them(
    store: Path, labels: shapes.Labels, tmp_path: Path
) -> None:
    wsi_unet.find_objects(store, split=RULE)
    changed = labels.copy()

    def find_again() -> int:
        write_store(store, changed, classes=("background", *NAMES))
        return wsi_unet.find_objects(store, split=RULE).labels[0].computed

    changed[100, 1100] = 3
    assert find_again() == 3  # its block and those beside it, but not the others
    changed[100, 511], changed[100, 512:516] = 1, 3  # reaches over a face
    find_again()
    changed[100, 514] = 0
    assert find_again() == 5  # among them the block in which the object begins
    fresh = write_store(tmp_path / "fresh.ome.zarr", changed, classes=("background", *NAMES))
    wsi_unet.find_objects(fresh, split=RULE)
    assert read_bytes(store) == read_bytes(fresh)


def test_a_run_grows_objects_as_the_card_says(tmp_path: Path) -> None:
    image = textured(600, 700)
    write_png(tmp_path / "slide.png", image)
    rule = {"class-1": {"split": "interior", "boundary": "class-2", "growth": 1.5, "min_area": 2}}
    config = UNetConfig(depth=1, base_width=4, classes=3)
    balanced_model(config, image, tmp_path / "model", objects=rule)
    options: Any = {"tile": 128, "precision": "float32", "device": "cpu", "mpp": 0.5}
    tables = []
    for block in (512, 4096):
        output = tmp_path / f"{block}.ome.zarr"
        report = wsi_unet.segment(
            tmp_path / "slide.png", output, tmp_path / "model",
            block=block, outputs=("labels", "objects"), **options,
        )  # fmt: skip
        assert [each.rule for each in report.objects[0].classes] == ["interior:class-2:1.5"]
        tables.append(wsi_unet.open_objects(output).to_table().sort_by("id"))
    assert tables[0].equals(tables[1])
    assert len(tables[0]) > 100
    with pytest.raises(OptionError, match="'class-2', so that can't have a rule of its own"):
        wsi_unet.plan(
            tmp_path / "slide.png", tmp_path / "new", tmp_path / "model",
            outputs=("labels", "objects"), split={"class-2": "distance:1"}, **options,
        )  # fmt: skip


def test_a_run_of_a_model_with_labels_for_each_class_has_no_boundary(tmp_path: Path) -> None:
    image = textured(300, 300)
    write_png(tmp_path / "slide.png", image)
    config = UNetConfig(depth=1, base_width=4, classes=2)
    balanced_model(config, image, tmp_path / "model", head="sigmoid", background=None)
    with pytest.raises(OptionError, match="isn't in the same label group"):
        wsi_unet.plan(
            tmp_path / "slide.png", tmp_path / "new", tmp_path / "model", device="cpu", mpp=0.5,
            outputs=("labels", "objects"), split={"class-0": "interior:class-1:1"},
        )  # fmt: skip
