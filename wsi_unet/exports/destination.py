"""Where an export goes: a file or folder that is there whole, or as it was before.

It is written under another name beside its place, and renamed once all of it is on the disk. What
is in its place already is replaced only if it is an earlier export.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from wsi_unet.errors import LockedError, OptionError, OutputError
from wsi_unet.storage.concurrent import map_in_threads

Recognise = Callable[[Path], bool]
"""Says whether a file or folder is an earlier export in the same format."""

SYNCS_AT_ONCE = 16
"""Files that are waited for at once: a disk takes many together in the time of a few."""


def check_destination(path: Path, recognise: Recognise) -> Path:
    """Return the path of an export, before anything is computed.

    Raises:
        OptionError: its folder isn't there, or belongs to a result.
        OutputError: something is there that isn't an earlier export of the same format.
    """
    if not is_folder(path.parent):
        raise OptionError(f"{path}: its folder isn't there; make it first", option="path")
    _check_outside(path)
    if os.path.lexists(path):
        try:
            ours = _is_plain(path) and recognise(path)
        except OSError as error:
            raise OutputError(f"can't read {path}: {error.strerror or error}") from error
        if not ours:
            raise OutputError(
                f"{path}: is there already and isn't an earlier export in this format; choose "
                "another path, or remove it"
            )
    return path


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, or a link to one.

    Raises:
        OutputError: it can't be told.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror or error}") from error


def _check_outside(path: Path) -> None:
    """Refuse a path inside a Zarr store, such as a result, where it would be lost in its arrays.

    Raises:
        OptionError: it is inside one.
    """
    parent = path.parent.resolve()
    for folder in (parent, *parent.parents):
        if os.path.lexists(folder / "zarr.json"):
            raise OptionError(
                f"{path}: is inside the Zarr store {folder}; choose a path outside of it",
                option="path",
            )


def _is_plain(path: Path) -> bool:
    """Return whether a path is a file or a folder: no link, and nothing that blocks its reader."""
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


@contextmanager
def write_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes its place at the end, or disappears after an error.

    Raises:
        OutputError: it can't be written.
        LockedError: another process is writing it.
    """
    new = _name_partial(path)
    with write_errors(path):
        opened = _open_new(new)
    with _closing(opened) as file:
        _lock(file.fileno(), path)
        _check_own(file, new, path)
        try:
            with write_errors(path):
                file.truncate()
                yield file
                file.flush()
                os.fsync(file.fileno())
                new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield a new, empty folder that takes its place at the end, or disappears after an error.

    Raises:
        OutputError: it can't be written.
        LockedError: another process is writing it.
    """
    with _make_folder(path) as new, write_errors(path):
        yield new
        _sync_folder(new)
        _replace_folder(new, path)


@contextmanager
def write_files(path: Path, earlier: Iterable[Path]) -> Iterator[Path]:
    """Yield a new, empty folder whose files move beside a path at the end, all together.

    The folder disappears, and so do its files after an error.

    Args:
        path: what the export is called; locked meanwhile.
        earlier: the files of an earlier export; those that aren't replaced are removed at the end.

    Raises:
        OutputError: they can't be written.
        LockedError: another process is writing them.
    """
    with _make_folder(path) as new:
        with write_errors(path):
            yield new
            _sync_folder(new)
        _replace_files(new, path, earlier)


@contextmanager
def _make_folder(path: Path) -> Iterator[Path]:
    """Yield a new, locked, empty folder beside a path, which disappears after an error."""
    new = _name_partial(path)
    with write_errors(path):
        new.mkdir(exist_ok=True)
        descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _lock(descriptor, path)
        try:
            with write_errors(path):
                _clear_folder(new)
            yield new
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _open_new(path: Path) -> BinaryIO:
    """Open a file to be written, under its name, which libraries that get the file look for."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is in the way, and isn't a file")
    return open(path, "r+b", opener=lambda name, _: descriptor)


@contextmanager
def _closing(file: BinaryIO) -> Iterator[BinaryIO]:
    """Close a file in the end, without a word if what is left to write can't be: that was said."""
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


def _name_partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn an OSError inside into an OutputError that says that `path` can't be written."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise  # a library's
        raise OutputError(
            f"can't write {path}: {error.strerror or error}; what was there before is unchanged"
        ) from error


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(
            f"{path}: another process is writing it; wait until it has ended"
        ) from error


def _check_own(file: BinaryIO, new: Path, path: Path) -> None:
    """Refuse a file that took its place after it was opened and before it was locked.

    Raises:
        LockedError: another process has written it.
    """
    opened = os.fstat(file.fileno())
    try:
        there = new.lstat()
    except FileNotFoundError:
        there = None
    if there is None or not os.path.samestat(opened, there):
        raise LockedError(f"{path}: another process has just written it; export again if need be")


def _clear_folder(folder: Path) -> None:
    """Remove what a killed process left."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sync_folder(folder: Path) -> None:
    """Return once the files and folders of a folder, and itself, are on the disk."""
    paths = (Path(top, name) for top, _, names in os.walk(folder) for name in ("", *names))
    for _ in map_in_threads(_sync, paths, SYNCS_AT_ONCE):
        pass


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_files(new: Path, path: Path, earlier: Iterable[Path]) -> None:
    """Move the files of a folder beside a path, and remove those of an earlier export."""
    places = {file: path.with_name(file.name) for file in sorted(new.iterdir())}
    try:
        for file, place in places.items():
            file.replace(place)
        for file in {*earlier} - {*places.values()}:
            file.unlink()
        new.rmdir()
    except OSError as error:
        raise OutputError(
            f"can't put all files of {path} in their places: {error.strerror or error}; what is "
            "there is partly new and partly of an earlier export, so export again"
        ) from error


def _replace_folder(new: Path, path: Path) -> None:
    """Rename a folder to a path; an earlier export there is removed afterwards."""
    if not os.path.lexists(path):
        new.rename(path)
        return
    old = path.with_name(f".{path.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
