"""Forks of a large process that neither copy many page tables nor, later on, many pages."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
import threading
from pathlib import Path
from typing import NoReturn

_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_HUGE_PAGE = 1 << 21


def prepare() -> None:
    """Move this process's memory into huge pages, and keep its objects from garbage collections.

    A fork copies a page table entry for each page: a few hundred instead of a hundred thousand.
    Where the system has no huge pages, forks take longer.
    """
    gc.collect()
    gc.freeze()
    advise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, access, _, _, inode, *_ = line.split()
        start, end = (int(address, 16) for address in place.split("-"))
        start, end = -(-start // _HUGE_PAGE) * _HUGE_PAGE, end // _HUGE_PAGE * _HUGE_PAGE
        if access == "rw-p" and inode == "0" and start < end:
            for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


def end(code: int) -> NoReturn:
    """End this process as Python does, but free nothing.

    To free its objects, a fork would first have to copy nearly all of its parent's pages.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            try:
                stream.flush()
            except OSError:
                code = 120  # as Python does
    os._exit(code)
