"""Versions on a Dask cluster: differences are named, at the start and when workers join late."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from support import on_workers
from support.clusters import scheduler, until, worker

import wsi_unet
from wsi_unet.dask_cluster import versions, workers
from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.versions import describe_difference, installed_versions
from wsi_unet.errors import OptionError

VERSION = wsi_unet.__version__
PRELOAD = ("--preload", "support.on_workers")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with scheduler(tmp_path) as found:
        yield found


def refusal(address: str) -> str:
    with (
        pytest.raises(OptionError) as raised,
        open_client(ClusterOptions(scheduler=address)),
    ):
        pass
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"python": "3.11", "torch": "2.9"}, None),
        ({"python": "3.11", "torch": "2.9", "zarr": "3.1"}, None),
        ({"python": "3.11", "torch": "2.8"}, "has torch 2.8 where this client has 2.9"),
        ({"python": "3.11", "torch": None}, "has no torch where this client has 2.9"),
        (
            {"python": "3.12", "torch": "2.8"},
            "has python 3.12, torch 2.8 where this client has 3.11, 2.9",
        ),
    ],
)
def test_a_difference_names_package_and_both_versions(
    found: dict[str, str | None], message: str | None
) -> None:
    assert describe_difference(found, {"python": "3.11", "torch": "2.9"}) == message


def test_what_a_build_was_made_for_does_not_count() -> None:
    packages = dict.fromkeys(versions.PACKAGES, "1.0") | {"python": "3.11.7.final.0"}
    plain = versions._reduce_versions({"packages": packages | {"torch": "2.9.1+cu128"}})
    assert (plain["torch"], plain["python"]) == ("2.9.1", "3.11")


def test_this_process_has_everything() -> None:
    found = installed_versions()
    assert found.keys() == {"python", *versions.PACKAGES}
    assert all(found.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("torch=1.13.1+cu117", r"worker tcp://\S+ has torch 1\.13\.1 where this client has \d"),
        ("wsi-unet=0.0.1", rf"has wsi-unet 0\.0\.1 where this client has {VERSION}: install the"),
        (
            "hidden=wsi_unet",
            rf"can't import wsi-unet \(.*No module.*\): install wsi-unet {VERSION}",
        ),
        ("wsi-unet=none", rf"worker tcp://\S+ can't import wsi-unet: install wsi-unet {VERSION}"),
    ],
)
def test_a_worker_that_differs_is_refused(address: str, change: str, message: str) -> None:
    with worker(address, *PRELOAD, env={"WSI_UNET_TEST_WORKER": change}):
        assert re.search(message, refusal(address))


def test_the_scheduler_needs_it_too(tmp_path: Path) -> None:
    change = {"WSI_UNET_TEST_WORKER": "wsi-unet=none"}
    with scheduler(tmp_path, *PRELOAD, env=change) as address, worker(address):
        assert refusal(address).startswith(
            f"the scheduler {address} can't import wsi-unet: install"
        )


def test_a_worker_that_hangs_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.ask_workers, "__kwdefaults__", {"seconds": 1.0})
    with worker(address) as process:
        with Client(address) as client:
            client.wait_for_workers(1, timeout=180)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            assert "doesn't answer" in refusal(address)
        finally:
            os.kill(process.pid, signal.SIGCONT)


def test_a_worker_that_joins_late_with_other_versions_leaves_again(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = {"WSI_UNET_TEST_WORKER": "torch=1.13.1"}
    log = tmp_path / "late.log"
    with worker(address), open_client(ClusterOptions(scheduler=address)) as client:
        with worker(address, *PRELOAD, env=other, log=log, nanny=True) as late:
            until(lambda: late.poll() is not None, "the late worker ends", log)
        assert "has torch 1.13.1 where this client has" in log.read_text()
        until(lambda: len(caplog.records) > 0, "the client hears of it")
        with worker(address, "--nthreads", "5"):  # one that doesn't differ is welcome
            until(lambda: sorted(client.nthreads().values()) == [1, 5], "it joins")
    (record,) = [record for record in caplog.records if record.name == "wsi_unet"]
    assert record.levelno == logging.WARNING
    assert "so it was refused; install the same versions" in record.getMessage()


def test_when_the_client_is_gone_others_may_join(address: str) -> None:
    with worker(address), open_client(ClusterOptions(scheduler=address)):
        pass
    other = {"WSI_UNET_TEST_WORKER": "torch=1.13.1"}
    with worker(address, *PRELOAD, env=other), Client(address) as client:
        client.wait_for_workers(1, timeout=180)
        assert client.run(on_workers.environment, "WSI_UNET_TEST_WORKER") == dict.fromkeys(
            client.nthreads(), "torch=1.13.1"
        )
