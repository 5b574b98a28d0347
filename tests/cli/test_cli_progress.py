"""What is shown while a run goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from wsi_unet.segment.report import RunProgress
from wsi_unet_cli import progress
from wsi_unet_cli.progress import Bar, Lines, Silence, numbers, progress_display


def at(seconds: float, done: int, phase: str = "segmenting") -> RunProgress:
    return RunProgress(phase, done, 100, 1, 0, seconds, 1.5, 75.0, 0.5)


def test_numbers_leaves_out_what_is_unknown() -> None:
    assert numbers(RunProgress("segmenting", 0, 7)) == "0/7 blocks"
    assert numbers(RunProgress("opening")) == ""
    assert (
        numbers(at(1, 3))
        == "3/100 blocks · 1 failed · 1.50 Mpx/s · 1 min 15 s left · device 50 % busy"
    )


def test_lines_come_per_phase_and_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines("a.svs") as show:
        show(RunProgress("opening"))
        for second in range(25):
            show(at(second, second))
        show(at(25, 25, "finishing"))
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines[0] == "a.svs: opening"
    assert [line.split()[2] for line in lines[1:]] == ["0/100", "10/100", "20/100", "25/100"]
    assert lines[-1].startswith("a.svs: finishing: ")


def test_a_bar_shows_the_numbers_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=160, markup=False)
    monkeypatch.setattr(progress, "stderr_console", lambda: console)
    with Bar("a [bold] slide.svs") as show:
        show(RunProgress("opening"))
        show(at(3, 42))
    drawn = terminal.getvalue()
    assert "a [bold] slide.svs" in drawn
    assert "42/100 blocks" in drawn
    assert "device 50 % busy" in drawn
    assert drawn.rstrip().endswith("\x1b[2K")  # the last thing it does is to clear its line


def test_the_display_suits_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress_display("a", quiet=True), Silence)
    for terminal, kind in ((True, Bar), (False, Lines)):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda answer=terminal: answer)
        monkeypatch.setattr("sys.stderr", stream)
        assert isinstance(progress_display("a", quiet=False), kind)
