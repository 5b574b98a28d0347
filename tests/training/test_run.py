"""Whole trainings: which network is kept, its card, and that it segments as measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.training import Squares, small_recipe, small_split, squares, stop_after, train_small

import wsi_unet
from wsi_unet.errors import OptionError, RecipeError
from wsi_unet.metrics.confusion import class_pixels, confusion_matrix
from wsi_unet.metrics.overlaps import count_overlaps
from wsi_unet.models import load_model
from wsi_unet.training.artifacts.journal import read_journal
from wsi_unet.training.artifacts.state import read_state
from wsi_unet.training.augmentation.normalisation import choose_normalisation
from wsi_unet.training.augmentation.samples import Sample, Samples, sample_sides
from wsi_unet.training.dataset import FieldSplit
from wsi_unet.training.loop.validation import FieldLabeller
from wsi_unet.training.recipe import Recipe
from wsi_unet.training.recipe_file import read_recipe
from wsi_unet.training.report import TrainingProgress
from wsi_unet.training.runtime import TrainingArguments, choose_runtime


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the time."""
    monkeypatch.setattr("wsi_unet.training.loop.trainer.can_draw_curves", lambda: False)


def segmented(model: Path, field: Squares, folder: Path) -> Any:
    """Return the labels that `segment` gives to the field's image."""
    Image.fromarray(field.image).save(folder / "field.png")
    report = wsi_unet.segment(
        folder / "field.png", folder / "field.ome.zarr", model=model, tissue="none",
        precision="float32", overwrite=True,
    )  # fmt: skip
    return wsi_unet.open_labels(report.output).to_numpy()


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_model_segments_as_it_was_measured(tmp_path: Path, padding: str) -> None:
    recipe = small_recipe(network={"padding": padding, "norm": "batch"})
    split = small_split()
    done = train_small(recipe, tmp_path / "model", split=split)
    (field,) = split.validation
    labels = segmented(tmp_path / "model", field, tmp_path)
    matrix = confusion_matrix(count_overlaps(field.labels, labels), (0, 1))
    assert np.trace(matrix) < matrix.sum(), "a case that tells"
    assert done.held_out is not None
    for index, name in enumerate(("ground", "cell")):
        found: Any = done.held_out["classes"]
        assert found[name]["dice"] == round(class_pixels(matrix, index).dice, 4)
        assert found[name]["pixels"] == (field.labels == index).sum()
    hold_out = split.hold_out[1][0]
    matrix = confusion_matrix(
        count_overlaps(hold_out.labels, segmented(tmp_path / "model", hold_out, tmp_path)), (0, 1)
    )
    source: Any = done.sources["b"]
    assert source["dice"] == round(class_pixels(matrix, 1).dice, 4)


def test_the_best_network_is_kept(tmp_path: Path) -> None:
    kept: dict[int, str] = {}

    def watch(progress: TrainingProgress) -> None:
        if progress.dice is not None and progress.phase == "training":
            kept[progress.iteration] = load_model(tmp_path / "m").sha256

    recipe = small_recipe(
        optimiser={"name": "sgd", "rate": 0.6, "momentum": 0.9},
        running={"iterations": 14, "validate_every": 1},
    )
    done = train_small(recipe, tmp_path / "m", on_progress=watch)
    journal = read_journal(tmp_path / "m" / "training" / "journal.csv")["mean_dice"]
    best = int(np.argmax(journal))
    assert 0 < best < 13, "a case that tells"
    assert done.best_iteration == best + 1
    for iteration, sha256 in kept.items():
        so_far = int(np.argmax(journal[:iteration]))
        assert sha256 == kept[so_far + 1], "the best so far, at any time"
    assert len(set(kept.values())) < len(kept)


def test_the_last_network_is_kept_if_asked(tmp_path: Path) -> None:
    recipe = small_recipe(
        optimiser={"name": "sgd", "rate": 0.6, "momentum": 0.9},
        running={"iterations": 5, "validate_every": 2, "best_by": "last"},
    )
    assert train_small(recipe, tmp_path / "m").best_iteration == 5
    weights = load_model(tmp_path / "m").build().state_dict()
    state = read_state(tmp_path / "m" / "training" / "state").learner["network"]
    assert all(torch.equal(state[name], value) for name, value in weights.items() if value.ndim)


def test_the_mean_of_the_weights_is_kept_if_asked(tmp_path: Path) -> None:
    recipe = small_recipe(
        optimiser={"name": "sgd", "rate": 0.1, "average": 0.9}, running={"best_by": "last"}
    )
    train_small(recipe, tmp_path / "m")
    weights = load_model(tmp_path / "m").build().state_dict()
    learner = read_state(tmp_path / "m" / "training" / "state").learner
    for name, value in weights.items():
        if value.ndim:
            assert torch.equal(learner["average"]["network"][name], value)
            assert not torch.equal(learner["network"][name], value)


