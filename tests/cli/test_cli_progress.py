"""The progress display of runs."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from support.standin import cohort_progress

from wsi_unet.segmentation.report import CohortProgress, RunProgress
from wsi_unet_cli.common import progress
from wsi_unet_cli.common.progress import Bar, Lines, Silence, Snapshot, open_display
from wsi_unet_cli.segment.progress import describe_cohort, describe_run


def at(seconds: float, done: int, phase: str = "segmenting") -> RunProgress:
    return RunProgress(phase, done, 100, 1, 0, seconds, 1.5, 75.0, 0.5)


def test_figures_leave_out_what_is_unknown() -> None:
    assert describe_run(RunProgress("segmenting", 0, 7)).figures == "0/7 blocks"
    assert describe_run(RunProgress("segmenting", 0, 1)).figures == "0/1 block"
    assert describe_run(RunProgress("opening")).figures == ""
    assert (
        describe_run(at(1, 3)).figures
        == "3/100 blocks · 1 failed · 1.50 Mpx/s · 1 min 15 s left · device 50 % busy"
    )


def test_lines_come_per_phase_and_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines("a.svs", describe_run) as show:
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
    with Bar("a [bold] slide.svs", describe_run) as show:
        show(RunProgress("opening"))
        show(at(3, 42))
    drawn = terminal.getvalue()
    assert "a [bold] slide.svs" in drawn
    assert "42/100 blocks" in drawn
    assert "device 50 % busy" in drawn
    assert drawn.rstrip().endswith("\x1b[2K")  # the last thing it does is to clear its line


def test_the_display_suits_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(open_display("a", describe_run, quiet=True)) is Silence
    for terminal, kind in ((True, Bar), (False, Lines)):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda answer=terminal: answer)
        monkeypatch.setattr("sys.stderr", stream)
        assert isinstance(open_display("a", describe_run, quiet=False), kind)


def active(count: int, done: int = 0) -> CohortProgress:
    slides = tuple(
        RunProgress(
            "segmenting", slide=f"[b]{i}.svs", blocks_done=done, blocks_total=9, mpx_per_s=1.5
        )
        for i in range(count)
    )
    return replace(cohort_progress(slides), slides_total=None if count > 9 else 20, slides_failed=3)


def describe(progress: CohortProgress) -> Snapshot:
    return describe_cohort(progress, 75.0)


def test_a_cohorts_figures_leave_out_what_is_unknown() -> None:
    assert describe(active(1)).figures == (
        "1/20 slides · 3 failed · 1.25 blocks/s · 2.50 Mpx/s · 1 min 15 s left · device 93 % busy"
    )
    bare = replace(active(99), slides_failed=0, blocks_done=0, device_busy=0.0)
    assert describe_cohort(bare, None).figures == "1 slide"


def test_a_cohorts_lines_come_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines("cohort", describe) as show:
        for second in range(25):
            show(replace(active(2), slides_done=second, seconds=second))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split()[1] for line in printed.err.splitlines()] == ["0/20", "10/20", "20/20"]


def test_a_cohorts_bars_show_the_whole_and_what_is_being_worked_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=160, markup=False)
    monkeypatch.setattr(progress, "stderr_console", lambda: console)
    pictures = []
    with Bar("cohort", describe) as show:
        for count, done in ((12, 3), (2, 5)):
            show(active(count, done))
            start = len(terminal.getvalue())
            with show.aside():  # draws it once more, then takes it away
                print("a result")
                pictures.append(terminal.getvalue()[start:])
            assert pictures[-1].rstrip().endswith("\x1b[2K")
    first, second = pictures
    for part in ("1 slide ", "1 min 15 s left", "[b]5.svs", "3/9 blocks"):
        assert part in first
    assert "[b]6.svs" not in first, "there is room for six"
    assert "[b]1.svs" in second
    assert "5/9 blocks" in second
    assert "[b]2.svs" not in second
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")
    assert capsys.readouterr().out == "a result\na result\n"
