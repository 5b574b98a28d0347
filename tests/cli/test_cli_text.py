"""Messages of the library as people read them: options with dashes, counts of things."""

from __future__ import annotations

import doctest
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from support.standin import Calls, report, run

import wsi_unet
import wsi_unet_cli
from wsi_unet.errors import OptionError
from wsi_unet.logs import warn
from wsi_unet_cli.common import failures, outcome, output, text
from wsi_unet_cli.common.cluster_options import logging_to
from wsi_unet_cli.common.outcome import CommandOutcome
from wsi_unet_cli.common.progress import Bar, Snapshot, open_display
from wsi_unet_cli.common.text import COMMAND, speak_document, with_dashes
from wsi_unet_cli.main import _format_warning, cli


@pytest.fixture
def context() -> Iterator[click.Context]:
    """Return the context of an error that came out of `wsi-unet segment`."""
    with click.Context(cli) as context:
        context.meta[COMMAND] = cli.commands["segment"]
        yield context


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    ("message", "spoken"),
    [
        ("use a smaller `tile`", "use a smaller --tile"),
        ("try `tile=104`", "try --tile 104"),
        ("`overwrite=True` replaces it", "--overwrite replaces it"),
        ("`max_retries=0`", "--max-retries 0"),
        ("`models=['a']` and `model`", "--model a and --model"),
        ("`tta='d4'` or `tta=d4`", "--tta d4 or --tta d4"),
        ("`tolerance=None`", "--tolerance none"),
        ("`region=(0, 64, 512, 512)`", "--region 0,64,512,512"),
        ("`ignore='no tumour'`", "--ignore 'no tumour'"),
        ("`ignore=no tumour`", "--ignore 'no tumour'"),
        ("`outputs=('labels', 'probabilities')`", "--outputs labels,probabilities"),
        ("say `dask worker` or `name_of_nothing=3`", "say `dask worker` or `name_of_nothing=3`"),
        ("no option at all: 5 ` ticks", "no option at all: 5 ` ticks"),
    ],
)  # fmt: skip
def test_options_are_written_as_they_are_typed(message: str, spoken: str) -> None:
    assert with_dashes(message) == spoken


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("value", ["two words", "it's", "a;b", "$HOME", "µ", 'say "so"'])
def test_a_value_is_one_word_of_a_command_line(value: str) -> None:
    assert shlex.split(with_dashes(f"`ignore={value!r}`")) == ["--ignore", value]


def test_an_option_of_the_command_goes_before_one_of_another(context: click.Context) -> None:
    assert with_dashes("`name`, `max_side=9`") == "--name, --size 9"
    context.meta[COMMAND] = click.Command("x", params=[click.Option(["--called", "name"])])
    assert with_dashes("`name`, `max_side=9`") == "--called, --size 9"


def test_outside_of_a_command_nothing_changes() -> None:
    assert with_dashes("try `tile=104`") == "try `tile=104`"


@pytest.mark.usefixtures("context")
def test_in_a_document_only_sentences_change() -> None:
    document: dict[str, Any] = {
        "slide": "`tile`.svs",
        "error": "try `tile=104`",
        "warnings": ("`trust=True`", "nothing"),
        "runs": [{"inexact_because": "no `mpp`", "failures": [{"error": None}], "tile": 3}],
    }
    assert speak_document(document) == {
        "slide": "`tile`.svs",
        "error": "try --tile 104",
        "warnings": ["--trust", "nothing"],
        "runs": [{"inexact_because": "no --mpp", "failures": [{"error": None}], "tile": 3}],
    }


def test_errors_have_dashes_on_stderr_and_in_the_document(calls: Calls) -> None:
    calls.outcomes["a.svs"] = OptionError("a.svs: try `tile=104`")
    done = run("a.svs", "--json")
    assert done.stderr.splitlines()[-1] == "error: a.svs: try --tile 104"
    (slide,) = json.loads(done.stdout)["slides"]
    assert slide["error"] == "a.svs: try --tile 104"
    calls.outcomes["b.svs"] = OptionError("b.svs: try `tile=104`")
    done = run("a.svs", "b.svs", "--json", "-o", "out")
    assert [slide["error"] for slide in json.loads(done.stdout)["slides"]] == [
        "a.svs: try --tile 104",
        "b.svs: try --tile 104",
    ]
    status = CliRunner().invoke(cli, ["status", "out"])
    assert "a.svs: try --tile 104" in status.stdout


