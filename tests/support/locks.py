"""Stand-ins for tests of the lock: a store in memory, a clock, owners dead or elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

from wsi_unet.locations import Location
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.locking.heartbeat import HEARTBEAT
from wsi_unet.storage.locking.lock import LockOwner, LockRecord, OutputLock, Timing
from wsi_unet.storage.store import MOST_BYTES

START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class MemoryStore:
    """A store in a dictionary. `before` and `after` are called with each operation's name."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[str], None] = lambda name: None

    def __str__(self) -> str:
        return "memory"

    @property
    def location(self) -> Location:
        return Location("memory")

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        self.before("get")
        found = self.stored.get(key)
        self.after("get")
        return found

    def put(self, key: str, data: bytes) -> None:
        self.stored[key] = data

    def create(self, key: str, data: bytes) -> bool:
        self.before("create")
        created = self.stored.setdefault(key, data) is data
        self.after("create")
        return created

    def swap(self, key: str, expected: bytes, data: bytes | None) -> bool:
        self.before("swap")
        same = self.stored.get(key) == expected
        if same and data is None:
            del self.stored[key]
        elif same and data is not None:
            self.stored[key] = data
        self.after("swap")
        return same

    def size(self, key: str) -> int | None:
        return len(self.stored[key]) if key in self.stored else None

    def delete(self, key: str) -> None:
        self.stored.pop(key, None)

    def delete_all(self, prefix: str) -> None:
        for key in list(self.list(prefix)):
            self.delete(key)

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self.stored if key.startswith(prefix)))

    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        return ((key, len(self.stored[key])) for key in self.list(prefix))

    def remove_leftovers(self) -> None:
        pass

    def free_bytes(self) -> int | None:
        return None

    def token(self) -> str | None:
        """Token of the stored lock."""
        record = LockRecord.parse(self.stored.get(LOCK_KEY))
        return None if record is None else record.token


class Clock:
    """A clock that only waiting advances; `events` happen at their second."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.events: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        end = self.seconds + seconds
        self.events.sort(key=lambda event: event[0])
        while self.events and self.events[0][0] <= end:
            self.seconds, happen = self.events.pop(0)
            happen()
        self.seconds = end

    def timing(self, heartbeat: float = 5.0, stale: float = 30.0) -> Timing:
        return Timing(heartbeat, stale, self.now, self.monotonic, self.sleep)


def elsewhere(pid: int = 77) -> LockOwner:
    """Return a process of another machine."""
    return LockOwner(host="node7", machine="other", pid=pid, started=1.5, user="ana")


@cache
def dead_pid() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def dead() -> LockOwner:
    """Return a process of this machine that has ended."""
    return LockOwner.current().model_copy(update={"pid": dead_pid()})


def record_of(
    owner: LockOwner, beat_time: datetime = START, beat: int = 0, token: str = "theirs"
) -> LockRecord:
    """Return a lock that another process holds."""
    return LockRecord(token=token, owner=owner, since=START, beat=beat, beat_time=beat_time)


def token_of(lock: OutputLock) -> str:
    """Return the token that distinguishes this lock from all others."""
    return lock._record.token


def release_all() -> int:
    """Release this process's locks, so that one failed test doesn't fail those that follow."""
    held = [lock for lock in list(HEARTBEAT._due) if isinstance(lock, OutputLock)]
    for lock in held:
        lock.release()
    return len(held)
