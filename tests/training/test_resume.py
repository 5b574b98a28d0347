"""A training that was stopped at any point ends with the bits of one that wasn't."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from support import warm
from support.training import (
    small_recipe,
    small_split,
    squares,
    stop_after,
    train_small,
    what_counts,
)

from wsi_unet.errors import OutputError, SignatureError
from wsi_unet.models import load_model
from wsi_unet.training.artifacts.folder import TrainingFolder
from wsi_unet.training.artifacts.state import TrainingState, read_state, write_state
from wsi_unet.training.dataset import FieldSplit
from wsi_unet.training.loop.batches import Batch
from wsi_unet.training.loop.learner import Learner, Step
from wsi_unet.training.recipe import Recipe

RECIPE = small_recipe(
    optimiser={"name": "adamw", "rate": 0.01, "schedule": "onecycle", "clip": 1.0, "average": 0.8},
    colouring={"noise": 0.1, "brightness": 0.1},
    warping={"flips": True, "elastic": 2.0},
    loss=[{"name": "cross_entropy"}, {"name": "dice", "weight": 0.5}],
    network={"norm": "batch", "dropout": 0.5},
)

PROGRAM = """
import sys
from pathlib import Path
from support.training import train_small
from wsi_unet.training.recipe import Recipe
recipe = Recipe.model_validate_json(sys.argv[2])
print("running", flush=True)
def show(progress):
    print(progress.iteration, flush=True)
    if progress.iteration == int(sys.argv[3]):
        sys.stdin.readline()  # until it is killed
if __name__ == "__main__":
    train_small(recipe, Path(sys.argv[1]), workers=1, on_progress=show)
"""


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """Save the time: they are drawn from the journal, which is compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsi_unet.training.loop.trainer.can_draw_curves", lambda: False)
        yield


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    model = tmp_path_factory.mktemp("at-once") / "model"
    assert train_small(RECIPE, model).state == "finished"
    return what_counts(model)


def test_the_same_seed_gives_the_same_bits(at_once: dict[str, object], tmp_path: Path) -> None:
    train_small(RECIPE, tmp_path / "same")
    assert what_counts(tmp_path / "same") == at_once
    other = RECIPE.model_copy(update={"running": RECIPE.running.model_copy(update={"seed": 4})})
    train_small(other, tmp_path / "other")
    assert what_counts(tmp_path / "other")["weights"] != at_once["weights"]


@pytest.mark.parametrize(
    ("iteration", "phase"), [(1, "training"), (6, "training"), (8, "measuring"), (11, "training")]
)
def test_an_interrupted_training_is_resumed_to_the_same_bits(
    at_once: dict[str, object], tmp_path: Path, iteration: int, phase: str
) -> None:
    model = tmp_path / "model"
    stopped = train_small(RECIPE, model, on_progress=stop_after(iteration, phase))
    assert (stopped.state, stopped.iterations) == ("interrupted", iteration)
    assert stopped.best_iteration == (
        None if iteration < 4 else iteration // 4 * 4 - 4 * (phase == "measuring")
    )
    assert (model / "model.json").exists() == (stopped.best_iteration is not None)
    assert not (model / "training" / "report.json").exists()
    again = train_small(RECIPE, model, resume=True)
    assert (again.state, again.iterations) == ("finished", 12)
    assert what_counts(model) == at_once
    assert (model / "training" / "report.json").exists()


