"""The journal and the pictures show what happened."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.training import small_recipe, squares, train_small

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.geometry import Box
from wsi_unet.models import ModelSpec, Normalisation
from wsi_unet.training.artifacts.card import describe_model
from wsi_unet.training.artifacts.journal import Journal, read_journal, writing_journal
from wsi_unet.training.artifacts.pictures import (
    EXAMPLES,
    GAP,
    LabelledWindow,
    choose_examples,
    draw_curve,
    draw_examples,
    paint_labels,
    paint_truth,
    smoothed,
)
from wsi_unet.training.fields import IGNORED, NOTHING
from wsi_unet.training.loop.optimisers import rate_at
from wsi_unet.training.loop.trainer import journal_columns, loss_columns

COLUMNS = ["iteration", "loss", "mean_dice"]


def spec(**changes: Any) -> ModelSpec:
    channels = Normalisation(mean=(0.4,) * 3, std=(0.3,) * 3)
    return describe_model(small_recipe(**changes), channels, "")


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def rows(path: Path, position: int, iterations: range) -> int:
    with writing_journal(path, COLUMNS, position, None, 0) as journal:
        for iteration in iterations:
            journal.add(iteration, {"loss": iteration / 3, "mean_dice": math.nan})
        return journal.position


def test_rows_after_the_last_state_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.csv"
    position = rows(path, 0, range(1, 4))
    rows(path, position, range(4, 9))
    rows(path, position, range(4, 6))
    found = read_journal(path)
    assert found["iteration"] == [1, 2, 3, 4, 5]
    assert found["loss"] == pytest.approx([i / 3 for i in range(1, 6)], rel=1e-5)
    assert np.isnan(found["mean_dice"]).all()
    assert path.read_text().splitlines()[0] == "iteration,loss,mean_dice"


def test_a_new_training_begins_a_new_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.csv"
    rows(path, 0, range(1, 9))
    rows(path, 0, range(1, 2))
    assert read_journal(path)["iteration"] == [1]


def test_an_empty_journal_can_be_read(tmp_path: Path) -> None:
    rows(tmp_path / "journal.csv", 0, range(0))
    assert read_journal(tmp_path / "journal.csv") == {}


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    with full, pytest.raises(OutputError, match="can't write /dev/full: No space left"):
        Journal(full, COLUMNS, None)
    with (
        pytest.raises(OutputError, match="can't write"),
        writing_journal(tmp_path / "no" / "journal.csv", COLUMNS, 0, None, 0),
    ):
        pass


def test_the_terms_of_a_loss_have_names_of_their_own() -> None:
    recipe = small_recipe(
        loss=[{"name": "focal"}, {"name": "dice"}, {"name": "focal", "gamma": 1.0}]
    )
    assert loss_columns(recipe) == ["focal", "dice", "focal 2"]
    assert journal_columns(recipe)[:6] == [
        "iteration", "seconds", "loss", "focal", "dice", "focal 2"
    ]  # fmt: skip


def test_a_trainings_journal_says_what_happened(tmp_path: Path) -> None:
    recipe = small_recipe(
        loss=[{"name": "cross_entropy"}, {"name": "dice", "weight": 0.5}],
        optimiser={"name": "sgd", "rate": 0.05, "momentum": 0.9, "schedule": "cosine"},
        running={"iterations": 10},
    )
    done = train_small(recipe, tmp_path / "m")
    journal = read_journal(tmp_path / "m" / "training" / "journal.csv")
    assert list(journal) == journal_columns(recipe)
    assert journal["iteration"] == list(range(1, 11))
    assert journal["loss"] == pytest.approx(
        np.add(journal["cross_entropy"], journal["dice"]), rel=1e-4
    )
    assert journal["rate"] == pytest.approx(
        [rate_at(recipe.optimiser, i, 10) for i in range(10)], rel=1e-5
    )
    assert np.flatnonzero(~np.isnan(journal["mean_dice"])).tolist() == [3, 7, 9]
    assert journal["seconds"] == sorted(journal["seconds"])
    assert all(0 <= share <= 1 for share in journal["waited"])
    assert done.held_out is not None
    best = int(np.nanargmax(journal["mean_dice"]))
    assert done.best_iteration == best + 1
    assert done.held_out["dice"] == pytest.approx(journal["mean_dice"][best], abs=5e-5)
    assert journal["dice cell"] == pytest.approx(journal["mean_dice"], nan_ok=True)
    assert pixels(tmp_path / "m" / "training" / "learning_curve.png").shape == (700, 900, 3)


def test_tensorboard_gets_the_journals_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = tmp_path / "board"
    for first, last, position in ((1, 6, 0), (4, 8, 0)):
        with writing_journal(
            tmp_path / f"{first}.csv", COLUMNS, position, board, first - 1
        ) as journal:
            for iteration in range(first, last):
                journal.add(iteration, {"loss": iteration + first, "mean_dice": math.nan})
    events = EventAccumulator(str(board)).Reload()
    assert events.Tags()["scalars"] == ["loss"]
    found = {one.step: one.value for one in events.Scalars("loss")}
    assert found == {1: 2, 2: 3, 3: 4, 4: 8, 5: 9, 6: 10, 7: 11}, "what was done again counts"


def test_a_journal_that_lost_its_end_starts_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.csv"
    path.write_text("iteration,lo")
    with writing_journal(path, COLUMNS, 500, None, 7) as journal:
        journal.add(8, {"loss": 0.5})
    assert read_journal(path)["iteration"] == [8.0]
    assert path.read_bytes().count(bytes(1)) == 0
    assert "is shorter than it was" in caplog.text


def test_a_model_is_not_removed_for_a_training_that_cant_begin(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (model / "weights.safetensors").read_bytes()
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(OptionError, match="TensorBoard"):
        train_small(small_recipe(), model, tensorboard=True)
    assert (model / "weights.safetensors").read_bytes() == before


def test_without_tensorboard_one_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(OptionError, match=r"pip install 'wsi-unet\[train\]'"),
        writing_journal(tmp_path / "j.csv", COLUMNS, 0, tmp_path / "board", 0),
    ):
        pass


def test_a_curve_can_be_drawn_of_anything_that_a_journal_may_hold(tmp_path: Path) -> None:
    columns = {"iteration": [1.0], "loss": [-0.5], "rate": [0.1], "mean_dice": [math.nan]}
    draw_curve(columns, tmp_path / "a.png")
    columns = {"iteration": [1.0, 2.0], "loss": [0.5, 0.0], "rate": [0.1] * 2,
               "mean_dice": [math.nan, 0.5], "dice a b": [math.nan] * 2}  # fmt: skip
    draw_curve(columns, tmp_path / "b.png")
    assert (pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any()


def test_smoothing_is_an_unbiased_mean() -> None:
    assert smoothed(np.full(50, 3.0)) == pytest.approx(3.0)
    values = np.random.default_rng(0).normal(size=400)
    past = math.exp(-1 / 12)
    weights = past ** np.arange(400)[::-1]
    assert smoothed(values)[-1] == pytest.approx((weights * values).sum() / weights.sum())


def test_places_lie_in_fields_and_show_every_class() -> None:
    fields = [squares(0, (300, 700), classes=3), squares(1, (20, 30), classes=2)]
    places = choose_examples(fields, 3, seed=5)
    assert 3 <= len(places) <= EXAMPLES
    for field, box in places:
        assert Box.from_shape(field.shape).contains(box)
        assert box.shape == tuple(min(256, side) for side in field.shape)
    seen = {int(v) for field, box in places for v in np.unique(field.read(box).labels)}
    assert seen == {0, 1, 2}
    assert places == choose_examples(fields, 3, seed=5)
    assert choose_examples([], 3, seed=5) == []


def test_classes_are_painted_in_their_colours() -> None:
    sample = spec()
    truth = np.array([[0, 1, IGNORED, NOTHING]], np.uint8)
    assert paint_truth(truth, sample)[0].tolist() == [
        [0, 0, 0], [255, 255, 0], [128, 128, 128], [0, 0, 0]
    ]  # fmt: skip
    assert paint_labels(np.array([[[1, 0]]], np.uint8), sample)[0].tolist() == [
        [255, 255, 0], [0, 0, 0]
    ]  # fmt: skip
    colors = ["#010203", "#040506"]
    classes = [{"name": name, "color": color} for name, color in zip("ab", colors, strict=True)]
    several = spec(
        classes=classes,
        background=None,
        head="sigmoid",
        loss=[{"name": "binary_cross_entropy"}],
    )
    labels = np.array([[[1, 0, 1, 0]], [[0, 1, 1, 0]]], np.uint8)
    assert paint_labels(labels, several)[0].tolist() == [
        [1, 2, 3], [4, 5, 6], [4, 5, 6], [0, 0, 0]
    ]  # fmt: skip


def test_examples_stand_in_rows_image_truth_prediction(tmp_path: Path) -> None:
    shapes = [(20, 30), (10, 12)]
    places = [
        LabelledWindow(
            number,
            Box.from_shape(shape),
            np.full((*shape, 3), 77, np.uint8),
            np.ones(shape, np.uint8),
            np.zeros((1, *shape), np.uint8),
        )
        for number, shape in enumerate(shapes)
    ]
    draw_examples(places, spec(), tmp_path / "examples.png")
    drawn = pixels(tmp_path / "examples.png")
    assert drawn.shape == (3 * GAP + 40, 4 * GAP + 90, 3)
    for row, (height, width) in enumerate(shapes):
        for column, colour in enumerate(((77, 77, 77), (255, 255, 0), (0, 0, 0))):
            y, x = GAP + row * (20 + GAP), GAP + column * (30 + GAP)
            assert (drawn[y : y + height, x : x + width] == colour).all()
    assert (drawn[:GAP] == 255).all()
