"""`wsi-unet train`: real recipes on the three nuclei fields; stops, refusals, progress."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from support import warm

import wsi_unet
from wsi_unet.models import load_model
from wsi_unet.models.networks.build import build_network
from wsi_unet.training.artifacts.journal import read_journal
from wsi_unet.training.recipe_file import read_recipe
from wsi_unet.training.report import TrainingProgress
from wsi_unet_cli.common import progress
from wsi_unet_cli.common.progress import Bar, Lines
from wsi_unet_cli.main import cli
from wsi_unet_cli.train.progress import SECONDS_BETWEEN_LINES, describe_training

PROGRAM = (sys.executable, "-c", "from wsi_unet_cli.main import main; main()")
DATA = Path(__file__).resolve().parents[1] / "data" / "nuclei_he"

RECIPE = """
base = "modern"
name = "tiny"
license = "CC0-1.0"
background = "tissue"
mpp = 0.5

[[classes]]
name = "tissue"
color = "#ffffff"

[[classes]]
name = "nucleus"
color = "#2a6fdb"

[[data]]
images = "images"
labels = "instances"
kind = "instances"
object_diameter = 6.5
license = "CC0-1.0"
citation = "BBBC038v1"

[split]
folds = 3

[sampling]
tile = 64
batch = 4
classes = { tissue = 1.0, nucleus = 1.0 }

[warping]
rotation = 0.0
elastic_share = 0.0

[running]
iterations = 60
validate_every = 20
seed = 1

[network]
depth = 2
base_width = 8
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def train(recipe: Path, *arguments: str | Path) -> Result:
    return run("train", recipe, "--data", DATA, "--threads", "1", *arguments)


def few(iterations: int, every: int = 2) -> tuple[str, ...]:
    return (f"--set=running.iterations={iterations}", f"--set=running.validate_every={every}",
            "--workers=0")  # fmt: skip


def test_a_model_is_trained_and_segments_a_slide(recipe: Path, example_slide_path: Path) -> None:
    longer = ("--set=running.iterations=120", "--set=running.best_by=last", "--workers=2")
    done = train(recipe, "--output", "model", "--json", "-q", *longer)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert (report["state"], report["iterations"], report["workers"]) == ("finished", 120, 2)
    # To call everything a nucleus gives 2p / (1 + p), about 0.35.
    share = _share_of_nuclei(report["held_out"])
    assert report["held_out"]["dice"] > max(0.65, 2 * share / (1 + share))
    for name in ("journal.csv", "learning_curve.png", "examples.png", "recipe.toml", "state"):
        assert Path("model", "training", name).stat().st_size > 0
    assert f"{report['held_out']['dice']:.3f}" in run("models", "model").stdout
    card = run("models", "model", "-v").stdout
    assert "state finished, iterations 120, best iteration 120" in card
    assert "nucleus (dice 0." in card

    area = "600,1000,512,512"
    for model, name in (("model", "ours"), ("nuclei-he", "theirs")):
        done = run("segment", example_slide_path, "-m", model, "-o", f"{name}.ome.zarr",
                   "--region", area, "--tissue", "none", "-q")  # fmt: skip
        assert done.exit_code == 0, done.output
    ours, theirs = (
        wsi_unet.open_labels(f"{name}.ome.zarr").to_numpy() > 0 for name in ("ours", "theirs")
    )
    assert theirs.any()
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.4


def _share_of_nuclei(held_out: Any) -> float:
    return float(held_out["classes"]["nucleus"]["pixels"] / held_out["pixels"])


def test_check_says_what_would_be_done_and_writes_nothing(recipe: Path) -> None:
    done = train(recipe, "--check")
    assert done.exit_code == 0, done.output
    for part in ("tiny: checked, nothing written", "training: 2 images of 2 patients",
                 "validation: 1 image of 1 patient", "0.5 µm/px", "60 iterations of 4",
                 "1 thread; samples are made by this process"):  # fmt: skip
        assert part in done.stdout
    document = json.loads(train(recipe, "--check", "--json").stdout)
    assert (document["tile"], document["window"]) == (64, 104)
    parts = {portion["part"]: portion["files"] for portion in document["portions"]}
    assert parts == {"training": 2, "validation": 1}
    network = build_network(read_recipe(recipe).network)
    assert document["parameters"] == sum(p.numel() for p in network.parameters())
    assert [path.name for path in Path().iterdir()] == ["recipe.toml"]


