"""Opening files that the user names, if they are regular files.

A named pipe blocks whoever opens it, and a device may deliver bytes without end.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What messages call other files, by the type in their mode."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: it can't be opened, or is something else.
    """
    descriptor = open_regular_descriptor(path)
    return os.fdopen(descriptor, "rb")


def open_regular_descriptor(path: str | os.PathLike[str]) -> int:
    """Open a regular file, or a link to one, for reading; the caller closes the descriptor.

    Raises:
        OSError: it can't be opened, or is something else.
    """
    _check_mode(path, os.stat(path).st_mode)  # noqa: PTH116 (opening a device may change it)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(path: str | os.PathLike[str]) -> None:
    """Check that a library which opens `path` itself will find a regular file.

    Raises:
        OSError: it can't be opened, or is something else.
    """
    os.close(open_regular_descriptor(path))


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file, or a link to it.
        limit: most bytes that it may have; None is any number.

    Raises:
        OSError: it can't be read, is something else, or is larger (EFBIG).
    """
    with open_regular(path) as file:
        if limit is None:
            return file.read()
        if os.fstat(file.fileno()).st_size <= limit:
            data = file.read(limit + 1)  # it may grow meanwhile
            if len(data) <= limit:
                return data
    raise OSError(errno.EFBIG, f"it has more than {limit >> 20} MiB", os.fspath(path))


def _check_mode(path: str | os.PathLike[str], mode: int) -> None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if kind != stat.S_IFREG:
        what = KINDS.get(kind, "something else")
        raise OSError(errno.EINVAL, f"it is {what}, not a file", os.fspath(path))
