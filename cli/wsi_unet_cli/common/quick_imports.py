"""Importing large packages, and exiting, without collecting garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import packages inside without collecting garbage, as importing makes next to none.

    torch and distributed are millions of objects that stay, and each collection would look at all
    of them again: that is a third of the time that importing takes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def skip_last_collection() -> None:
    """Skip the last collection of a process that is about to end and so frees all its memory."""
    gc.freeze()