def test_shipped_recipes_are_shown() -> None:
    for name in ("paper", "modern"):
        done = run("train", "--show", name)
        assert done.exit_code == 0
        assert tomllib.loads(done.stdout)["network"]["depth"] == 4
    done = run("train", "--show", "papr")
    assert done.exit_code == 2
    assert "'papr' is none of modern, paper" in done.stderr


def test_a_training_is_resumed(recipe: Path) -> None:
    first = train(recipe, *few(4), "-q")
    assert first.exit_code == 0, first.output
    assert "tiny: finished" in first.stdout
    assert "mean Dice" in first.stdout
    refused = train(recipe, *few(6), "-q")
    assert refused.exit_code == 2
    assert "--resume continues it, --overwrite starts over" in refused.stderr
    resumed = train(recipe, *few(6), "-q", "--resume", "--set", "optimiser.schedule=onecycle")
    assert resumed.exit_code == 0, resumed.output
    assert len(read_journal(Path("tiny", "training", "journal.csv"))["iteration"]) == 6
    other = train(recipe, *few(6), "--resume", "--set", "optimiser.rate=0.5")
    assert other.exit_code == 2
    assert "optimiser.rate was 0.002 and is 0.5" in other.stderr
    anew = train(recipe, *few(2), "-q", "--overwrite")
    assert anew.exit_code == 0, anew.output
    assert len(read_journal(Path("tiny", "training", "journal.csv"))["iteration"]) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_everything_and_says_how_to_resume(
    recipe: Path, number: signal.Signals
) -> None:
    arguments = ["train", str(recipe), "--data", str(DATA), "--threads", "1", "--workers", "2",
                 "--overwrite", "--set", "running.validate_every=3",
                 "--set", "running.iterations=12"]  # fmt: skip
    with _started(arguments) as process:
        _wait_for_iteration(process, 4)
        helpers = psutil.Process(process.pid).children(recursive=True)
        assert len(helpers) > 2
        if number == signal.SIGINT:  # as a terminal does, to the workers too
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    for word in ("Traceback", "KeyboardInterrupt", "rror"):
        assert word not in stderr
    assert "tiny: interrupted" in stdout
    lines = stderr.splitlines()
    assert lines[-2] == "interrupted; what was learnt is kept. To resume:"
    program, *resume = shlex.split(lines[-1])
    assert program == "wsi-unet"
    assert resume == [*(part for part in arguments if part != "--overwrite"), "--resume"]
    assert not psutil.wait_procs(helpers, timeout=60)[1]
    kept = load_model("tiny")
    assert kept.spec.training["state"] == "interrupted"

    done = run(*resume, "--workers", "0")
    assert done.exit_code == 0, done.output
    whole = run(*arguments, "--output", "whole", "--workers", "0")
    assert whole.exit_code == 0, whole.output
    assert load_model("tiny").sha256 == load_model("whole").sha256


def test_ctrl_c_before_anything_is_learnt(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wsi_unet, "train", interrupted)
    done = run("train", recipe, "--overwrite", "-q")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "interrupted before anything was learnt. To start again:",
        f"  wsi-unet train {recipe} --overwrite -q",
    ]


def test_ctrl_c_where_nothing_can_be_saved_keeps_the_last_state(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, on_progress: Any, **options: object) -> None:
        for phase in ("opening", "training"):
            on_progress(TrainingProgress(phase, iterations=9))
        raise KeyboardInterrupt

    monkeypatch.setattr(wsi_unet, "train", interrupted)
    done = run("train", recipe, "--overwrite", "-q")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "interrupted at once; what was saved last is kept. To resume:",
        f"  wsi-unet train {recipe} -q --resume",
    ]


def test_ctrl_c_while_processes_start_is_two_lines(recipe: Path) -> None:
    arguments = ["train", str(recipe), "--data", str(DATA), "--workers", "2", "-q"]
    with _started(arguments) as process:
        helpers: list[psutil.Process] = []
        while not any(map(_is_fork_server, helpers)):
            assert process.poll() is None
            time.sleep(0.01)
            helpers = psutil.Process(process.pid).children()
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    assert "tiny: interrupted" in stdout
    assert len(stderr.splitlines()) == 2, stderr
    assert stderr.startswith("interrupted; what was learnt is kept. To resume:")
    assert not psutil.wait_procs(helpers, timeout=60)[1]


def _is_fork_server(process: psutil.Process) -> bool:
    try:
        return "forkserver" in " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return False


