"""Connecting to a scheduler, losing it, and the messages about it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any

import dask
import pytest
from click.testing import CliRunner
from support import warm
from support.clusters import running, scheduler, until, worker

from wsi_unet.dask_cluster import connection
from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.workers import count_workers, is_cluster_alive
from wsi_unet.errors import ClusterError, OptionError
from wsi_unet_cli.main import cli


def refusal(place: str | Path) -> str:
    with pytest.raises(OptionError) as raised, open_client(ClusterOptions(scheduler=str(place))):
        pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(connection, "WORKERS_SECONDS", 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers 0: at least one is needed"),
        ({"workers": "many"}, "workers 'many' is neither a number nor 'auto'"),
        ({"workers": 2, "scheduler": "h:1"}, "either `workers` or `scheduler`, not both"),
        ({"insecure": True}, "`insecure` is for an existing cluster; give its `scheduler` too"),
        ({"insecure": True, "scheduler": "h:1", "tls_ca": "ca"}, "either TLS files or `insecure`"),
        ({"max_retries": -1}, "max_retries -1 is below 0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ClusterOptions(**options)


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "tcp://host", "://", "host:port", ""])
def test_wrong_addresses(address: str) -> None:
    assert refusal(address).startswith(f"scheduler {address!r} is neither an address like tcp://")


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("host", ["no-such-host.invalid", "two..dots", "x" * 64 + ".org"])
def test_a_host_that_does_not_exist(host: str) -> None:
    address = f"tcp://{host}:8786"
    assert refusal(address) == f"unknown host {host!r} in the scheduler's address {address}"


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("protocol", ["", "tcp://"])
def test_a_port_where_nobody_listens(protocol: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and doesn't listen
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal(protocol + place).startswith(f"no Dask scheduler answers at tcp://{place} (")


@pytest.mark.usefixtures("hurry")
def test_something_else_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert refusal(place).startswith(
            f"no Dask scheduler answers at {place} (no answer in 0.5 s); start one"
        )


@pytest.mark.usefixtures("hurry")
def test_a_scheduler_without_workers(tmp_path: Path) -> None:
    with (
        scheduler(tmp_path) as address,
        pytest.raises(ClusterError, match="has no workers; start some with `dask worker`"),
        open_client(ClusterOptions(scheduler=address)),
    ):
        pass


@pytest.mark.usefixtures("hurry")
def test_files_without_an_address(tmp_path: Path) -> None:
    absent, garbage, other = (tmp_path / name for name in ("none.json", "bad.json", "other.json"))
    garbage.write_text('{"address": "tcp://')
    other.write_text("[]")
    assert refusal(absent).startswith(f"the scheduler file {absent} isn't there; tell the sch")
    assert refusal(garbage).startswith(f"the scheduler file {garbage} doesn't hold an address")
    assert refusal(other).startswith(f"the scheduler file {other} doesn't hold an address")
    assert refusal(f"{tmp_path}/").startswith(f"the scheduler file {tmp_path}: Is a directory")


def test_a_file_that_the_scheduler_has_yet_to_write(tmp_path: Path) -> None:
    early = tmp_path / "early.json"
    with scheduler(tmp_path) as address, worker(address):
        late = Timer(1.0, shutil.copy, (tmp_path / "scheduler.json", early))
        late.start()
        with open_client(ClusterOptions(scheduler=str(early))) as client:
            assert count_workers(client).processes == 1
        late.join()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let names have addresses, and whoever is there answer."""
    found = {
        "here": ["127.0.0.1"],
        "also-here": ["::1"],
        "twice-here": ["127.0.0.1", "::1"],
        "there": ["10.1.2.3"],
        "here-and-there": ["127.0.0.1", "10.1.2.3"],
        "anywhere": ["0.0.0.0"],
        "link": ["fe80::1%2"],
    }

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(None, None, None, "", (address, port)) for address in found[host]]

    async def connect_once(*_: object) -> None:
        pass

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(connection, "_connect_once", connect_once)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("protocol", ["tcp://", "ws://", "ucxx://", "TLS://", ""])
@pytest.mark.parametrize("host", ["there", "here-and-there", "anywhere", "link"])
def test_a_plain_connection_to_another_machine_is_refused(protocol: str, host: str) -> None:
    address = f"{protocol}{host}:1"
    with pytest.raises(OptionError) as raised:
        connection.check_answer(address, None)
    message = str(raised.value)
    assert message.startswith(f"the connection to {address} wouldn't be encrypted, and whoever")
    assert "`tls_ca`" in message
    assert "`insecure`" in message
    connection.check_answer(address, None, insecure=True)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize(
    "address",
    ["tcp://here:1", "ws://also-here:1", "tcp://twice-here:1", "tls://there:1", "wss://there:1"],
)
def test_a_connection_that_nobody_else_can_use_is_allowed(address: str) -> None:
    connection.check_answer(address, None)


