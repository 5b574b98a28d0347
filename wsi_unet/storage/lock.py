"""One run at a time writes to an output: the lock that says which, with a heartbeat.

The lock is an object beside the progress, `.wsi_unet/lock.json`. Whoever holds it replaces it every
`HEARTBEAT_SECONDS`; it only changes hands by `ByteStore.create` and `ByteStore.swap`, so of several
takers one wins. It is left behind by a run that was killed, and is taken over

- at once, if it is of this machine and its process is gone (process ids are used again, so the
  time at which the process started counts too);
- else when it hasn't changed for `STALE_SECONDS`, or for two heartbeats if it says itself that it
  is older than that. The clocks of two machines are compared for nothing else.

A run that was suspended finds out with its next heartbeat that it has lost the lock. Blocks that it
had under way may still be written: the same bytes that the other run writes, unless that one began
anew with other parameters. Then the checksums in the markers tell.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import NoReturn

from wsi_unet.errors import LockedError, OutputError
from wsi_unet.storage.heartbeat import HEARTBEAT
from wsi_unet.storage.lock_record import LockOwner, LockRecord
from wsi_unet.storage.store import LOCK_KEY, ByteStore

__all__ = [
    "HEARTBEAT_SECONDS",
    "STALE_SECONDS",
    "LockOwner",
    "LockRecord",
    "OutputLock",
    "Timing",
    "acquire",
]

HEARTBEAT_SECONDS = 5.0
"""Time between two signs of life."""

STALE_SECONDS = 30.0
"""Time without a sign of life after which a run is taken for dead."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Timing:
    """How long things take, and who says so.

    Attributes:
        heartbeat: seconds between two signs of life.
        stale: seconds without one after which a run is taken for dead.
        now: returns the time of day.
        monotonic: returns seconds that nobody sets back.
        sleep: waits so many seconds.
    """

    heartbeat: float
    stale: float
    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class OutputLock:
    """The right to write to an output, from `acquire` until it is released or lost.

    Meant for `with`. One that is dropped without `release` is held until the process ends. It
    belongs to the process that acquired it, and can't be pickled.

    Attributes:
        store: the output.
        owner: this process.
    """

    def __init__(
        self, store: ByteStore, record: LockRecord, content: bytes, timing: Timing
    ) -> None:
        """Keep a lock alive that is already there with the given content; see `acquire`."""
        self.store = store
        self.owner = record.owner
        self._process = os.getpid()
        self._record = record
        self._content = content
        self._timing = timing
        self._mutex = threading.Lock()
        self._heard = timing.monotonic()
        self._lost = False
        self._released = False
        try:
            HEARTBEAT.add(self, timing.heartbeat)
        except RuntimeError:  # no more threads
            self.release()
            raise

    @property
    def lost(self) -> bool:
        """Whether it was taken over, or removed, or couldn't be kept alive for too long.

        Known with the next heartbeat. Once lost it stays lost.

        Raises:
            RuntimeError: in a process forked from the one that acquired it.
        """
        self._check_process()
        return self._lost

    def release(self) -> None:
        """Give the output free, and remove folders that were made for the lock alone.

        Doing it twice is no error, nor is releasing a lost lock: another's is left alone. One that
        can't be removed because the store fails goes stale by itself.

        Raises:
            RuntimeError: in a process forked from the one that acquired it.
        """
        self._check_process()
        HEARTBEAT.remove(self)
        with self._mutex:
            if not self._released:
                with suppress(OutputError):
                    self._swap(None)
            self._released = True

    def beat(self) -> float | None:
        """Give a sign of life; return seconds until the next one, None if there is to be none."""
        with self._mutex:
            if self._released or self._lost:
                return None
            begun = self._timing.monotonic()
            update = {"beat": self._record.beat + 1, "beat_time": self._timing.now()}
            record = self._record.model_copy(update=update)
            content = record.to_bytes()
            try:
                self._lost = not self._swap(content)
            except Exception:  # whatever it is, one sign of life is missing
                self._lost = begun - self._heard >= self._timing.stale
            else:
                self._record, self._content, self._heard = record, content, begun
            return None if self._lost else self._timing.heartbeat

    def _swap(self, data: bytes | None) -> bool:
        """Replace (None: remove) the lock; False if it isn't ours any more.

        Raises:
            OutputError: if the store fails.
        """
        for _ in range(3):
            if self.store.swap(LOCK_KEY, self._content, data):
                return True
            found = self.store.get(LOCK_KEY)
            record = LockRecord.parse(found)
            if found is None or record is None or record.token != self._record.token:
                return False
            # Ours: a beat that was taken for failed went through after all.
            self._content = found
        raise OutputError(f"{self.store}: the lock can't be replaced; try again")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"{self.store}: the lock belongs to process {self._process}, not to the process "
                f"{os.getpid()} that was forked from it; acquire one there"
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self.store}: the lock belongs to process {self._process} and can't be pickled; "
            "pass on the output's location instead"
        )

    def __enter__(self) -> OutputLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def acquire(
    store: ByteStore, *, owner: LockOwner | None = None, timing: Timing | None = None
) -> OutputLock:
    """Take the lock of an output, from a dead run too.

    Says no at once, or within two heartbeats, if a run is alive; it may take `STALE_SECONDS` to see
    that one isn't.

    Args:
        store: the output, which need not exist; folders that are made go with the lock.
        owner: this process; None finds out.
        timing: for tests; None is `HEARTBEAT_SECONDS` and `STALE_SECONDS`.

    Raises:
        LockedError: if another run is writing there.
        OutputError: if the lock can't be read or written.
    """
    owner = owner or LockOwner.current()
    timing = timing or Timing(HEARTBEAT_SECONDS, STALE_SECONDS)
    token = uuid.uuid4().hex
    watch = _Watch(store, timing)
    while True:
        found = store.get(LOCK_KEY)
        record = LockRecord.parse(found)
        if record is not None and record.token == token:
            # Taken after all: the store's answer got lost, and it was asked again.
            return OutputLock(store, record, found or b"", timing)
        if found is None or watch.is_dead(found, record):
            now = timing.now()
            record = LockRecord(token=token, owner=owner, since=now, beat=0, beat_time=now)
            mine = record.to_bytes()
            if store.create(LOCK_KEY, mine) if found is None else store.swap(LOCK_KEY, found, mine):
                return OutputLock(store, record, mine, timing)
        watch.wait()