def _started(arguments: list[str]) -> subprocess.Popen[str]:
    """Start the program as the first of a group of processes, as a terminal does."""
    return warm.Popen(
        [*PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _wait_for_iteration(process: subprocess.Popen[str], iteration: int) -> None:
    journal, deadline = Path("tiny", "training", "journal.csv"), time.monotonic() + 120
    while not journal.exists() or journal.read_text().count("\n") <= iteration:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--set", "running.iteratoins=3"), "did you mean 'iterations'?"),
        (("--set", "split.folds=4"), "can't be cut into 4 folds"),
        (("--set", "network.depth=9"), "network.depth"),
        (("--device", "cuda:9"), "isn't here"),
        (("--output", "m.safetensors"), "without .safetensors"),
        (("--data", "nowhere"), "nowhere"),
        (("--resume", "--overwrite"), "contradict each other"),
        (("--set", 'loss=[{name="binary_cross_entropy"}]'), "is for sigmoid heads"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(
    recipe: Path, settings: tuple[str, ...], message: str
) -> None:
    for check in ((), ("--check",)):
        if check and settings[0] in ("--output", "--resume"):
            continue
        done = run("train", recipe, "--data", DATA, *few(2), *settings, *check, "-q")
        assert done.exit_code == 2, done.output
        assert message in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert [path.name for path in Path().iterdir()] == ["recipe.toml"]


def test_a_diverged_loss_ends_it_with_one_line(recipe: Path) -> None:
    done = train(recipe, *few(9), "-q", "--set", "optimiser.rate=1e30", "--set",
                 "optimiser.name=sgd", "--set", "network.norm=none",
                 "--set", "optimiser.clip=0")  # fmt: skip
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "start over with a lower optimiser.rate" in done.stderr


def test_events_and_tensorboard_are_written(recipe: Path) -> None:
    done = train(recipe, *few(2), "-q", "--log", "log.jsonl", "--tensorboard")
    assert done.exit_code == 0, done.output
    events = [json.loads(line)["event"] for line in Path("log.jsonl").read_text().splitlines()]
    assert [name for name in events if name in ("training", "measured", "training ended")] == [
        "training", "measured", "training ended"
    ]  # fmt: skip
    assert list(Path("tiny", "training", "tensorboard").glob("events.*"))


def test_without_matplotlib_one_line_says_so(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = train(recipe, *few(2), "-q")
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("warning: no learning curve is drawn")
    assert done.stderr.count("\n") == 1
    assert not Path("tiny", "training", "learning_curve.png").exists()
    assert Path("tiny", "training", "examples.png").exists()


def at(iteration: int, seconds: float, **more: Any) -> TrainingProgress:
    known = TrainingProgress("training", iteration, 100, 0.5, None, None, seconds, 75.0)
    return replace(known, **more)


def figures(progress: TrainingProgress) -> str:
    return describe_training(progress).figures


def test_figures_leave_out_what_is_unknown() -> None:
    assert figures(TrainingProgress("opening")) == ""
    assert figures(at(3, 1)) == "3/100 iterations · loss 0.500 · 1 min 15 s left"
    assert figures(at(3, 1, dice=0.81, best_dice=0.87, waited=0.2)) == (
        "3/100 iterations · loss 0.500 · Dice 0.810 (best 0.870) · 1 min 15 s left · "
        "waits for data 20 % of the time"
    )
    assert "(best" not in figures(at(3, 1, dice=0.87, best_dice=0.87))


def test_lines_come_when_something_is_new_and_every_half_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Lines("[b]cells", describe_training, SECONDS_BETWEEN_LINES) as show:
        show(TrainingProgress("opening"))
        for second in range(70):
            show(at(second + 1, second))
        show(at(70, 70, phase="measuring"))
        show(at(70, 71, dice=0.9))
        show(at(71, 72, dice=0.9))
        show(at(71, 73, dice=0.9, phase="finishing"))
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0] == "[b]cells: opening"
    assert [line.split()[2] for line in lines[1:]] == [
        "1/100", "31/100", "61/100", "70/100", "71/100"
    ]  # fmt: skip


def test_a_bar_shows_the_numbers_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=160, markup=False)
    monkeypatch.setattr(progress, "stderr_console", lambda: console)
    with Bar("[bold]cells", describe_training) as show:
        show(TrainingProgress("opening"))
        show(at(42, 3, dice=0.75))
    drawn = terminal.getvalue()
    for part in ("[bold]cells", "42/100 iterations", "Dice 0.750"):
        assert part in drawn
    assert drawn.rstrip().endswith("\x1b[2K")