def test_an_address_in_a_file_is_checked_too(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    for address in ("tcp://192.0.2.1:8786", "192.0.2.1:8786", "ws://192.0.2.1:8786"):
        file.write_text(json.dumps({"address": address}))
        assert "192.0.2.1:8786 wouldn't be encrypted" in refusal(file)
    for address in ("nonsense", "", "tcp://127.0.0.1"):
        file.write_text(json.dumps({"address": address}))
        assert refusal(file).startswith(f"the scheduler file {file} holds {address!r}, which isn't")


def test_the_command_says_how_to_allow_it() -> None:
    done = CliRunner().invoke(cli, ["segment", "a.svs", "--scheduler", "tcp://192.0.2.1:8786"])
    assert done.exit_code == 2
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: the connection to tcp://192.0.2.1:8786 wouldn't be encrypted")
    assert "give --tls-ca, --tls-cert and --tls-key, or allow it with --insecure" in line


def test_settings_are_put_back(tmp_path: Path) -> None:
    before = dask.config.get("distributed.comm.timeouts.tcp")
    with (
        scheduler(tmp_path) as address,
        worker(address),
        open_client(ClusterOptions(scheduler=address)),
    ):
        assert dask.config.get("distributed.comm.timeouts.tcp") != before
    assert dask.config.get("distributed.comm.timeouts.tcp") == before


def test_workers_that_come_and_go_are_counted(tmp_path: Path) -> None:
    with (
        scheduler(tmp_path) as address,
        worker(address, "--nthreads", "3"),
        open_client(ClusterOptions(scheduler=address)) as client,
    ):
        with worker(address, "--nthreads", "2"):
            until(lambda: count_workers(client).processes == 2, "a worker comes")
            found = count_workers(client)
            assert (found.threads, found.per_host, found.total_threads) == (3, 2, 5)
        until(lambda: count_workers(client).processes == 1, "it leaves")
        assert is_cluster_alive(client)


def test_a_scheduler_that_is_killed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2.0)
    address, file = "", tmp_path / "scheduler.json"
    program = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0")
    with running(*program, "--no-dashboard", "--scheduler-file", file) as process:
        until(file.exists, "the scheduler starts")
        address = json.loads(file.read_text())["address"]
        with worker(address), open_client(ClusterOptions(scheduler=address)) as client:
            future = client.submit(time.sleep, 5)
            assert is_cluster_alive(client)
            os.kill(process.pid, signal.SIGKILL)
            begun = time.monotonic()
            until(lambda: future.status == "cancelled", "what is in flight is given up")
            assert time.monotonic() - begun < 2
            until(lambda: not is_cluster_alive(client), "the cluster is given up")
            assert time.monotonic() - begun < 10
    assert time.monotonic() - begun < 20  # leaving doesn't wait for what is gone


CLIENT = """
import os, signal, sys, time
from wsi_unet_cli.common.cluster_options import logging_to
with logging_to(None, verbose=False):
    # Only now, as commands do: importing Dask sets the levels of its loggers.
    from wsi_unet.dask_cluster.cluster import open_client
    from wsi_unet.dask_cluster.workers import is_cluster_alive
    from wsi_unet.dask_cluster.options import ClusterOptions
    from wsi_unet.dask_cluster import connection
    connection.CONNECT_SECONDS = 1.0
    with open_client(ClusterOptions(scheduler=sys.argv[1])) as client:
        futures = [client.submit(time.sleep, 3 + i / 10) for i in range(5)]
        time.sleep(0.5)
        os.kill(int(sys.argv[2]), signal.SIGKILL)
        while is_cluster_alive(client):
            time.sleep(0.1)
        print("gone")
"""


def test_nothing_but_our_own_lines_is_shown_when_the_scheduler_dies(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    program = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0")
    with running(*program, "--no-dashboard", "--scheduler-file", file) as process:
        until(file.exists, "the scheduler starts")
        address = json.loads(file.read_text())["address"]
        with worker(address):
            done = warm.run(
                [sys.executable, "-c", CLIENT, address, str(process.pid)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
    assert (done.returncode, done.stdout, done.stderr) == (0, "gone\n", "")


@pytest.mark.parametrize("kind", ["here", "processes", "cluster"])
def test_a_performance_report(kind: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with scheduler(tmp_path) as address, worker(address):
        options: dict[str, ClusterOptions] = {
            "here": ClusterOptions(performance_report=str(page)),
            "processes": ClusterOptions(workers=1, performance_report=str(page)),
            "cluster": ClusterOptions(scheduler=address, performance_report=str(page)),
        }
        with open_client(options[kind]) as client:
            client.submit(abs, -1, key="block-1").result()
    text = page.read_text()
    assert re.search(r"<html", text)
    assert "Task Stream" in text
    assert '"block"' in text


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    options = ClusterOptions(performance_report=str(tmp_path / "none" / "report.html"))
    with (
        pytest.raises(OptionError, match=r"report\.html can't be written: No such file"),
        open_client(options),
    ):
        pass


def test_a_report_is_no_pipe(tmp_path: Path) -> None:
    """Dask would wait at the end of the run for somebody to read it."""
    os.mkfifo(tmp_path / "report.html")
    options = ClusterOptions(performance_report=str(tmp_path / "report.html"))
    with pytest.raises(OptionError, match="a named pipe, not a file"), open_client(options):
        pass


def test_a_report_of_a_scheduler_without_bokeh(tmp_path: Path) -> None:
    preload = ("--preload", "support.on_workers")
    env = {"WSI_UNET_TEST_WORKER": "bokeh=none"}
    page = tmp_path / "report.html"
    with scheduler(tmp_path, *preload, env=env) as address, worker(address):
        options = ClusterOptions(scheduler=address, performance_report=str(page))
        with (
            pytest.raises(OptionError, match="needs bokeh where the scheduler runs"),
            open_client(options),
        ):
            pass
    assert not page.exists()


class LostInHandshake:
    """A client whose connection is lost while it is being encrypted, as tornado says it."""

    scheduler = None

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        raise ValueError("IOStream is not idle; cannot convert to SSL")


def test_a_connection_lost_in_the_handshake_is_a_lost_scheduler() -> None:
    client: Any = LostInHandshake()
    with pytest.raises(ClusterError, match="the Dask scheduler went away"):
        count_workers(client)
