"""Other users of the machine: they can't talk to our processes, nor put code into their way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client
from support import on_workers
from support.clusters import scheduler, worker

from wsi_unet.dask_cluster import cluster as cluster_module
from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.local_cluster import private_scratch_folder
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.workers import scheduler_address

NOBODY = 65534

REFUSALS = ("OSError", "TimeoutError", "CommClosedError", "FatalCommClosedError")

INTRUDER = """
import asyncio, json, os, sys
from distributed import Client, Security
from distributed.core import rpc
from distributed.protocol.pickle import dumps
import distributed.comm.tcp

user, addresses = json.loads(sys.argv[1])
own = Security.temporary()  # before the change of user, who may not see our packages
warm = own.get_connection_args("client"), dumps(os.getuid)
if user is not None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)

async def run_as_client(address, **security):
    async with Client(address, asynchronous=True, timeout=1, **security) as client:
        return await client.run_on_scheduler(os.getuid)

async def run_directly(address, arguments):
    async with rpc(address, connection_args=arguments, timeout=1) as process:
        return await process.run(function=dumps(os.getuid), args=dumps(()), kwargs=dumps({}))

async def attempt(what):
    try:
        return repr(await asyncio.wait_for(what, 10))
    except Exception as error:
        return f"refused: {type(error).__name__}"

async def attempt_all():
    answers = []
    for address in addresses:
        plain = address.replace("tls://", "tcp://")
        answers += [
            await attempt(run_as_client(plain)),
            await attempt(run_as_client(address, security=own)),
            await attempt(run_directly(plain, {})),
            await attempt(run_directly(address, warm[0])),
        ]
    return answers

print(json.dumps(asyncio.run(attempt_all())))
"""
"""Tries to run code behind each address, without TLS and with a certificate of its own."""


def intrude(addresses: list[str], user: int | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", INTRUDER, json.dumps([user, addresses])],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


@dataclass(frozen=True)
class Victim:
    """A cluster that a run has started, and where its processes listen."""

    client: Client
    addresses: list[str]


@pytest.fixture(scope="module", params=["workers", "gpus"])
def victim(request: pytest.FixtureRequest) -> Iterator[Victim]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "gpus":
            patch.setattr(cluster_module, "list_visible_gpus", lambda: ("0",))
        workers = "auto" if request.param == "gpus" else 1
        with open_client(ClusterOptions(workers=workers)) as client:  # type: ignore[arg-type]
            ((address, found),) = client.scheduler_info(n_workers=-1)["workers"].items()
            yield Victim(client, [scheduler_address(client), address, found["nanny"]])


USERS = [
    None,
    pytest.param(
        NOBODY,
        marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user"),
    ),
]


@pytest.mark.parametrize("user", USERS)
def test_strangers_run_nothing(victim: Victim, user: int | None) -> None:
    assert all(address.startswith("tls://127.0.0.1:") for address in victim.addresses)
    answers = intrude(victim.addresses, user)
    assert len(answers) == 4 * 3
    assert set(answers) <= {f"refused: {error}" for error in REFUSALS}
    assert victim.client.submit(abs, -1).result() == 1


@pytest.mark.parametrize("user", USERS)
def test_strangers_succeed_where_nothing_is_authenticated(tmp_path: Path, user: int | None) -> None:
    with scheduler(tmp_path) as address, worker(address), Client(address) as client:
        client.wait_for_workers(1)
        answers = intrude([address, *client.nthreads()], user)
    assert answers[0] == str(os.getuid())  # a client of the scheduler
    assert "'status': 'OK'" in answers[4 + 2]  # straight to the worker


def test_the_key_is_in_no_command_line_environment_or_file(victim: Victim) -> None:
    key = victim.client.security.tls_worker_key
    assert key.startswith("-----BEGIN PRIVATE KEY-----")
    secret = key.splitlines()[3].encode()
    children = psutil.Process().children(recursive=True)
    assert children
    for process in children:
        for what in ("cmdline", "environ"):
            assert secret not in Path(f"/proc/{process.pid}/{what}").read_bytes()
    folder = Path(victim.client.run(on_workers.scratch_folder).popitem()[1])
    assert not any(secret in file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("trap", ["writable", "link", "file"])
def test_a_scratch_folder_that_somebody_else_has_made_is_left_alone(
    trap: str, tmp_path: Path
) -> None:
    place = tmp_path / f"wsi-unet-{os.getuid()}"
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to("elsewhere")
    elif trap == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    with dask.config.set({"temporary-directory": str(tmp_path)}), open_client() as client:
        (folder,) = client.run(on_workers.scratch_folder).values()
        assert place not in Path(folder).parents
        mine = tmp_path / Path(folder).relative_to(tmp_path).parts[0]
        assert mine.stat().st_mode & 0o077 == 0
        assert any(path.startswith(str(mine)) for path in sys.path)
    assert not any(path.startswith(str(tmp_path)) for path in sys.path)
    assert not mine.exists()


def test_the_scratch_folder_is_the_same_each_time_and_ones_own(tmp_path: Path) -> None:
    folders = []
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        for _ in range(2):
            with private_scratch_folder():
                folders.append(Path(dask.config.get("temporary-directory")))
    assert folders == [tmp_path / f"wsi-unet-{os.getuid()}"] * 2
    assert folders[0].stat().st_mode & 0o777 == 0o700
