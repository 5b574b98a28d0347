"""How commands end early: failed blocks, signals, closed pipes; how to resume."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from support.labelled import write_store
from support.standin import Calls, run

import wsi_unet
from wsi_unet.segmentation.report import RunState
from wsi_unet.segmentation.runs.jobs import SlideOutcome
from wsi_unet.segmentation.status import read_writer
from wsi_unet.signals import interruptions_held
from wsi_unet_cli.common.interrupt import interruptible
from wsi_unet_cli.main import cli


def test_failed_blocks_are_listed_with_the_command_that_retries_them(calls: Calls) -> None:
    calls.outcomes["a.svs"] = "incomplete"
    done = run("a.svs", "--overwrite")
    assert done.exit_code == 1
    assert "block 1.0" in done.stdout
    assert "SlideError: bad tile" in done.stdout
    assert done.stderr.splitlines()[-1] == "  wsi-unet segment a.svs"


@pytest.mark.parametrize("outcome", ["interrupted", KeyboardInterrupt()])
def test_an_interruption_says_how_to_resume(
    calls: Calls, outcome: BaseException | RunState
) -> None:
    calls.outcomes["b c.svs"] = outcome
    done = run("b c.svs", "--tile", "512", "--json", "-o", "o")
    assert done.exit_code == 1
    (slide,) = json.loads(done.stdout)["slides"]
    assert (slide["slide"], slide["state"]) == ("b c.svs", "interrupted")
    assert done.stderr.splitlines()[-1] == "  wsi-unet segment 'b c.svs' --tile 512 --json -o o"


@pytest.mark.parametrize("outcome", ["interrupted", KeyboardInterrupt()])
def test_an_interruption_ends_a_cohort(calls: Calls, outcome: BaseException | RunState) -> None:
    calls.outcomes["b c.svs"] = outcome
    done = run("a.svs", "b c.svs", "d.svs", "--overwrite", "--json", "-o", "o")
    assert done.exit_code == 1
    assert calls.slides == ["a.svs", "b c.svs"]
    states = [slide["state"] for slide in json.loads(done.stdout)["slides"]]
    ended = outcome if isinstance(outcome, str) else "waiting"
    assert states == ["finished", ended, "waiting"]
    assert done.stderr.splitlines()[-1] == "  wsi-unet segment a.svs 'b c.svs' d.svs --json -o o"


def test_overwrite_stays_in_the_command_while_nothing_has_started(calls: Calls) -> None:
    calls.outcomes["a.svs"] = KeyboardInterrupt()
    done = run("a.svs", "--overwrite")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "  wsi-unet segment a.svs --overwrite"


def test_an_interruption_of_the_search_for_slides_says_how_to_resume(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsi_unet.cohorts.cohort.read_cohort", interrupted)
    done = run("slides/", "--overwrite")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "interrupted; what is done is kept. To resume:",
        "  wsi-unet segment slides/ --overwrite",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_and_is_restored_afterwards(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.getsignal(number)

    def terminated(*_: Any, **__: Any) -> Iterator[SlideOutcome]:
        signal.raise_signal(number)
        raise AssertionError("the signal was ignored")

    monkeypatch.setattr(wsi_unet, "segment_cohort", terminated)
    done = run("a.svs")
    assert done.exit_code == 1
    assert "interrupted" in done.stderr
    assert done.stderr.splitlines()[-1] == "  wsi-unet segment a.svs"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("command", "step"),
    [
        (["objects"], "wsi_unet.segmentation.find_objects.LabelSource.open_all"),
        (["status", "--verify", "--forget"], "wsi_unet.segmentation.status._find_runs"),
    ],
    ids=["objects", "status"],
)
def test_a_signal_leaves_no_lock_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    step: str,
    number: signal.Signals,
) -> None:
    output = write_store(tmp_path / "out.ome.zarr", np.ones((20, 20), np.uint8))
    before = signal.getsignal(number)
    locked = []

    def terminated(*_: Any) -> None:
        locked.append(read_writer(output))
        signal.raise_signal(number)
        raise AssertionError("the signal was ignored")

    monkeypatch.setattr(step, terminated)
    done = CliRunner().invoke(cli, [*command, str(output)])
    assert done.exit_code == 1, done.output
    assert locked != [None]
    assert len(locked) == 1
    assert read_writer(output) is None
    assert signal.getsignal(number) is before


def test_a_hangup_that_nohup_ignores_interrupts_nothing() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as check:
            signal.raise_signal(signal.SIGHUP)
            check()
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_terminal_that_is_gone_makes_no_more_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, ours = os.openpty()
    with os.fdopen(ours, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        os.close(terminal)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(ours, b"lost")
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(signal.SIGHUP)
        click.echo("lost")
        monkeypatch.undo()


def test_a_signal_is_remembered_whose_exception_python_drops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    dropped: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", dropped.append)
    with interruptible() as check:
        check()
        Dying()
        assert len(dropped) == 1
        with pytest.raises(KeyboardInterrupt):
            check()


def test_what_is_atomic_is_finished_before_a_signal_arrives() -> None:
    steps = []

    def work() -> None:
        with interruptible(), interruptions_held():
            signal.raise_signal(signal.SIGTERM)
            steps.append("finished")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["finished"]


def test_a_closed_pipe_is_no_error_message(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("wsi_unet_cli.segment.one_slide.print_json", closed)
    done = run("a.svs", "--json", "-q")
    assert done.exit_code == 1
    assert done.stderr == ""