def test_no_progress_ends_it_early(tmp_path: Path) -> None:
    recipe = small_recipe(
        optimiser={"name": "sgd", "rate": 1e-12},
        running={"iterations": 100, "validate_every": 2, "patience": 3},
        network={"norm": "none"},
    )
    done = train_small(recipe, tmp_path / "m")
    assert (done.state, done.iterations, done.best_iteration) == ("stopped early", 8, 2)
    again = train_small(recipe, tmp_path / "m", resume=True)
    assert (again.state, again.iterations) == ("stopped early", 8)


def test_without_anything_held_out_the_last_network_is_kept(tmp_path: Path) -> None:
    split: FieldSplit[Squares] = FieldSplit(training=small_split().training)
    seen: list[TrainingProgress] = []
    done = train_small(small_recipe(), tmp_path / "m", split=split, on_progress=seen.append)
    assert (done.best_iteration, done.held_out, done.sources) == (12, None, {})
    assert {progress.dice for progress in seen} == {None}
    assert load_model(tmp_path / "m").spec.metrics == {}
    assert (tmp_path / "m" / "training" / "examples.png").exists()


def test_intensities_are_scaled_with_what_the_samples_are(tmp_path: Path) -> None:
    recipe = small_recipe(scaling={"mean": None, "std": None})
    fields = small_split().training
    found = choose_normalisation(recipe, fields)
    pixels = np.concatenate([field.image.reshape(-1, 3) for field in fields]) / 255
    assert found.mean == pytest.approx(pixels.mean(0), abs=0.03)
    assert found.std == pytest.approx(pixels.std(0), abs=0.03)
    half = small_recipe(scaling={"mean": (0.1, 0.2, 0.3), "std": None})
    assert choose_normalisation(half, fields).mean == (0.1, 0.2, 0.3)
    assert choose_normalisation(half, fields).std == found.std
    train_small(recipe, tmp_path / "m")
    assert load_model(tmp_path / "m").spec.normalisation == found
    train_small(recipe, tmp_path / "m", resume=True)
    black = Squares(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8))
    assert min(choose_normalisation(recipe, [black]).std) > 0


def three() -> list[dict[str, str]]:
    return [{"name": f"c{i}", "color": f"#{i}{i}{i}{i}{i}{i}"} for i in range(3)]


def test_enough_is_looked_at_for_scaling_where_tiles_are_huge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[int] = []
    make = Samples.__getitem__

    def count(samples: Samples, number: int) -> Sample:
        looked_at.append(number)
        return make(samples, number)

    recipe = small_recipe(scaling={"mean": None, "std": None})
    monkeypatch.setattr(Samples, "__getitem__", count)
    monkeypatch.setattr(
        "wsi_unet.training.augmentation.normalisation.ENOUGH",
        3 * sample_sides(recipe.network, 32).image ** 2,
    )
    choose_normalisation(recipe, small_split().training)
    assert looked_at == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "classes"),
    [
        (lambda: {"classes": three(), "background": "c1"}, 3),
        (lambda: {"classes": three(), "background": None}, 3),
        (
            lambda: {
                "classes": three(),
                "background": None,
                "head": "sigmoid",
                "loss": [{"name": "binary_cross_entropy"}, {"name": "iou"}],
            },
            3,
        ),
        (lambda: {"channel_order": "gray", "scaling": {"mean": (0.5,), "std": (0.3,)}}, 2),
        (lambda: {"network": {"padding": "same", "norm": "instance"}}, 2),
        (lambda: {"running": {"precision": "bfloat16"}}, 2),
    ],
    ids=["classes", "no background", "sigmoid", "gray", "instance norm", "bfloat16"],
)
def test_every_kind_of_network_becomes_a_model(
    tmp_path: Path, changes: Callable[[], dict[str, Any]], classes: int
) -> None:
    recipe = small_recipe(**changes())
    split = small_split(classes)
    done = train_small(recipe, tmp_path / "m", split=split)
    model = load_model(tmp_path / "m")
    assert done.held_out is not None
    found = FieldLabeller(model, device="cpu", precision=done.precision, threads=1).measure(
        split.validation
    )
    assert found.to_json() == done.held_out
    assert model.spec.head == recipe.head
    assert model.spec.background == recipe.background
    local = recipe.network.norm != "instance"
    assert model.spec.window == (None if local else sample_sides(recipe.network, 32).image)


