"""Opening and looking at files in folders that somebody else may have filled.

Such a folder may hold links that lead out of it, and pipes or devices on which reading never ends.
No link below the folder is followed, and nothing but regular files is read. Every step of the way
is looked at just before it is used; whoever may exchange folders in that moment could write there
anyway.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from wsi_unet.regular_files import KINDS

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", **KINDS}


class IrregularFileError(OSError):
    """Something is neither a regular file nor a folder, where only these are expected."""

    def __init__(self, path: str | os.PathLike[str], mode: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        super().__init__(
            errno.ELOOP,
            f"{os.fspath(path)} is {kind}, and wsi-unet neither makes nor follows such; remove it, "
            "or put a copy of what you want there in its place",
        )


def resolve_key(root: Path, key: str) -> str:
    """Return the path of a key, if no folder on the way to it is a link.

    The last part isn't looked at: `open_file` and `stat_file` do that, and replacing or removing a
    link doesn't touch what it points to.

    Args:
        root: the folder that the key lies in; may itself be a link.
        key: a key that `check_key` accepts.

    Raises:
        IrregularFileError: a folder is a link.
        OSError: a folder can't be looked at.
    """
    path = str(root)
    *folders, name = key.split("/")
    for index, folder in enumerate(folders):
        path = f"{path}/{folder}"
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return "/".join((path, *folders[index + 1 :], name))
        if stat.S_ISLNK(mode):
            raise IrregularFileError(path, mode)
    return f"{path}/{name}"


def resolve_folder(root: Path, key: str) -> str:
    """Return the path of a folder ("" is `root`), as `resolve_key`; it mustn't be a link either.

    Raises:
        IrregularFileError: a folder on the way, or the folder itself, is a link.
        OSError: a folder can't be looked at.
    """
    return resolve_key(root, f"{key}/.").removesuffix("/.") if key else str(root)


def open_file(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a regular file and return its descriptor; never waits, and follows no last link.

    Args:
        path: the file.
        flags: as for `os.open`.

    Raises:
        IrregularFileError: it is something else.
        OSError: it can't be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            mode = os.lstat(path).st_mode
            if not stat.S_ISREG(mode):
                raise IrregularFileError(path, mode) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise IrregularFileError(path, mode)
    return descriptor


def stat_file(path: str | os.PathLike[str]) -> os.stat_result:
    """Return the facts about a regular file.

    Raises:
        IrregularFileError: it is something else.
        OSError: it can't be looked at.
    """
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise IrregularFileError(path, found.st_mode)
    return found
