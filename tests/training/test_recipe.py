"""Recipes: they are read as written, and mistakes are named in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsi_unet.errors import RecipeError
from wsi_unet.models.spec import Normalisation
from wsi_unet.training.artifacts.card import describe_model
from wsi_unet.training.recipe_file import read_recipe, shipped_recipes, write_recipe

WORKFLOWS = Path(__file__).parents[2] / "workflows" / "training"

MINIMAL = """
base = "modern"
name = "cells"
background = "ground"

[[classes]]
name = "ground"
color = "#000000"
values = [0]

[[classes]]
name = "cell"
color = "#ffff00"

[[data]]
images = "images"
labels = "labels"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str, *settings: str) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(folder, text), settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_needs_only_classes_and_data(name: str, tmp_path: Path) -> None:
    text = MINIMAL.replace('base = "modern"', f'base = "{name}"')
    recipe = read_recipe(written(tmp_path, text))
    assert (recipe.network.in_channels, recipe.network.classes) == (3, 2)


def test_the_paper_recipe_is_the_papers(tmp_path: Path) -> None:
    """Ronneberger et al. 2015, sections 2 and 3."""
    text = MINIMAL.replace('base = "modern"', 'base = "paper"')
    recipe = read_recipe(written(tmp_path, text))
    network = recipe.network
    assert (network.padding, network.depth, network.base_width) == ("valid", 4, 64)
    assert (network.norm, network.upsampling, network.dropout) == ("none", "transpose", 0.5)
    assert (recipe.optimiser.name, recipe.optimiser.momentum) == ("sgd", 0.99)
    assert (recipe.sampling.batch, recipe.sampling.tile) == (1, 388)
    assert (recipe.weighting.separation, recipe.weighting.sigma) == (10.0, 5.0)
    assert recipe.weighting.balance
    assert (recipe.warping.elastic, recipe.warping.elastic_grid) == (10.0, 3)
    assert [term.name for term in recipe.loss] == ["cross_entropy"]


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_workflows_are_recipes(path: Path) -> None:
    assert read_recipe(path).name


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.toml")), ids=lambda path: path.stem)
def test_what_is_written_is_read_again(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path)
    write_recipe(recipe, tmp_path / "again.toml")
    assert read_recipe(tmp_path / "again.toml") == recipe


def test_a_recipe_starts_from_another(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, MINIMAL + "[optimiser]\nrate = 0.5\n"))
    assert recipe.optimiser.rate == 0.5
    assert recipe.optimiser.name == "adamw", "of its base"
    assert [term.name for term in recipe.loss] == ["cross_entropy", "dice"], "of its base"


def test_a_recipe_may_start_from_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[running]\niterations = 7\n[network]\ndepth = 2\n")
    text = MINIMAL.replace('base = "modern"', 'base = "mine.toml"')
    recipe = read_recipe(written(tmp_path, text))
    assert (recipe.running.iterations, recipe.network.depth) == (7, 2)


def test_what_it_starts_from_may_start_from_another(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINIMAL)
    recipe = read_recipe(written(tmp_path, 'base = "mine.toml"\nname = "other"'))
    assert (recipe.name, recipe.optimiser.name) == ("other", "adamw")
    (tmp_path / "mine.toml").write_text('base = "recipe.toml"')
    assert "the recipe is its own base" in refusal(tmp_path, 'base = "mine.toml"')


def test_settings_come_last(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL)
    settings = [
        "running.iterations=300",
        "split.hold_out=[0]",
        "optimiser.name=sgd",
        'name="other"',
        "warping.scale=[0.5, 2.0]",
    ]
    recipe = read_recipe(path, settings)
    assert recipe.running.iterations == 300
    assert recipe.split.hold_out == (0,)
    assert recipe.optimiser.name == "sgd"
    assert recipe.name == "other"
    assert recipe.warping.scale == (0.5, 2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[optimizer]\nrate = 1.0", r"optimizer: there is no such key; did you mean 'optimiser'\?"),
        ("[optimiser]\nlearning = 1", r"optimiser.learning: there is no such key"),
        ("[running]\niteration = 5", r"did you mean 'iterations'\?"),
        ("[[loss]]\nname = 'dice'\nwieght = 2", r"loss.0.wieght: .* 'weight'\?"),
        ("[[loss]]\nname = 'dicee'", r"loss.0.name: .*'dice'"),
        (
            "[split]\nfolds = 3\nfold = 3",
            r"split: fold: must be at most 2, the last of 3 folds from 0",
        ),
        ("[split]\nhold_out = [-1]", r"split.hold_out.0: .* greater than or equal to 0"),
        ("[warping]\nscale = [1e-9, 1.0]", r"warping.scale.0: .* greater than or equal to 0.1"),
        ("[warping]\nshift = 1e9", r"warping.shift: .* less than or equal to 8192"),
        ("[warping]\nelastic = 1e6", r"warping.elastic: .* less than or equal to 1000"),
        ("[warping]\nsqueeze = 30.0", r"warping.squeeze: .* less than or equal to 1"),
        ("[split]\nhold_out = 0", r"split.hold_out: must be a list, not 0"),
        ("[loss]\nname = 'dice'", r"loss: must be a list: write \[\[loss\]\] above each"),
        ("[split]\nhold_out = [4]", r"split.hold_out: there is no source 4"),
        ("[sampling]\nclasses = { cel = 1 }", r"sampling.classes: 'cel' is none of"),
        ("[sampling]\nclasses = { cell = 0.0 }", r"sampling.classes: all are 0; leave it out"),
        ("[optimiser]\nnesterov = true\nmomentum = 0.0", r"optimiser: nesterov: needs a momentum"),
        ("[network]\nclasses = 5", r"network.classes: is 5, but .* as 2"),
        ("[network]\npadding = 'full'", r"network.padding: .*'valid'"),
        ("[network]\nwidth = 5", r"network.width: there is no such key; did you mean"),
        ("[running]\niterations = 0", r"running.iterations: .* greater than or equal to 1"),
        ("[optimiser]\nrate = nan", r"optimiser.rate: "),
        ("[optimiser\nrate", r"isn't TOML"),
        ("seed = " + "9" * 5000, r"isn't TOML: Exceeds the limit"),
        ("a" + ".a" * 20_000 + " = 1", r"isn't TOML: a key of more than 100 parts"),
        ("x = [{ a = 1, a" + ".a" * 20_000 + " = 1 }]", r"isn't TOML: a key of more than"),
        ("[warping]\nscale = [2.0, 0.5]", r"warping.scale: .* but 2 is more than 0.5"),
        ("[colouring]\ngamma = [0.0, 1.0]", r"colouring.gamma.0: .* greater than 0"),
        ("[[loss]]\nname = 'binary_cross_entropy'", r"is for sigmoid heads, this one is softmax"),
    ],
)
def test_wrong_values_are_refused(text: str, said: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + text)
    assert message.startswith(f"{tmp_path / 'recipe.toml'}: ")
    assert re.search(said, message), message


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ('name = "cells"\n', "name: is missing, and every recipe needs it; write name = "),
        ('labels = "labels"\n', "data.0.labels: is missing, and every recipe needs it; "),
        ('background = "ground"\n', ""),
    ],
)
def test_missing_keys_are_named(left_out: str, said: str, tmp_path: Path) -> None:
    text = MINIMAL.replace(left_out, "", 1)
    if said:
        assert said in refusal(tmp_path, text)
    else:
        assert read_recipe(written(tmp_path, text)).background_index is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('base = "modern"', 'base = "medieval"', "neither one of modern, paper nor a file"),
        ('base = "modern"', "base = 3", "base: must be a name"),
        ('background = "ground"', 'background = "sky"', "'sky' is none of the classes"),
        ('name = "cell"\n', 'name = "ground"\n', "'ground' occurs 2 times"),
    ],
)
def test_contradictions_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, MINIMAL.replace(old, new, 1))