def test_the_card_says_what_it_is_and_how_it_came_about(tmp_path: Path) -> None:
    recipe = small_recipe(description="finds cells", license="CC-BY-4.0", mpp=0.5)
    done = train_small(recipe, tmp_path / "m")
    spec = load_model(tmp_path / "m").spec
    assert (spec.name, spec.mpp, spec.license) == ("cells", 0.5, "CC-BY-4.0")
    assert spec.description == "finds cells"
    assert [(one.name, one.color) for one in spec.classes] == [
        ("ground", "#000000"), ("cell", "#ffff00")
    ]  # fmt: skip
    assert spec.training_data == (
        "a: 3 trained on, 1 held out (CC0-1.0); b: 1 measured apart (Somebody 2015)"
    )
    assert spec.metrics == {"held_out": done.held_out, "sources": done.sources}
    training = spec.training
    assert Recipe.model_validate(training["recipe"]) == recipe
    assert read_recipe(tmp_path / "m" / "training" / "recipe.toml") == recipe
    assert (training["state"], training["iterations"], training["seed"]) == ("finished", 12, 3)
    environment: Any = training["environment"]
    assert environment["torch"] == torch.__version__
    assert (environment["device"], environment["threads"]) == ("cpu", 1)
    report = json.loads((tmp_path / "m" / "training" / "report.json").read_text())
    assert report == json.loads(json.dumps(done.to_json()))
    assert report["fields"] == {"trained_on": 3, "held_out": 1, "apart": 1}


def test_a_model_can_be_used_while_it_is_trained(tmp_path: Path) -> None:
    states = []

    def use(progress: TrainingProgress) -> None:
        if progress.iteration == 6:
            spec = load_model(tmp_path / "m").spec
            states.append(spec.training["state"])
            segmented(tmp_path / "m", squares(8), tmp_path)

    train_small(small_recipe(), tmp_path / "m", on_progress=use)
    assert states == ["training"]


def test_what_describes_no_model_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    classes = [{"name": "background", "color": "#000000"}, {"name": "cell", "color": "#ffff00"}]
    recipe = small_recipe(classes=classes, background=None)
    with pytest.raises(RecipeError, match="recipe cells: background: null, but a class is called"):
        train_small(recipe, tmp_path / "m")
    coloured = small_recipe(
        classes=[{"name": "a", "color": "red"}, {"name": "b", "color": "#ffff00"}], background="a"
    )
    with pytest.raises(RecipeError, match="color"):
        train_small(coloured, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_callers_chance_and_threads_stay_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.set_num_threads(2)
    torch.manual_seed(5)
    train_small(small_recipe(), tmp_path / "m", on_progress=stop_after(5))
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError, match="`workers` is -1, but must be at least 0"):
        choose_runtime(small_recipe(), workers=-1)
    with pytest.raises(OptionError, match="`threads` is 0, but must be at least 1"):
        choose_runtime(small_recipe(), threads=0)
    with pytest.raises(OptionError, match="isn't here"):
        choose_runtime(small_recipe(), device="cuda:99")


def test_urls_are_refused_by_the_option_that_gives_them(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="must be on this machine") as caught:
        wsi_unet.train(small_recipe(), "s3://bucket/model")
    assert caught.value.option == "output"
    with pytest.raises(OptionError, match="s3://bucket/slides: recipe, data and model") as caught:
        wsi_unet.train(small_recipe(), tmp_path / "m", data=Path("s3://bucket/slides"))
    assert caught.value.option == "data"
    with pytest.raises(OptionError, match="must be on this machine"):
        read_recipe("s3://bucket/recipe.toml")


@pytest.mark.parametrize(
    ("batch", "asked", "threads", "workers", "ahead"),
    [
        (8, {}, 4, 4, False),
        (6, {}, 4, 3, False),
        (3, {}, 4, 0, False),
        (1, {}, 4, 0, False),
        (8, {"threads": 1}, 1, 0, False),
        (8, {"threads": 2}, 2, 2, True),
        (8, {"threads": 3, "workers": 2}, 3, 2, False),
        (8, {"threads": 3, "workers": 1}, 3, 1, True),
        (8, {"workers": 9}, 4, 9, False),
        (99, {"threads": 40}, 40, 16, False),
    ],
)
def test_samples_are_made_ahead_where_there_are_cores_for_it(
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    asked: TrainingArguments,
    threads: int,
    workers: int,
    ahead: bool,
) -> None:
    monkeypatch.setattr("wsi_unet.training.runtime.usable_cores", lambda: 4)
    document = small_recipe().model_dump()
    document["sampling"]["batch"] = batch
    runtime = choose_runtime(
        Recipe.model_validate(document),
        device="cpu",
        threads=asked.get("threads"),
        workers=asked.get("workers"),
    )
    assert (runtime.threads, runtime.workers, runtime.ahead) == (threads, workers, ahead)


def test_another_machine_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train_small(small_recipe(), tmp_path / "m", on_progress=stop_after(5))
    runtime = choose_runtime(
        small_recipe(), on_progress=stop_after(6), device="cpu", workers=0, threads=2
    )
    from wsi_unet.training.artifacts.folder import TrainingFolder
    from wsi_unet.training.run import train_on

    train_on(small_recipe(), small_split(), TrainingFolder(tmp_path / "m"), runtime, resume=True)
    assert "resuming with threads 2 instead of 1, so the last bits may differ" in caplog.text