@pytest.mark.parametrize("slides", [("a.svs",), ("a.svs", "b.svs")])
def test_warnings_have_dashes_when_they_come_and_in_the_document(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, slides: tuple[str, ...]
) -> None:
    from dataclasses import replace

    from support import standin

    def with_warning(*arguments: Any) -> Any:
        warn("give `mpp` soon")
        return replace(report(*arguments), warnings=("rough; use `precision=float32`",))

    monkeypatch.setattr(standin, "report", with_warning)
    done = run(*slides, "-o", "out/")
    assert done.stderr.count("warning: give --mpp soon\n") == len(slides)
    assert "rough" not in done.stdout  # it was said when the slide began
    done = run(*slides, "-o", "out/", "--json")
    for slide in json.loads(done.stdout)["slides"]:
        assert slide["warnings"] == ["rough; use --precision float32"]


def test_an_error_of_the_library_is_spoken_by_every_command(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OptionError("no labels `x`; choose one with `label`")

    monkeypatch.setattr(wsi_unet, "write_overlay", refuse)
    done = CliRunner().invoke(cli, ["overlay", "x.ome.zarr"])
    assert done.exit_code == 2
    assert done.stderr == "error: no labels `x`; choose one with --label\n"


def test_the_examples_in_the_docs() -> None:
    assert doctest.testmod(text).attempted


HOSTILE = "\x1b[31mred\x9b1m\u202etxt\r\ndone\u2066\udce9\x07"
"""Escape sequences of both kinds, text run backwards, a line of its own, a byte, a bell."""


def is_safe(printed: str) -> bool:
    return all(line.isprintable() for line in printed.split("\n"))


def show_everywhere(text: str) -> Snapshot:
    return Snapshot(text, text, state=text, active=((text, Snapshot(text, text)),))


def test_whatever_is_printed_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    output.say(HOSTILE)
    output.say_lines(f"Traceback\n  {HOSTILE}", err=True)
    output.print_facts(HOSTILE, [(HOSTILE, HOSTILE), ("name", "value")])
    output.print_table([HOSTILE, "b"], [(HOSTILE, HOSTILE)])
    output.print_json({HOSTILE: HOSTILE})
    failures.show_error(ValueError(HOSTILE), verbose=True, subject=HOSTILE)
    failures.show_error(OptionError(HOSTILE), verbose=False)
    outcome.show_resume_command(CommandOutcome(1, HOSTILE), [HOSTILE])
    with open_display(HOSTILE, show_everywhere, quiet=False) as lines:
        lines(HOSTILE)
    with logging_to(None, verbose=False):
        warn(HOSTILE)
    printed = capsys.readouterr()
    assert is_safe(printed.out)
    assert is_safe(printed.err)
    assert printed.out.count("red") == 1 + 3 + 3 + 2
    assert r"\x1b[31mred\x9b1m\u202etxt done\u2066\xe9\x07" in printed.out


def test_the_bar_is_printable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    shown: list[str] = []
    bar = Bar(HOSTILE, show_everywhere)
    with bar:
        bar(HOSTILE)
        assert bar._bars is not None
        for task in bar._bars.tasks:
            shown += [task.description, task.fields["figures"]]
    assert len(shown) == 4
    assert all(text.isprintable() for text in shown)


@pytest.mark.parametrize(
    "arguments",
    [["info", f"--{HOSTILE}"], [HOSTILE], ["info", "a.svs", HOSTILE], ["info", HOSTILE]],
)
def test_messages_about_arguments_are_printable(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert "red" in done.stderr
    assert is_safe(done.output)


def test_the_log_of_dask_is_printable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, handler = logging.getLogger("distributed"), logging.StreamHandler(sys.stderr)
    # What pytest captures must be valid UTF-8 where tests run in several processes.
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(handler)
    try:
        with logging_to(None, verbose=True):
            logger.error("failed: %s", HOSTILE)
        assert handler.formatter is None
    finally:
        logger.removeHandler(handler)
    printed = capsys.readouterr().err
    assert "failed: " in printed
    assert is_safe(printed)


def test_a_librarys_warning_is_one_printable_line() -> None:
    line = _format_warning(HOSTILE, UserWarning, HOSTILE, 1)
    assert line.endswith("\n")
    assert line[:-1].isprintable()


def test_the_command_that_resumes_is_what_a_shell_reads(tmp_path: Path) -> None:
    words = ["a b", "it's", HOSTILE, "\x1b1", "c\\", "\n", "\udcffa"]
    command = "printf '%s\\0' " + " ".join(map(text.shell_word, words))
    assert command.isprintable()
    found = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
    assert [os.fsdecode(word) for word in found.split(b"\0")[:-1]] == words


def test_nothing_prints_but_the_module_for_it() -> None:
    printing = re.compile(r"click\.s?echo|\bprint\(|console\.print|\bstd(out|err)\.write")
    modules = Path(wsi_unet_cli.__file__).parent.rglob("*.py")
    found = [path.name for path in modules if printing.search(path.read_text())]
    assert found == ["output.py"]
