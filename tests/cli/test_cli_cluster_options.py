"""The options of the Dask cluster: how they are parsed, and which are refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.logs import event, log, warn
from wsi_unet_cli.common.cluster_options import cluster_options, logging_to


def run(*arguments: str | Path) -> tuple[Result, dict[str, Any]]:
    got: dict[str, Any] = {}

    @click.command()
    @cluster_options
    def command(**options: Any) -> None:
        got.update(options)

    return CliRunner().invoke(command, [str(argument) for argument in arguments]), got


def test_without_options_the_defaults_are_the_packages() -> None:
    done, got = run()
    assert done.exit_code == 0, done.output
    assert got == {"cluster": ClusterOptions(), "log_file": None}


def test_every_option_arrives_as_the_package_expects_it(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).touch()
    done, got = run(
        *("--scheduler", "tls://10.0.0.1:8786", "--max-retries", "3", "--log", "-"),
        *("--tls-ca", tmp_path / "ca", "--tls-cert", tmp_path / "cert"),
        *("--tls-key", tmp_path / "key", "--performance-report", "x.html"),
    )
    assert done.exit_code == 0, done.output
    assert got["log_file"] == "-"
    assert got["cluster"] == ClusterOptions(
        scheduler="tls://10.0.0.1:8786",
        tls_ca=str(tmp_path / "ca"),
        tls_cert=str(tmp_path / "cert"),
        tls_key=str(tmp_path / "key"),
        max_retries=3,
        performance_report="x.html",
    )


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("auto", "auto")])
def test_workers_are_a_number_or_auto(text: str, value: object) -> None:
    _, got = run("--workers", text)
    assert got["cluster"].workers == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", "0"), "'0' is neither a number of processes above 0 nor 'auto'"),
        (("--workers", "-1"), "'-1' is neither"),
        (("--workers", "many"), "'many' is neither"),
        (("--workers", "²"), "'²' is neither"),
        (("--workers", "2", "--scheduler", "h:1"), "either --workers or --scheduler"),
        (("--max-retries", "-1"), "-1 is not in the range"),
        (("--scheduler", "h:1", "--tls-ca", "nowhere.pem"), "nowhere.pem"),
        (("--tls-ca", __file__), "give its --scheduler too"),
        (("--scheduler", "h:1", "--tls-key", __file__), "give --tls-cert too"),
    ],
)
def test_contradictory_options_are_usage_errors(arguments: tuple[str, ...], message: str) -> None:
    done, got = run(*arguments)
    assert (done.exit_code, got) == (2, {})
    assert message in done.stderr


def test_events_go_to_the_file_and_warnings_to_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.jsonl"
    with logging_to(str(file), verbose=False):
        event("block done", block=[1, 2], seconds=0.5, place=Path("x"))
        warn("a careful\nperson", host="h")
        logging.getLogger("distributed.client").error("Dask on itself")
    event("after the end")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        assert line.pop("time").endswith("+00:00")
    assert lines == [
        {"event": "block done", "block": [1, 2], "seconds": 0.5, "place": "x"},
        {"event": "a careful\nperson", "level": "warning", "host": "h"},
    ]
    out, err = capsys.readouterr()
    assert (out, err) == ("", "warning: a careful person\n")


def test_nothing_is_shown_and_everything_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    dask = logging.getLogger("distributed")
    before = (log.level, log.propagate, log.handlers[:], dask.level)
    with logging_to(None, verbose=False):
        event("something")
        assert dask.level > logging.CRITICAL
    with logging_to(None, verbose=True):
        assert log.isEnabledFor(logging.DEBUG)
        assert dask.level == before[3]
    assert (log.level, log.propagate, log.handlers, dask.level) == before
    assert capsys.readouterr() == ("", "")


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    from wsi_unet.errors import OptionError

    with (
        pytest.raises(OptionError, match=r"the log .* can't be written: Is a directory"),
        logging_to(str(tmp_path), verbose=False),
    ):
        pass
