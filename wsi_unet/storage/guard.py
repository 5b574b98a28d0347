"""Changing files exclusively, across threads, processes and machines.

`LocalStore.create` and `LocalStore.swap`, which the output's lock is made of, need two things: a
file that appears only where there is none, and a guard that only one at a time can hold.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from wsi_unet.storage.no_links import open_file

GUARD_NAME = "guard"
"""Name of the guard's file, which stays empty."""

MARKER_NAME = f"{GUARD_NAME}.held"
"""Name of the file that takes the guard's place on a file system without `flock`."""

GUARD_SECONDS = 10.0
"""How long to wait for a guard; it is held for about a millisecond."""

OPEN_TRIES = 8
"""How often to try again when others remove the folder that the guard is being made in."""

_WITHOUT_FLOCK = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
_WITHOUT_LINKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


@contextmanager
def hold_guard(guard: Path) -> Iterator[None]:
    """Hold a guard inside, so that nobody else does, on this machine or another.

    The kernel releases it when the process dies. On a file system without such locks a second file
    beside the guard takes their place; it stays if its process is killed in that millisecond.

    Args:
        guard: an empty file, made if it is missing. Only its holder may remove it, as the last
            thing it does.

    Raises:
        TimeoutError: another process holds it all the time; most likely it was suspended.
        OSError: it can't be held at all.
    """
    deadline, pause = time.monotonic() + GUARD_SECONDS, 0.0005
    while (held := _try_to_hold(guard)) is None:
        if time.monotonic() > deadline:
            marker = _marker_path(guard)
            cure = f"; delete {marker} if no process is using it" if marker.exists() else ""
            message = f"another process has held {guard} for {GUARD_SECONDS:g} s{cure}"
            raise TimeoutError(errno.ETIMEDOUT, message)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    with held:
        yield


def link_if_absent(source: Path, target: Path, guard: Path) -> bool:
    """Give the complete file `source` the name `target` too, unless something has that name.

    Without hard links on the file system, `source` is renamed while the guard is held.

    Returns:
        Whether `target` is `source` now.

    Raises:
        OSError: neither works.
    """
    try:
        target.hardlink_to(source)
    except FileExistsError:
        # On a network file system the answer may get lost and the request be sent again.
        return source.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        with hold_guard(guard):
            if target.exists():
                return False
            source.replace(target)
    return True


def _try_to_hold(guard: Path) -> ExitStack | None:
    """Return what releases the guard, None if another process holds it."""
    with ExitStack() as release:
        descriptor = _open(guard)
        release.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _WITHOUT_FLOCK:
                raise
            return _try_to_hold_marker(guard)
        # Closing isn't enough: a process forked meanwhile has the same file open.
        release.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        # The last holder may have removed the file after we opened it and before we locked it.
        return release.pop_all() if _is_same_file(descriptor, guard) else None


def _try_to_hold_marker(guard: Path) -> ExitStack | None:
    """Do as `_try_to_hold` does, on a file system without `flock`."""
    marker = _marker_path(guard)
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return None
    release = ExitStack()
    release.callback(marker.unlink, missing_ok=True)
    return release


def _open(guard: Path) -> int:
    for _ in range(OPEN_TRIES):
        with suppress(FileNotFoundError):
            try:
                return open_file(guard, os.O_RDWR | os.O_CREAT)
            except PermissionError:  # somebody else's file, in a folder that a group shares
                return open_file(guard)
        guard.parent.mkdir(parents=True, exist_ok=True)
    return open_file(guard, os.O_RDWR | os.O_CREAT)


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether `path` is the open file.

    The path is opened again: what a network file system knows by `stat` may be seconds old.
    """
    try:
        other = open_file(path)
    except FileNotFoundError:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), os.fstat(other))
    finally:
        os.close(other)


def _marker_path(guard: Path) -> Path:
    return guard.with_name(MARKER_NAME)
