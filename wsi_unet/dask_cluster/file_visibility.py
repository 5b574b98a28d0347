"""Whether workers see the files that this process sees, found out before anything starts."""

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
from wsi_unet.locations import is_url

APPEAR_SECONDS = 5.0
"""How long what one machine writes may take to appear on another: network file systems cache."""


def check_paths(
    client: Client, *, readable: Iterable[str] = (), writable: Iterable[str] = ()
) -> None:
    """Make sure that every machine with workers sees the same files as this one.

    One worker per machine is asked. Where it is to write, it and this process each write a small
    file that the other must see, and remove it again. URLs are left out, and so is everything if
    the workers are in this process.

    Args:
        client: the cluster.
        readable: files and folders that are to be read.
        writable: folders that are to be written to, or where they will be made.

    Raises:
        OptionError: if a worker can't see one, or may not use it, or doesn't answer; or this
            process can't write to one.
    """
    # A relative path means this process's folder, not the worker's.
    reads = [str(Path(path).absolute()) for path in readable if not is_url(path)]
    folders = {_existing(Path(path).absolute()) for path in writable if not is_url(path)}
    if runs_in_this_process(client) or not (reads or folders):
        return
    workers = list({worker.host: worker for worker in list_workers(client)}.values())
    _refuse_first(ask_workers(client, workers, explain_unreadable, reads))
    for folder in sorted(folders):
        _check_writing(client, workers, str(folder))


def explain_missing(path: str) -> str:
    """Say that a path isn't there in the words of somebody who knows that it is elsewhere.

    >>> explain_missing("/nowhere/slides/a.svs").partition(" can't")[2]
    ' see /nowhere/slides/a.svs (/nowhere is missing): is that file system mounted there?'
    """
    place = Path(path)
    missing = next(
        (above for above in (*reversed(place.parents), place) if not above.exists()), place
    )
    where = "" if missing == place else f" ({missing} is missing)"
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
            return f"{socket.gethostname()} may not read {path}: {_as_user()}"
    return None


def _check_writing(client: Client, workers: list[Worker], folder: str) -> None:
    with _question(folder) as name:
        try:
            _refuse_first(ask_workers(client, workers, explain_unwritable, folder, name))
            answers = ask_workers(client, workers, answer_name, name)
            for worker, answer in answers.items():
                if isinstance(answer, OSError):  # it has left, or hangs since it has written
                    continue
                if not _appears(Path(folder, str(answer)).exists):
                    raise OptionError(
                        f"{worker}: what it writes to {folder} doesn't appear here; mount the "
                        "same file system on both machines"
                    )
        finally:
            ask_workers(client, workers, remove_answer, folder, name)


@contextmanager
def _question(folder: str) -> Iterator[str]:
    """Have a file in the folder that nobody can know of who doesn't see it."""
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


def explain_unwritable(folder: str, question: str) -> str | None:
    """Write an answer beside a question; return why that can't be done, None if it was."""
    host = socket.gethostname()
    if not Path(folder).is_dir():
        return explain_missing(folder)
    if not _appears(Path(folder, question).exists):
        return (
            f"{host} has another folder at {folder}: what is written on the client doesn't appear "
            "there; mount the same file system on both"
        )
    try:
        Path(folder, answer_name(question)).write_bytes(b"")
    except OSError as error:
        return f"{host} can't write to {folder} ({error.strerror}): {_as_user()}"
    return None


def answer_name(question: str) -> str:
    """Return the name of the file with which this process answers."""
    return f"{question}-{socket.gethostname()}-{os.getpid()}"


def remove_answer(folder: str, question: str) -> None:
    """Remove the answer, if there is one."""
    with suppress(OSError):
        Path(folder, answer_name(question)).unlink()


def _refuse_first(answers: Mapping[Worker, Any]) -> None:
    """Raise what the first worker has to say that isn't content.

    Raises:
        OptionError: if there is one.
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


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.is_dir() or place == place.parent)


def _as_user() -> str:
    return f"it runs as user {os.getuid()}; check the permissions"
