"""Importing large packages and leaving them at the end, without looking for garbage in them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import packages inside without collecting garbage, of which importing makes next to none.

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


def leave_quickly() -> None:
    """Spare the last collection of a process that ends now: its memory is freed as a whole."""
    gc.freeze()
