"""Sessions that are over in this process: executions of runs, whose tasks may still be queued."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from threading import Thread
from typing import Protocol, TypeVar

from wsi_unet.errors import BlockError
from wsi_unet.process_cache import ProcessCache

CLOSING_SECONDS = 2.0
"""How long the end of a session waits for what it held open to close."""

_ENDED: deque[str] = deque(maxlen=1000)


class Closeable(Protocol):
    """What a process holds open for a session."""

    def close(self) -> object:
        """Close it."""


T = TypeVar("T", bound=Closeable)


def end_session(session: str, cache: ProcessCache[T], key: Hashable) -> None:
    """Let no more tasks of a session start in this process, and close what it held open.

    A task that is under way ends first. A read that hangs would hold up closing, so that is waited
    for only briefly.

    Args:
        session: the session.
        cache: what the process holds open.
        key: names what of it was held open for the session.
    """
    _ENDED.append(session)

    def close() -> None:
        held = cache.release(key)
        if held is not None:
            held.close()

    closing = Thread(target=close, daemon=True)
    closing.start()
    closing.join(timeout=CLOSING_SECONDS)


def check_session(session: str) -> None:
    """Check that a session isn't over.

    Raises:
        BlockError: it is.
    """
    if session in _ENDED:
        raise BlockError("the run was stopped")
