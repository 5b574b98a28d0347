"""Paths that a worker can't see, read or write are reported as such."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client
from support.clusters import scheduler, worker

from wsi_unet.dask_cluster import file_visibility, workers
from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.file_visibility import (
    check_paths,
    explain_missing,
    explain_unreadable,
    explain_unwritable,
)
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.errors import OptionError

HOST = socket.gethostname()
NAMESPACE = ("unshare", "--mount", "--map-root-user")


def can_mount() -> bool:
    try:
        command = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that this process sees."""
    folder = tmp_path_factory.mktemp("shared")
    for name in ("absent", "elsewhere", "read-only", "fine"):
        (folder / name).mkdir()
        (folder / name / "slide.svs").touch()
    return folder


@pytest.fixture(scope="module")
def client(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Run a cluster whose worker has other file systems mounted over some of the folders."""
    if not can_mount():
        pytest.skip("mounting in a namespace of one's own isn't allowed here")
    over = shlex.quote(str(shared))
    mounts = (
        f"mount -t tmpfs none {over}/absent; rmdir {over}/absent/* 2>/dev/null; "
        f"mount -t tmpfs none {over}/elsewhere; touch {over}/elsewhere/slide.svs; "
        f"mount --bind {over}/read-only {over}/read-only; "
        f'mount -o remount,bind,ro {over}/read-only; exec "$0" "$@"'
    )
    folder = tmp_path_factory.mktemp("cluster")
    with (
        scheduler(folder) as address,
        worker(address, wrapper=(*NAMESPACE, "sh", "-c", mounts)),
        open_client(ClusterOptions(scheduler=address)) as found,
    ):
        yield found


def refusal(
    client: Client, readable: tuple[Path, ...] = (), writable: tuple[Path, ...] = ()
) -> str:
    with pytest.raises(OptionError) as raised:
        check_paths(client, readable=map(str, readable), writable=map(str, writable))
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    (address,) = client.nthreads()
    who = f"worker {address} on {HOST} "
    assert str(raised.value).startswith(who)
    return str(raised.value).removeprefix(who)


def test_what_is_there_is_seen_and_nothing_stays_behind(client: Client, shared: Path) -> None:
    fine = shared / "fine"
    check_paths(
        client,
        readable=[str(fine / "slide.svs"), "s3://bucket/slide.svs"],
        writable=[str(fine), str(fine / "new" / "folder"), "s3://bucket/out"],
    )
    assert [path.name for path in fine.iterdir()] == ["slide.svs"]


def test_a_relative_path_means_this_processs_folder(
    client: Client, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared / "fine")
    check_paths(client, readable=["slide.svs"], writable=["out"])


def test_a_slide_that_is_not_mounted(client: Client, shared: Path) -> None:
    slide = shared / "absent" / "slide.svs"
    fine = shared / "fine" / "slide.svs"
    assert refusal(client, (fine, slide)) == (
        f"can't see {slide}: is that file system mounted there?"
    )


def test_an_output_folder_on_another_file_system(client: Client, shared: Path) -> None:
    folder = shared / "elsewhere"
    check_paths(client, readable=[str(folder / "slide.svs")])
    assert refusal(client, writable=(folder / "out",)).startswith(
        f"has another folder at {folder}: what this machine writes doesn't appear there"
    )
    assert [path.name for path in folder.iterdir()] == ["slide.svs"]


def test_an_output_folder_that_is_mounted_read_only(client: Client, shared: Path) -> None:
    folder = shared / "read-only"
    message = refusal(client, writable=(shared / "fine", folder))
    assert message.startswith(f"can't write to {folder} (Read-only file system): it runs as user 0")
    assert [path.name for path in folder.iterdir()] == ["slide.svs"]


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_visibility, "APPEAR_SECONDS", 0.3)


def test_a_file_system_that_hangs(
    client: Client, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.ask_workers, "__kwdefaults__", {"seconds": 0.5})

    def hanging(paths: list[str]) -> None:
        import time

        time.sleep(1.5)

    monkeypatch.setattr(file_visibility, "explain_unreadable", hanging)
    with pytest.raises(OptionError, match="doesn't answer when it is asked for files"):
        check_paths(client, readable=[str(shared)])


def test_where_this_process_cannot_write(client: Client) -> None:
    with pytest.raises(OptionError, match=r"^/proc can't be written to: "):
        check_paths(client, writable=["/proc/out"])


def test_in_this_process_everything_is_seen_by_definition() -> None:
    with open_client() as client:
        check_paths(client, readable=["/nowhere"], writable=["/proc/out"])


def test_a_missing_path_is_reported_from_its_first_missing_folder(tmp_path: Path) -> None:
    slide = tmp_path / "slides" / "today" / "a.svs"
    assert explain_missing(str(slide)) == (
        f"{HOST} can't see {slide} ({tmp_path / 'slides'} is missing): "
        "is that file system mounted there?"
    )
    slide.parent.mkdir(parents=True)
    assert explain_missing(str(slide)) == (
        f"{HOST} can't see {slide}: is that file system mounted there?"
    )


@pytest.mark.skipif(os.getuid() == 0, reason="root may read and write everything")
def test_without_permission(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").touch(mode=0o000)
    assert "may not read" in (explain_unreadable([str(tmp_path / "slide.svs")]) or "")
    (tmp_path / "question").touch()
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in (explain_unwritable(str(tmp_path), "question") or "")
    finally:
        tmp_path.chmod(0o700)
