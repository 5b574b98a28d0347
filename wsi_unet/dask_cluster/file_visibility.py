"""Checking, before anything starts, that workers see the files that this process sees."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distributed import Client

from wsi_unet.dask_cluster.workers import Worker, ask_workers, list_workers, runs_in_this_process
from wsi_unet.errors import OptionError
from wsi_unet.locations import Location

AnyLocation = str | os.PathLike[str] | Location

APPEAR_SECONDS = 5.0
"""How long a new file may take to appear on another machine: network file systems cache."""


def check_paths(
    client: Client, *, readable: Iterable[AnyLocation] = (), writable: Iterable[AnyLocation] = ()
) -> None:
    """Check that every machine with workers sees the same files as this one.

    One worker per machine is asked. In folders to write to, it and this process each write a small
    file that the other must see, and remove it again. URLs aren't checked, and nothing is if the
    workers are in this process.

    Args:
        client: the cluster.
        readable: files and folders that will be read. Relative paths are this process's.
        writable: folders that will be written to, or made.

    Raises:
        OptionError: a worker can't see one, may not use it or doesn't answer; or this process
            can't write to one.
    """
    reads = [str(path) for path in _local_paths(readable)]
    folders = {_find_existing(path) for path in _local_paths(writable)}
    if runs_in_this_process(client) or not (reads or folders):
        return
    workers = list({worker.host: worker for worker in list_workers(client)}.values())
    _refuse_first(ask_workers(client, workers, explain_unreadable, reads))
    for folder in sorted(folders):
        _check_writing(client, workers, str(folder))


def explain_missing(path: str) -> str:
    """Explain that a path which exists on another machine isn't there on this one.

    >>> explain_missing("/nowhere/slides/a.svs").partition(" can't")[2]
    ' see /nowhere/slides/a.svs (/nowhere is missing): is that file system mounted there?'
    """
    target = Path(path)
    missing = next(
        (folder for folder in (*reversed(target.parents), target) if not folder.exists()), target
    )
    where = "" if missing == target else f" ({missing} is missing)"
    return f"{socket.gethostname()} can't see {path}{where}: is that file system mounted there?"


def explain_unreadable(paths: list[str]) -> str | None:
    """Return why one of the paths can't be read by this process; None if all can."""
    for path in paths:
        try:
            if not Path(path).exists():
                return explain_missing(path)
        except OSError as error:
            return f"{socket.gethostname()} can't look at {path}: {error.strerror}"
        if not os.access(path, os.R_OK):
            return f"{socket.gethostname()} may not read {path}: {_describe_user()}"
    return None


def _check_writing(client: Client, workers: list[Worker], folder: str) -> None:
    with _probe_file(folder) as probe:
        try:
            _refuse_first(ask_workers(client, workers, explain_unwritable, folder, probe))
            answers = ask_workers(client, workers, answer_name, probe)
            for worker, answer in answers.items():
                if isinstance(answer, OSError):  # it has left, or hangs since it has written
                    continue
                if not _appears(Path(folder, str(answer)).exists):
                    raise OptionError(
                        f"{worker}: what it writes to {folder} doesn't appear here; mount the "
                        "same file system on both machines"
                    )
        finally:
            ask_workers(client, workers, remove_answer, folder, probe)


@contextmanager
def _probe_file(folder: str) -> Iterator[str]:
    """Make a file inside that only those who see the folder can know of; yield its name."""
    name = f".wsi-unet-probe-{uuid.uuid4().hex}"
    path = Path(folder, name)
    try:
        path.write_bytes(b"")
    except OSError as error:
        raise OptionError(f"{folder} can't be written to: {error.strerror}") from error
    try:
        yield name
    finally:
        with suppress(OSError):
            path.unlink()


def explain_unwritable(folder: str, probe: str) -> str | None:
    """Write an answer beside a probe file; return why that isn't possible, None if it was."""
    host = socket.gethostname()
    if not Path(folder).is_dir():
        return explain_missing(folder)
    if not _appears(Path(folder, probe).exists):
        return (
            f"{host} has another folder at {folder}: what this machine writes doesn't appear "
            "there; mount the same file system on both"
        )
    try:
        Path(folder, answer_name(probe)).write_bytes(b"")
    except OSError as error:
        return f"{host} can't write to {folder} ({error.strerror}): {_describe_user()}"
    return None


def answer_name(probe: str) -> str:
    """Return the name of the file with which this process answers a probe file."""
    return f"{probe}-{socket.gethostname()}-{os.getpid()}"


def remove_answer(folder: str, probe: str) -> None:
    """Remove the answer, if there is one."""
    with suppress(OSError):
        Path(folder, answer_name(probe)).unlink()


def _refuse_first(answers: Mapping[Worker, Any]) -> None:
    """Raise the first worker's complaint.

    Raises:
        OptionError: there is one.
    """
    for worker, answer in answers.items():
        if isinstance(answer, TimeoutError):
            raise OptionError(
                f"{worker} doesn't answer when it is asked for files; does a file system hang?"
            )
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise answer
        if isinstance(answer, str):
            raise OptionError(f"{worker} on {answer}")


def _appears(look: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + APPEAR_SECONDS
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _local_paths(paths: Iterable[AnyLocation]) -> list[Path]:
    locations = map(Location.parse, paths)
    return [location.path for location in locations if not location.is_url]


def _find_existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    folders = (path, *path.parents)
    return next(folder for folder in folders if folder.is_dir() or folder == folder.parent)


def _describe_user() -> str:
    return f"it runs as user {os.getuid()}; check the permissions"