def test_ctrl_c_within_an_iteration_arrives_at_its_end(
    at_once: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Learner.learn

    def interrupt(learner: Learner, batch: Batch) -> Step:
        if learner.iteration == 6:
            signal.raise_signal(signal.SIGINT)
        return learn(learner, batch)

    model = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", interrupt)
        stopped = train_small(RECIPE, model)
    assert (stopped.state, stopped.iterations) == ("interrupted", 7)
    assert load_model(model).spec.training["state"] == "interrupted"
    assert train_small(RECIPE, model, resume=True).state == "finished"
    assert what_counts(model) == at_once


@pytest.mark.parametrize("iteration", [6, 8])
def test_ctrl_c_while_the_state_is_written_lets_it_be_written(
    at_once: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iteration: int
) -> None:
    """After a first Ctrl-C, and where a state is written anyway."""

    def interrupt(state: TrainingState, path: Path) -> None:
        if state.iteration == iteration:
            signal.raise_signal(signal.SIGINT)
        write_state(state, path)

    model = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr("wsi_unet.training.loop.trainer.write_state", interrupt)
        stopped = train_small(RECIPE, model, on_progress=stop_after(6) if iteration == 6 else None)
    assert (stopped.state, stopped.iterations) == ("interrupted", iteration)
    assert read_state(model / "training" / "state").iteration == iteration
    train_small(RECIPE, model, resume=True)
    assert what_counts(model) == at_once


def test_ctrl_c_while_the_result_is_written_lets_it_be_written(
    at_once: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = TrainingFolder.put_report

    def interrupt(folder: TrainingFolder, text: str) -> None:
        signal.raise_signal(signal.SIGINT)
        put(folder, text)

    model = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingFolder, "put_report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_small(RECIPE, model)
    assert load_model(model).spec.training["state"] == "finished"
    report = json.loads((model / "training" / "report.json").read_text())
    assert (report["state"], report["iterations"]) == ("finished", 12)
    assert what_counts(model) == at_once
    assert train_small(RECIPE, model, resume=True).state == "finished"


def test_ctrl_c_while_held_out_sources_are_measured_is_an_interruption(
    at_once: dict[str, object], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    stopped = train_small(RECIPE, model, on_progress=stop_after(12, "finishing"))
    assert (stopped.state, stopped.sources) == ("interrupted", {})
    assert load_model(model).spec.training["state"] == "interrupted"
    assert not (model / "training" / "report.json").exists()
    assert train_small(RECIPE, model, resume=True).state == "finished"
    assert what_counts(model) == at_once


def test_other_processes_make_the_same_samples(at_once: dict[str, object], tmp_path: Path) -> None:
    model = tmp_path / "model"
    train_small(RECIPE, model, workers=2, on_progress=stop_after(7))
    train_small(RECIPE, model, resume=True, workers=1)
    assert what_counts(model) == at_once


@pytest.mark.parametrize("kill_at", [2, 6])
def test_a_killed_training_is_resumed_from_its_last_state(
    at_once: dict[str, object], tmp_path: Path, kill_at: int
) -> None:
    model = tmp_path / "model"
    process = warm.Popen(
        [sys.executable, "-c", PROGRAM, str(model), RECIPE.model_dump_json(), str(kill_at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.strip() == str(kill_at):
                break
        else:
            pytest.fail("it ended by itself")
        others = psutil.Process(process.pid).children(recursive=True)
        assert len(others) > 1
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not psutil.wait_procs(others, timeout=60)[1], "those who made samples end, too"
    state = model / "training" / "state"
    assert state.exists() == (kill_at > 4)
    train_small(RECIPE, model, resume=True)
    assert what_counts(model) == at_once
    assert not list((model / "training").glob(".*"))


def test_more_iterations_may_be_asked_for(tmp_path: Path) -> None:
    def recipe(iterations: int) -> Recipe:
        return small_recipe(running={"iterations": iterations})

    train_small(recipe(8), tmp_path / "model")
    assert train_small(recipe(12), tmp_path / "model", resume=True).iterations == 12
    train_small(recipe(12), tmp_path / "at-once")
    ours, other = (what_counts(tmp_path / name) for name in ("model", "at-once"))
    assert ours["weights"] == other["weights"]
    assert ours["journal"] == other["journal"]
    with pytest.raises(SignatureError, match="trained for 12 iterations already"):
        train_small(recipe(8), tmp_path / "model", resume=True)


def test_a_finished_training_has_nothing_left_to_do(model: Path) -> None:
    first = json.loads((model / "training" / "report.json").read_text())
    before = what_counts(model)
    again = train_small(small_recipe(), model, resume=True)
    assert again.sources == first["sources"]
    assert again.held_out == first["held_out"]
    assert what_counts(model) == before


def test_another_recipe_is_refused_by_what_differs(model: Path) -> None:
    before = what_counts(model)
    other = small_recipe(optimiser={"name": "sgd", "rate": 0.07, "momentum": 0.9})
    with pytest.raises(SignatureError, match=r"optimiser\.rate was 0\.05 and is 0\.07"):
        train_small(other, model, resume=True)
    assert what_counts(model) == before


def test_other_data_are_refused(model: Path) -> None:
    split = small_split()
    more = FieldSplit([*split.training, squares(7)], split.validation, split.hold_out)
    with pytest.raises(SignatureError, match="trained on other data"):
        train_small(small_recipe(), model, resume=True, split=more)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pickle"])
def test_a_damaged_state_is_one_clear_line(model: Path, damage: str) -> None:
    state = model / "training" / "state"
    content = bytearray(state.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    others = {"cut": content[:-100], "empty": bytearray(), "pickle": bytearray(b"\x80\x04.")}
    state.write_bytes(others.get(damage, content))
    with pytest.raises(OutputError, match="is damaged, or written by another version") as caught:
        train_small(small_recipe(), model, resume=True)
    assert "\n" not in str(caught.value)


def test_a_state_has_the_keys_that_earlier_versions_wrote(model: Path) -> None:
    content = (model / "training" / "state").read_bytes()
    document = torch.load(io.BytesIO(content[len(b"wsi-unet training 1\n") + 32 :]))
    assert set(document) == {
        "recipe", "data", "scaling", "circumstances", "learner", "standing", "journal"
    }  # fmt: skip
    assert document["scaling"] == ((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
    assert set(document["standing"]) == {
        "measured", "best", "top", "waiting", "row", "seconds", "seconds_waited"
    }  # fmt: skip


def test_a_state_runs_no_code(tmp_path: Path) -> None:
    import hashlib
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    data = pickle.dumps(Evil())
    path = tmp_path / "state"
    path.write_bytes(b"wsi-unet training 1\n" + hashlib.sha256(data).digest() + data)
    with pytest.raises(OutputError, match="is damaged"):
        read_state(path)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_small(small_recipe(), tmp_path / "m", on_progress=stop_after(5))
    path = tmp_path / "m" / "training" / "state"
    before, state = path.read_bytes(), read_state(path)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OutputError, match="state: No space left on device"):
        write_state(state, path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*.partial"))
