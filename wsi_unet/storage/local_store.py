"""A store as files below a folder."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from typing_extensions import override

from wsi_unet.errors import OutputError
from wsi_unet.locations import Location
from wsi_unet.storage.guard import GUARD_NAME, MARKER_NAME, hold_guard, link_if_absent
from wsi_unet.storage.keys import BOOKKEEPING, check_key, check_prefix
from wsi_unet.storage.made_folders import (
    count_missing_folders,
    note_made_folders,
    remove_unused_folders,
)
from wsi_unet.storage.no_links import (
    IrregularFileError,
    open_file,
    resolve_folder,
    resolve_key,
    stat_file,
)
from wsi_unet.storage.store import MOST_BYTES, ByteStore, too_large

TEMPORARY_FOLDER = f"{BOOKKEEPING}/.tmp"
"""Folder of files being written; on the same file system, so that renaming is atomic."""

ABANDONED_SECONDS = 3600.0
"""Age beyond which a temporary file counts as abandoned, whoever wrote it."""

_TEMPORARY_NAME = re.compile(
    r"(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{32}\.(?:partial|(?P<folder>deleted))"
)
"""The name of a file that is being written, or of what is being deleted; see `_new_temporary`."""

CREATE_TRIES = 8
"""How often to try again when others remove the folders that a file is being made in."""


@dataclass(frozen=True)
class LocalStore(ByteStore):
    """A store as files below a folder; a key is a file's path in it.

    A file is written in `TEMPORARY_FOLDER` and renamed into place, so a killed writer leaves
    nothing where a Zarr reader would list it. A file's content is flushed to the disk before the
    file is renamed, so that no name outlives its bytes in a power cut. Folders aren't flushed: the
    newest renames may be undone, and what is lost by that is simply computed again.

    The folder may come from somebody else, so nothing outside of it is read, written or removed
    through it: see `no_links`.

    Attributes:
        root: the output folder, or a link to it; made by the first `put`.
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
    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        check_key(key)
        try:
            descriptor = open_file(resolve_key(self.root, key))
            try:
                size = os.fstat(descriptor).st_size
                if size > most:
                    raise too_large(self, key, size, most)
                return _read(descriptor, size)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explain("read", key, error) from error

    @override
    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        temporary: Path | None = None
        try:
            target = Path(resolve_key(self.root, key))
            temporary = self._new_temporary()
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
            if temporary is not None:
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
        if not self._holds(key, expected):
            return False
        verb = "delete" if data is None else "write"
        try:
            target, temporary = Path(resolve_key(self.root, key)), self._new_temporary()
        except OSError as error:
            raise self._explain(verb, key, error) from error
        guard = temporary.with_name(GUARD_NAME)
        try:
            if data is not None:
                _write_new(temporary, data)
            with hold_guard(guard):
                if not self._holds(key, expected):
                    return False
                if data is not None:
                    temporary.replace(target)
                    return True
                target.unlink()
                with suppress(OSError):
                    guard.unlink()
        except OSError as error:
            raise self._explain(verb, key, error) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        remove_unused_folders(self.root, guard.parent)
        return True

    @override
    def size(self, key: str) -> int | None:
        check_key(key)
        try:
            return stat_file(resolve_key(self.root, key)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explain("look at", key, error) from error

    @override
    def delete(self, key: str) -> None:
        check_key(key)
        try:
            Path(resolve_key(self.root, key)).unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise self._explain("delete", key, error) from error

    @override
    def delete_all(self, prefix: str) -> None:
        """Remove `prefix` and every key below it; the folder vanishes at once, then is emptied."""
        check_key(prefix)
        try:
            doomed = Path(resolve_key(self.root, prefix))
            trash = self._new_temporary("deleted")
            trash.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError, NotADirectoryError):
                doomed.rename(trash)
                _remove(trash)
        except OSError as error:
            raise self._explain("delete", prefix, error) from error

    @override
    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below `prefix`; links and the like too, which can't be read."""
        return (key for key, _ in self._walk(prefix))

    @override
    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        for key, path in self._walk(prefix):
            try:
                yield key, stat_file(path).st_size
            except FileNotFoundError:  # deleted since
                continue
            except OSError as error:
                raise self._explain("look at", key, error) from error

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
        touched it for `ABANDONED_SECONDS` (one in use lasts milliseconds). What has another name
        isn't ours, and stays.
        """
        try:
            temporaries = list(self._temporaries.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._explain("look at", TEMPORARY_FOLDER, error) from error
        for path in temporaries:
            with suppress(OSError):
                if _is_abandoned(path):
                    _remove(path)

    def _holds(self, key: str, expected: bytes) -> bool:
        return self.size(key) == len(expected) and self.get(key) == expected

    def _create(self, key: str, data: bytes) -> bool:
        target, temporary = Path(resolve_key(self.root, key)), self._new_temporary()
        made = count_missing_folders(self.root)
        try:
            try:
                _write_new(temporary, data)
                note_made_folders(temporary.parent, made)
                target.parent.mkdir(parents=True, exist_ok=True)
                guard = temporary.with_name(GUARD_NAME)
                return link_if_absent(temporary, target, guard)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        except OSError:
            remove_unused_folders(self.root, temporary.parent, made)
            raise

    @property
    def _temporaries(self) -> Path:
        """The folder of temporary files.

        Raises:
            OSError: it can't be looked at, or is a link.
        """
        return Path(resolve_folder(self.root, TEMPORARY_FOLDER))

    def _new_temporary(self, kind: Literal["partial", "deleted"] = "partial") -> Path:
        return self._temporaries / f"{_writer_name()}-{uuid.uuid4().hex}.{kind}"

    def _walk(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield the key and the path of everything below `prefix` but folders and temporaries."""
        try:
            start = resolve_folder(self.root, check_prefix(prefix))
        except OSError as error:
            raise self._explain("list", prefix, error) from error
        root = str(self.root)
        temporaries = f"{root}/{TEMPORARY_FOLDER}"
        for folder, subfolders, files in os.walk(start):
            paths = {f"{folder}/{name}": name for name in subfolders}
            links = {path for path in paths if stat.S_ISLNK(os.lstat(path).st_mode)}
            subfolders[:] = sorted(paths[path] for path in paths.keys() - links - {temporaries})
            for path in sorted((*links, *(f"{folder}/{name}" for name in files))):
                yield path[len(root) + 1 :], path

    def _explain(self, verb: str, key: str, error: OSError) -> OutputError:
        """Return the error that says what can't be done, and what to do."""
        if isinstance(error, IrregularFileError):
            return OutputError(str(error.strerror))
        what = f"{self.root}: can't {verb} {key!r}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"{what}; free some space and run the same command again")
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return OutputError(f"{what}; choose an output folder that you may write to")
        return OutputError(what)


def _read(descriptor: int, size: int) -> bytes:
    """Return the bytes of an open file, at most `size`."""
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


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
    """Return whether a file has a name that we give to temporary files, and nobody uses it."""
    found, name = path.lstat(), _TEMPORARY_NAME.fullmatch(path.name)
    if name is None and path.name != MARKER_NAME:
        return False
    if stat.S_ISDIR(found.st_mode) and (name is None or name["folder"] is None):
        return False
    if name is not None and name["host"] == socket.gethostname():
        try:
            os.kill(int(name["process"]), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError, ValueError):
            pass  # another user's process, or not a process id
    return time.time() - found.st_mtime > ABANDONED_SECONDS


def _remove(path: Path) -> None:
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
