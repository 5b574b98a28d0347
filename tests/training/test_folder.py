"""What a training may overwrite, and what it never does."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from support.training import small_recipe, stop_after, train_small, what_counts

from wsi_unet.errors import LockedError, ModelError, OutputError
from wsi_unet.models import ModelSpec, Normalisation, UNet, load_model, save_model
from wsi_unet.models.destination import check_replaceable
from wsi_unet.models.saving import put_model, write_spec
from wsi_unet.storage.locking.lock import OutputLock
from wsi_unet.training.artifacts.card import describe_model
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.report import TrainingProgress
from wsi_unet.training.run import train

NORMALISATION = Normalisation(mean=(0.4,) * 3, std=(0.3,) * 3)


def spec() -> ModelSpec:
    return describe_model(small_recipe(), NORMALISATION, "synthetic")


def network(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(small_recipe().network)


def test_the_training_beside_a_model_doesnt_make_it_another(model: Path) -> None:
    whole = load_model(model)
    shutil.rmtree(model / "training")
    alone = load_model(model)
    assert alone.sha256 == whole.sha256
    again = save_model(alone.build(), alone.spec, model.with_name("copy"))
    assert again.sha256 == whole.sha256


def test_a_training_is_neither_replaced_nor_resumed_unasked(model: Path) -> None:
    folder = TrainingFolder(model)
    with pytest.raises(OutputError, match="`resume=True` continues it, `overwrite=True` starts"):
        folder.check(resume=False, overwrite=False)
    folder.check(resume=True, overwrite=False)
    folder.check(resume=False, overwrite=True)


def test_other_commands_never_replace_a_training(model: Path) -> None:
    with pytest.raises(OutputError, match="also holds a model's training"):
        check_replaceable(model, overwrite=True)
    with pytest.raises(OutputError, match="also holds a model's training"):
        save_model(network(), spec(), model, overwrite=True)


def test_overwriting_removes_what_a_training_wrote_and_nothing_else(model: Path) -> None:
    notes = [model / "notes.txt", model / "training" / "notes.txt", model / "more" / "a"]
    notes[2].parent.mkdir()
    for note in notes:
        note.write_text("mine")
    events = model / "training" / "tensorboard" / "events.out.tfevents.1.host"
    events.parent.mkdir()
    events.write_bytes(b"")
    (model / "training" / ".state.partial").write_bytes(b"")
    TrainingFolder(model).clear()
    left = {path for path in model.rglob("*") if path.is_file()}
    assert left == set(notes)


def test_overwriting_trains_anew(model: Path, trained: Path) -> None:
    (model / "notes.txt").write_text("mine")
    TrainingFolder(model).check(resume=False, overwrite=True)
    train_small(small_recipe(), model)
    assert (model / "notes.txt").read_text() == "mine"
    assert what_counts(model) == what_counts(trained)


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebodys_folder_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="overwrit"):
        TrainingFolder(tmp_path).check(resume=False, overwrite=overwrite)


def test_only_a_started_training_is_resumed(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path)
    folder.own.mkdir()
    folder.check(resume=True, overwrite=False)
    (folder.own / "plan.txt").write_text("of a marathon")
    with pytest.raises(OutputError, match="exists; choose another path"):
        folder.check(resume=True, overwrite=False)
    folder.recipe.write_text("")
    folder.check(resume=True, overwrite=False)


def test_a_finished_training_needs_its_state_to_be_resumed(model: Path) -> None:
    folder = TrainingFolder(model)
    folder.report.write_text("{}")
    folder.check(resume=True, overwrite=False)
    folder.state.unlink()
    with pytest.raises(OutputError, match=r"has ended, but .*state, which is needed"):
        train(small_recipe(), model, resume=True)
    assert load_model(model).sha256
    folder.check(resume=False, overwrite=True)


def test_a_training_that_lost_its_folder_while_stopped_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, before = tmp_path / "m", dict[Path, bytes]()

    def rob(progress: TrainingProgress) -> None:
        if (progress.iteration, progress.phase) == (6, "training"):
            before.update(contents(model))
            monkeypatch.setattr(OutputLock, "lost", True)

    with pytest.raises(LockedError, match="another training has taken it over"):
        train_small(small_recipe(), model, on_progress=rob)
    after = contents(model)
    assert {path for path in after if after[path] != before[path]} == set()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_without_a_training_is_replaced_only_if_asked(tmp_path: Path) -> None:
    save_model(network(), spec(), tmp_path / "model")
    folder = TrainingFolder(tmp_path / "model")
    for resume in (False, True):
        with pytest.raises(OutputError, match="choose another path, or give `overwrite=True`"):
            folder.check(resume=resume, overwrite=False)
    folder.check(resume=False, overwrite=True)


def test_a_file_is_refused_as_a_training_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"without \.safetensors"):
        TrainingFolder(tmp_path / "m.safetensors").check(resume=False, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        train_small(small_recipe(), tmp_path / "file")


def test_two_trainings_dont_write_to_one_model(tmp_path: Path) -> None:
    seen = []

    def intrude(progress: TrainingProgress) -> None:
        if progress.phase == "measuring":
            with pytest.raises(LockedError, match="is being written by process"):
                train_small(small_recipe(), tmp_path / "m", resume=True)
            seen.append(progress)

    train_small(small_recipe(), tmp_path / "m", on_progress=intrude)
    assert seen
    assert not (tmp_path / "m" / "training" / ".wsi_unet").exists()


def test_what_was_interrupted_before_anything_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(OutputError), TrainingFolder(tmp_path / "a" / "m").locked():
        raise OutputError("the data can't be read, say")
    assert not (tmp_path / "a" / "m").exists()


def test_a_model_put_among_other_files_is_one_as_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "training").mkdir(parents=True)
    for seed in (0, 1):
        put = put_model(network(seed), spec(), folder, folder / "training")
        assert put.sha256 == load_model(folder).sha256
        assert put.sha256 == save_model(network(seed), spec(), tmp_path / f"m{seed}").sha256
    assert sorted(path.name for path in folder.rglob("*")) == [
        "model.json", "training", "weights.safetensors"
    ]  # fmt: skip
    write_spec(folder, spec().model_copy(update={"description": "other words"}))
    assert load_model(folder).spec.description == "other words"
    assert load_model(folder).sha256 == put.sha256


def test_weights_that_arent_numbers_never_replace_a_model(tmp_path: Path) -> None:
    put = put_model(network(), spec(), tmp_path / "model", tmp_path)
    bad = network()
    with torch.no_grad():
        next(bad.parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="NaN or infinite"):
        put_model(bad, spec(), tmp_path / "model", tmp_path)
    assert load_model(tmp_path / "model").sha256 == put.sha256


def test_an_interrupted_training_that_measured_nothing_has_no_model(tmp_path: Path) -> None:
    model = tmp_path / "model"
    found = train_small(small_recipe(), model, on_progress=stop_after(2))
    assert found.best_iteration is None
    with pytest.raises(ModelError, match=r"it has no model\.json"):
        load_model(model)
