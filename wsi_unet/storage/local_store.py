"""Objects as files below a folder."""

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

from wsi_unet.errors import OutputError
from wsi_unet.storage.exclusive import (
    GUARD,
    MADE,
    count_missing,
    guarded,
    link_new,
    note_made,
    tidy,
)
from wsi_unet.storage.keys import BOOKKEEPING

TEMPORARY_FOLDER = f"{BOOKKEEPING}/.tmp"
"""Folder of objects being written; on the same file system, so that renaming is atomic."""

STALE_SECONDS = 3600.0
"""Age beyond which a temporary is taken for abandoned, whoever wrote it."""

CREATE_TRIES = 8
"""How often to begin again when others remove the folders that a file is being made in."""


@dataclass(frozen=True)
class LocalStore:
    """Objects as files below a folder.

    A file is written under `TEMPORARY_FOLDER` and renamed into place, so a killed writer leaves nothing
    where a Zarr reader would list it. A file's content is flushed to the disk before it is
    renamed, so that a power cut leaves no name without its bytes. Folders aren't flushed: the
    newest renames may be undone, and an object whose name is gone is simply made again.

    Attributes:
        root: the output folder; made by the first `put`.
    """

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def get(self, key: str) -> bytes | None:
        """Return the bytes of `key`, None if there is no such file.

        Raises:
            OutputError: if the file is there but can't be read.
        """
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._refusal("read", key, error) from error

    def put(self, key: str, data: bytes) -> None:
        """Replace the file `key` by `data` in one atomic step.

        Raises:
            OutputError: if it can't be written (no space, no permission); the old file stays.
        """
        target = self.root / key
        temporary = self._new_temporary()
        try:
            _write_new(temporary, data)
            try:
                temporary.replace(target)
            except FileNotFoundError:
                # Usually the target's folder is missing; rarely another run's clean-up took this
                # temporary for abandoned. Both are cured by doing it again.
                target.parent.mkdir(parents=True, exist_ok=True)
                if not temporary.exists():
                    _write_new(temporary, data)
                temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._refusal("write", key, error) from error

    def create(self, key: str, data: bytes) -> bool:
        """Make the file `key` unless there is one; it is complete as soon as it is there.

        Raises:
            OutputError: if it can't be written; folders made for it are gone again.
        """
        if self.size(key) is not None:
            return False
        try:
            for _ in range(CREATE_TRIES):
                with suppress(FileNotFoundError):  # another run, refused, takes its folders away
                    return self._create(key, data)
            return self._create(key, data)
        except OSError as error:
            raise self._refusal("write", key, error) from error

    def swap(self, key: str, expected: bytes, data: bytes | None) -> bool:
        """Replace or delete the file `key` if its content is `expected`.

        A deletion takes the folders along that were made by `create` and hold nothing any more.

        Raises:
            OutputError: if it can't be read, written or guarded from others; the old file stays.
        """
        if self.get(key) != expected:
            return False
        guard, temporary = self.root / TEMPORARY_FOLDER / GUARD, self._new_temporary()
        try:
            if data is not None:
                _write_new(temporary, data)
            with guarded(guard):
                if self.get(key) != expected:
                    return False
                if data is not None:
                    temporary.replace(self.root / key)
                    return True
                (self.root / key).unlink()
                with suppress(OSError):
                    guard.unlink()
        except OSError as error:
            raise self._refusal("delete" if data is None else "write", key, error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        tidy(self.root, guard.parent)
        return True

    def size(self, key: str) -> int | None:
        """Return the length of the file `key` in bytes, None if there is no such file."""
        try:
            return (self.root / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._refusal("look at", key, error) from error

    def delete(self, key: str) -> None:
        """Remove the file `key` if it is there."""
        try:
            (self.root / key).unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise self._refusal("delete", key, error) from error

    def delete_all(self, prefix: str) -> None:
        """Remove the folder `prefix`; it vanishes at once and is then emptied out of sight."""
        grave = self.root / TEMPORARY_FOLDER / f"{_writer()}-{uuid.uuid4().hex}.deleted"
        try:
            grave.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError, NotADirectoryError):
                (self.root / prefix).rename(grave)
                _remove(grave)
        except OSError as error:
            raise self._refusal("delete", prefix, error) from error

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder `prefix`, sorted folder by folder."""
        hidden = self.root / TEMPORARY_FOLDER
        start = self.root / prefix if prefix else self.root
        for folder, folders, files in os.walk(start):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if here / name != hidden)
            for name in sorted(files):
                yield (here / name).relative_to(self.root).as_posix()

    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys and sizes, in bytes, of all files below the folder `prefix`.

        Raises:
            OutputError: if one can't be looked at.
        """
        for key in self.list(prefix):
            size = self.size(key)
            if size is not None:
                yield key, size

    def free_bytes(self) -> int | None:
        """Return the number of bytes free on the root's file system.

        Raises:
            OutputError: if the place can't be looked at.
        """
        place = self.root
        try:
            while not place.exists():
                place = place.parent
            return shutil.disk_usage(place).free
        except OSError as error:
            raise OutputError(
                f"{self.root}: can't look at {place}: {error.strerror}; choose a place you may "
                "write to"
            ) from error

    def remove_leftovers(self) -> None:
        """Remove what killed writers left; to be called when a run starts.

        A temporary is abandoned if its process is gone from this machine, or if nobody has touched
        it for `STALE_SECONDS` (a living one lasts milliseconds).
        """
        try:
            temporaries = list((self.root / TEMPORARY_FOLDER).iterdir())
        except OSError:
            return
        for path in temporaries:
            with suppress(OSError):
                if _abandoned(path):
                    _remove(path)

    def _create(self, key: str, data: bytes) -> bool:
        temporary, made = self._new_temporary(), count_missing(self.root)
        try:
            try:
                _write_new(temporary, data)
                note_made(temporary.parent, made)
                (self.root / key).parent.mkdir(parents=True, exist_ok=True)
                return link_new(temporary, self.root / key, temporary.with_name(GUARD))
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        except OSError:
            tidy(self.root, temporary.parent, made)
            raise

    def _new_temporary(self) -> Path:
        return self.root / TEMPORARY_FOLDER / f"{_writer()}-{uuid.uuid4().hex}.partial"

    def _refusal(self, verb: str, key: str, error: OSError) -> OutputError:
        what = f"{self.root}: can't {verb} {key!r}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"{what}; free some space and run the same command again")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return OutputError(f"{what}; choose an output folder that you may write to")
        return OutputError(what)


def _writer() -> str:
    """Name this process, so that others can tell whether it is still there."""
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


def _abandoned(path: Path) -> bool:
    if path.name in (GUARD, MADE):  # they last as long as the lock does
        return False
    host, _, process = path.name.rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and process.isdecimal():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass  # there, but somebody else's; or no process id at all
    return time.time() - path.stat().st_mtime > STALE_SECONDS


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
