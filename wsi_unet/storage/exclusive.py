"""Changes of a folder that exclude each other, between threads, processes and machines.

What `LocalObjects` needs for `create` and `swap`, which the output's lock is made of: a file that
appears only where there is none, a guard that one at a time can hold, and folders that go away
again when nothing came of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

GUARD = "guard"
"""Name of the file that holds off others; nothing is in it."""

MADE = "made"
"""Name of the file that says how many folders, the output's and above, were made for it."""

GUARD_SECONDS = 10.0
"""How long to wait for a guard; it is held for about a millisecond."""

TRIES = 8
"""How often to begin again when others remove the folders that a file is being made in."""

_WITHOUT_FLOCK = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
_WITHOUT_LINKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


@contextmanager
def guarded(guard: Path) -> Iterator[None]:
    """Hold a guard, so that nobody else does, on this machine or on another.

    The kernel lets go of it when the process dies. Where the file system has no such locks, a file
    beside the guard does the same, but stays when its process is killed within that millisecond.

    Args:
        guard: an empty file, made when it is missing. Only its holder may remove it, as
            the last thing it does.

    Raises:
        TimeoutError: if another has it all the time: a process that was stopped, most likely.
        OSError: if it can't be held at all.
    """
    deadline, pause = time.monotonic() + GUARD_SECONDS, 0.0005
    while (held := _try(guard)) is None:
        if time.monotonic() > deadline:
            left = _beside(guard)
            cure = f"; delete {left} if no process is at it" if left.exists() else ""
            message = f"another process has held {guard} for {GUARD_SECONDS:g} s{cure}"
            raise TimeoutError(errno.ETIMEDOUT, message)
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    with held:
        yield


def link_new(source: Path, target: Path, guard: Path) -> bool:
    """Give the complete file `source` the name `target` too, unless something has it already.

    Where the file system has no hard links, `source` is renamed, under the guard.

    Raises:
        OSError: if neither works.
    """
    try:
        target.hardlink_to(source)
    except FileExistsError:
        # Over a network the answer may get lost, and the request be sent again.
        return source.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        with guarded(guard):
            if target.exists():
                return False
            source.replace(target)
    return True


def count_missing(folder: Path) -> int:
    """Return how many folders have to be made for `folder` to be there, itself included."""
    missing = 0
    for place in (folder, *folder.parents):
        if place.exists():
            break
        missing += 1
    return missing


def note_made(hidden: Path, made: int) -> None:
    """Remember in `hidden`, the folder of temporaries, that `made` folders weren't there before.

    Of several who make them at once, the first to look has seen the most missing.
    """
    if made > _read_count(hidden / MADE):
        (hidden / MADE).write_text(str(made))


def tidy(root: Path, hidden: Path, made: int | None = None) -> None:
    """Remove folders that came to hold nothing: the bookkeeping, and what was made for it.

    Args:
        root: the output folder.
        hidden: its folder of temporaries, the last one in the bookkeeping folder.
        made: how many folders, from `root` upwards, weren't there before; None is what was noted.
    """
    note = hidden / MADE
    made = _read_count(note) if made is None else made
    with suppress(OSError):
        note.unlink()
    if _is_used(hidden):
        return
    for folder in [hidden, hidden.parent, root, *root.parents][: 2 + made]:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue  # never made, or another one is tidying up too
        except OSError:
            break
    with suppress(OSError):  # whoever still is at it may want to know
        note_made(hidden, made)


def _is_used(hidden: Path) -> bool:
    try:
        return any(path != hidden for path in hidden.parent.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _try(guard: Path) -> ExitStack | None:
    """Return what lets go of the guard, None if another holds it."""
    with ExitStack() as undo:
        descriptor = _open(guard)
        undo.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _WITHOUT_FLOCK:
                raise
            return _try_without_flock(guard)
        # Closing isn't enough: a process forked meanwhile holds the same open file.
        undo.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        # The last holder may have removed the file between our opening it and our locking it.
        return undo.pop_all() if _is_at(descriptor, guard) else None


def _try_without_flock(guard: Path) -> ExitStack | None:
    held = _beside(guard)
    try:
        os.close(os.open(held, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return None
    undo = ExitStack()
    undo.callback(held.unlink, missing_ok=True)
    return undo


def _open(guard: Path) -> int:
    for _ in range(TRIES):
        with suppress(FileNotFoundError):
            try:
                return os.open(guard, os.O_RDWR | os.O_CREAT)
            except PermissionError:  # somebody else's, in a folder shared by a group
                return os.open(guard, os.O_RDONLY)
        guard.parent.mkdir(parents=True, exist_ok=True)
    return os.open(guard, os.O_RDWR | os.O_CREAT)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` is the open file. Opened anew: a network's `stat` may be seconds old."""
    try:
        other = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), os.fstat(other))
    finally:
        os.close(other)


def _beside(guard: Path) -> Path:
    return guard.with_name(f"{guard.name}.held")


def _read_count(note: Path) -> int:
    try:
        return max(0, int(note.read_text()))
    except (OSError, ValueError):
        return 0