@pytest.mark.parametrize("name", ["stain", "stain_hue", "ground", "made_up"])
def test_gray_images_show_no_dyes(name: str, tmp_path: Path) -> None:
    text = MINIMAL.replace('base = "modern"', 'base = "paper"\nchannel_order = "gray"')
    assert read_recipe(written(tmp_path, text)).network.in_channels == 1
    said = f"colouring.{name}: gray images show no dyes; set it to 0"
    assert said in refusal(tmp_path, text, f"colouring.{name}=0.2")


@pytest.mark.parametrize("setting", ["running.iterations", "=3", "a..b=3"])
def test_a_setting_that_isnt_one(setting: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, MINIMAL, setting).startswith(f"{setting}: isn't ")


def test_a_setting_changes_one_of_a_list(tmp_path: Path) -> None:
    path = written(tmp_path, MINIMAL)
    recipe = read_recipe(path, ["data.0.mpp=0.5", "classes.1.values=[1, 2]", "loss.1.weight=3"])
    assert (recipe.data[0].images, recipe.data[0].mpp) == ("images", 0.5)
    assert [one.values for one in recipe.classes] == [(0,), (1, 2)]
    assert [(term.name, term.weight) for term in recipe.loss] == [("cross_entropy", 1), ("dice", 3)]
    assert "change one by its number, like data.0" in refusal(tmp_path, MINIMAL, "data.1.mpp=0.5")
    assert "running: must be a table, not 3" in refusal(tmp_path, MINIMAL, "running=3")


def test_what_it_starts_from_is_no_setting(tmp_path: Path) -> None:
    assert "base=paper: a recipe's base can only" in refusal(tmp_path, MINIMAL, "base=paper")


def test_sigmoid_heads_have_no_background(tmp_path: Path) -> None:
    settings = ("head=sigmoid", "loss=[{name='iou'}]")
    assert "background: a sigmoid head has none; leave it out" in refusal(
        tmp_path, MINIMAL, *settings
    )


def test_samples_without_objects_need_a_background(tmp_path: Path) -> None:
    text = MINIMAL.replace('background = "ground"\n', "")
    assert "sampling.empty: with a softmax head and no background" in refusal(
        tmp_path, text, "sampling.empty=0.5"
    )


def test_no_recipe_at_all(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't be read: No such file"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="isn't TOML"):
        read_recipe(tmp_path / "bytes.toml")


BOUNDARY = """
[[classes]]
name = "edge"
color = "#0000ff"
[boundary]
name = "edge"
reach = 1
[objects.cell]
split = "interior"
boundary = "edge"
growth = 1.5
"""


def test_a_boundary_class_and_an_object_rule_reach_the_card(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, MINIMAL + BOUNDARY))
    assert recipe.boundary_index == len(recipe.classes) - 1
    assert recipe.boundary_index not in recipe.truth_indices
    spec = describe_model(recipe, Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3), "")
    assert spec.objects is not None
    assert spec.objects.of("cell").describe() == "interior:edge:1.5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('[boundary]\nname = "edge"', '[boundary]\nname = "rim"'), "'rim' is none of the classes"),
        (("reach = 1", "reach = 0"), "there is no boundary"),
        (("reach = 1", "reach = 99"), "reach"),
        (("growth = 1.5", ""), "growth"),
        (('boundary = "edge"', 'boundary = "cell"'), "its own boundary"),
    ],
)
def test_refused_boundaries(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(written(tmp_path, MINIMAL + BOUNDARY.replace(*change)))
