"""Messages between the fault harness and its worker processes: files in one folder.

The harness gives orders ("whoever computes block 1.2 is to die"); whoever takes one removes its
file, so that it is obeyed once, whatever processes there are. What happened goes to one file of
events, a line each. A line is appended by one write, so the order of the lines is the order of the
events, between processes too.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Orders:
    """Orders to worker processes and the events that they note, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._events: list[Event] = []
        self._read = 0

    @property
    def _file(self) -> Path:
        return self.folder / "events.jsonl"

    def give(self, what: str, block: str = "any", times: int | None = None) -> None:
        """Give an order to whoever computes a block ("1.2"), a number of times; None: always."""
        for path in [self._path(what, block, n) for n in range(times or 1)]:
            path.touch()
        if times is None:
            self._path(what, block, 0).rename(self.folder / f"{what}~{block}")

    def take(self, what: str, block: str = "any") -> bool:
        """Take an order; return False if there is none, or another process took it."""
        if (self.folder / f"{what}~{block}").exists():
            return True
        for path in sorted(self.folder.glob(f"{what}~{block}~*")):
            with suppress(FileNotFoundError):
                path.unlink()
                return True
        return False

    def withdraw(self, what: str) -> None:
        """Withdraw all matching orders that nobody has taken."""
        for path in self.folder.glob(f"{what}~*"):
            path.unlink(missing_ok=True)

    def note(self, event: str, **fields: Any) -> None:
        """Append an event."""
        line = (
            json.dumps({"event": event, "time": time.time(), "pid": os.getpid(), **fields}) + "\n"
        )
        file = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def events(self) -> list[Event]:
        """Return all events so far."""
        with suppress(FileNotFoundError), self._file.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            self._read += len(whole)
            self._events += map(json.loads, whole.splitlines())
        return self._events

    def _path(self, what: str, block: str, number: int) -> Path:
        return self.folder / f"{what}~{block}~{number}"
