"""Sessions that are over in this process: executions of runs, whose tasks may still be queued."""

from __future__ import annotations

from collections import deque

from wsi_unet.errors import BlockError

_ENDED: deque[str] = deque(maxlen=1000)


def end_session(session: str) -> None:
    """Let no more tasks of a session start in this process."""
    _ENDED.append(session)


def check_session(session: str) -> None:
    """Check that a session isn't over.

    Raises:
        BlockError: it is.
    """
    if session in _ENDED:
        raise BlockError("the run was stopped")
