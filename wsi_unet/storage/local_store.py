"""A store as files below a folder."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from wsi_unet.errors import OutputError
from wsi_unet.locations import Location
from wsi_unet.storage.guard import GUARD_NAME, hold_guard, link_if_absent
from wsi_unet.storage.keys import BOOKKEEPING
from wsi_unet.storage.made_folders import (
    NOTE_NAME,
    count_missing_folders,
    note_made_folders,
    remove_unused_folders,
)
from wsi_unet.storage.store import ByteStore

TEMPORARY_FOLDER = f"{BOOKKEEPING}/.tmp"
"""Folder of files being written; on the same file system, so that renaming is atomic."""

ABANDONED_SECONDS = 3600.0
"""Age beyond which a temporary file counts as abandoned, whoever wrote it."""

CREATE_TRIES = 8
"""How often to try again when others remove the folders that a file is being made in."""


@dataclass(frozen=True)
class LocalStore(ByteStore):
    """A store as files below a folder; a key is a file's path in it.

    A file is written in `TEMPORARY_FOLDER` and renamed into place, so a killed writer leaves
    nothing where a Zarr reader would list it. A file's content is flushed to the disk before the
    file is renamed, so that no name outlives its bytes in a power cut. Folders aren't flushed: the
    newest renames may be undone, and what is lost by that is simply computed again.

    Attributes:
        root: the output folder; made by the first `put`.
    """

    root: Path

    @override
    def __str__(self) -> str:
        return str(self.root)

    @property
    @override
    def location(self) -> Location:
        return Location(str(self.root))

    @override
    def get(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explain("read", key, error) from error

    @override
    def put(self, key: str, data: bytes) -> None:
        target = self.root / key
        temporary = self._new_temporary()
        try:
            _write_new(temporary, data)
            try:
                temporary.replace(target)
            except FileNotFoundError:
                # Usually the target's folder is missing; rarely another run took this temporary
                # file for abandoned. Writing again helps with both.
                target.parent.mkdir(parents=True, exist_ok=True)
                if not temporary.exists():
                    _write_new(temporary, data)
                temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._explain("write", key, error) from error

    @override
    def create(self, key: str, data: bytes) -> bool:
        """Put `key` only if it isn't there; if that fails, remove the folders made for it."""
        if self.size(key) is not None:
            return False
        try:
            for _ in range(CREATE_TRIES):
                with suppress(FileNotFoundError):  # a run that is refused removes its folders
                    return self._create(key, data)
            return self._create(key, data)
        except OSError as error:
            raise self._explain("write", key, error) from error

    @override
    def swap(self, key: str, expected: bytes, data: bytes | None) -> bool:
        """Replace or delete `key` only if it still is `expected`.

        Deleting also removes the folders that `create` made, if they are empty by now.
        """
        if self.get(key) != expected:
            return False
        guard, temporary = self.root / TEMPORARY_FOLDER / GUARD_NAME, self._new_temporary()
        try:
            if data is not None:
                _write_new(temporary, data)
            with hold_guard(guard):
                if self.get(key) != expected:
                    return False
                if data is not None:
                    temporary.replace(self.root / key)
                    return True
                (self.root / key).unlink()
                with suppress(OSError):
                    guard.unlink()
        except OSError as error:
            raise self._explain("delete" if data is None else "write", key, error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        remove_unused_folders(self.root, guard.parent)
        return True

    @override
    def size(self, key: str) -> int | None:
        try:
            return (self.root / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explain("look at", key, error) from error

    @override
    def delete(self, key: str) -> None:
        try:
            (self.root / key).unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise self._explain("delete", key, error) from error

    @override
    def delete_all(self, prefix: str) -> None:
        """Remove `prefix` and every key below it; the folder vanishes at once, then is emptied."""
        trash = self.root / TEMPORARY_FOLDER / f"{_writer_name()}-{uuid.uuid4().hex}.deleted"
        try:
            trash.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError, NotADirectoryError):
                (self.root / prefix).rename(trash)
                _remove(trash)
        except OSError as error:
            raise self._explain("delete", prefix, error) from error

    @override
    def list(self, prefix: str) -> Iterator[str]:
        temporaries = self.root / TEMPORARY_FOLDER
        start = self.root / prefix if prefix else self.root
        for name, subfolders, files in os.walk(start):
            folder = Path(name)
            subfolders[:] = sorted(sub for sub in subfolders if folder / sub != temporaries)
            for file in sorted(files):
                yield (folder / file).relative_to(self.root).as_posix()

    @override
    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        for key in self.list(prefix):
            size = self.size(key)
            if size is not None:
                yield key, size

    @override
    def free_bytes(self) -> int | None:
        folder = self.root
        try:
            while not folder.exists():
                folder = folder.parent
            return shutil.disk_usage(folder).free
        except OSError as error:
            raise OutputError(
                f"{self.root}: {folder} can't be looked at: {error.strerror}; choose a folder that "
                "you may write to"
            ) from error

    @override
    def remove_leftovers(self) -> None:
        """Remove the temporary files of killed writers; to be called when a run starts.

        A temporary file is abandoned if its process is gone from this machine, or if nobody has
        touched it for `ABANDONED_SECONDS` (one in use lasts milliseconds).
        """
        try:
            temporaries = list((self.root / TEMPORARY_FOLDER).iterdir())
        except OSError:
            return
        for path in temporaries:
            with suppress(OSError):
                if _is_abandoned(path):
                    _remove(path)

    def _create(self, key: str, data: bytes) -> bool:
        temporary, made = self._new_temporary(), count_missing_folders(self.root)
        try:
            try:
                _write_new(temporary, data)
                note_made_folders(temporary.parent, made)
                (self.root / key).parent.mkdir(parents=True, exist_ok=True)
                guard = temporary.with_name(GUARD_NAME)
                return link_if_absent(temporary, self.root / key, guard)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        except OSError:
            remove_unused_folders(self.root, temporary.parent, made)
            raise

    def _new_temporary(self) -> Path:
        return self.root / TEMPORARY_FOLDER / f"{_writer_name()}-{uuid.uuid4().hex}.partial"

    def _explain(self, verb: str, key: str, error: OSError) -> OutputError:
        """Return the error that says what can't be done, and what to do."""
        what = f"{self.root}: can't {verb} {key!r}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"{what}; free some space and run the same command again")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return OutputError(f"{what}; choose an output folder that you may write to")
        return OutputError(what)


def _writer_name() -> str:
    """Return a name of this process from which others can find out whether it still runs."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _write_new(path: Path, data: bytes) -> None:
    try:
        file = path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    with file:
        file.write(data)
        file.flush()
        # A marker must not survive a power cut that its shards didn't.
        os.fsync(file.fileno())


def _is_abandoned(path: Path) -> bool:
    if path.name in (GUARD_NAME, NOTE_NAME):  # they last as long as the lock
        return False
    host, _, process = path.name.rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and process.isdecimal():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass  # another user's process, or not a process id
    return time.time() - path.stat().st_mtime > ABANDONED_SECONDS


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