class _Watch:
    """Watches an output's lock until it is clear whether somebody is alive."""

    def __init__(self, store: ByteStore, timing: Timing) -> None:
        self._store = store
        self._timing = timing
        self._content: bytes | None = None
        self._begun = timing.monotonic()
        self._patience = 0.0
        self._deadline = self._begun + 2 * (timing.stale + timing.heartbeat)

    def is_dead(self, content: bytes, record: LockRecord | None) -> bool:
        """Whether the lock's owner is dead; False means that it can't be told yet.

        Args:
            content: the lock as it is now.
            record: the same, None if it can't be understood.

        Raises:
            LockedError: if it is alive.
        """
        runs = None if record is None else record.owner.runs()
        if runs is False:
            return True
        if self._content is None:
            timing = self._timing
            self._content, self._begun = content, timing.monotonic()
            silence = 0.0 if record is None else (timing.now() - record.beat_time).total_seconds()
            if runs and abs(silence) < timing.stale:
                raise self._refusal(record, silence)
            self._patience = 2 * timing.heartbeat if silence >= timing.stale else timing.stale
        elif content != self._content:
            raise self._refusal(record, 0)
        return self._timing.monotonic() - self._begun >= self._patience

    def wait(self) -> None:
        """Wait a moment before looking again.

        Raises:
            LockedError: if that has gone on for so long that something must be wrong.
        """
        if self._timing.monotonic() > self._deadline:
            raise LockedError(
                f"{self._store}: can't be locked: {LOCK_KEY!r} neither stays nor goes; make sure "
                "that no other run is there, delete it and try again"
            )
        # Without anything to watch, somebody was quicker: how it stands will be clear at once.
        longest = 0.05 if self._content is None else 1
        self._timing.sleep(min(self._timing.heartbeat / 5, longest))

    def _refusal(self, record: LockRecord | None, silence: float) -> LockedError:
        if record is None:
            who = "another process, of another version of wsi-unet"
        else:
            owner = record.owner
            who = (
                f"process {owner.pid} of {owner.user}@{owner.host} since "
                f"{record.since:%Y-%m-%d %H:%M:%S %Z} (last sign of life {max(0, silence):.0f} s "
                "ago)"
            )
        return LockedError(
            f"{self._store}: is being written by {who}; wait for it, or stop it and try again"
        )
