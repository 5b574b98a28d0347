"""The lock on an output: only one run at a time writes there, and it sends heartbeats.

The lock is a key beside the progress, `.wsi_unet/lock.json`. Its holder replaces it every
`HEARTBEAT_SECONDS`. It changes hands only by `ByteStore.create` and `ByteStore.swap`, so of several
runs that try to take it one wins. A killed run leaves it behind; another run takes it over

- immediately, if it belongs to this machine and its process is gone (process ids are used again, so
  the process's start time counts too);
- else when it hasn't changed for `STALE_SECONDS`, or for two heartbeats if its own time says that
  it is older than that. Otherwise the clocks of two machines are never compared.

A run that was suspended finds out with its next heartbeat that it has lost the lock. Blocks that it
was computing may still be written: the same bytes that the other run writes, unless that one was
started with other parameters. Then the checksums in the markers don't match.
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
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.locking.heartbeat import HEARTBEAT
from wsi_unet.storage.locking.record import MOST_LOCK_BYTES, LockOwner, LockRecord
from wsi_unet.storage.store import ByteStore

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
"""Time between two heartbeats."""

STALE_SECONDS = 30.0
"""Time without a heartbeat after which a run counts as dead."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Timing:
    """The lock's time limits, and its clock.

    Attributes:
        heartbeat: seconds between two heartbeats.
        stale: seconds without one after which a run counts as dead.
        now: returns the time of day.
        monotonic: returns seconds by a clock that is never set back.
        sleep: waits for a number of seconds.
    """

    heartbeat: float
    stale: float
    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class OutputLock:
    """The right to write to an output, from `acquire` until it is released or lost.

    Use it in a `with` statement: one that is dropped without `release` is held until the process
    ends. It belongs to the process that acquired it, and can't be pickled.

    Attributes:
        store: the output.
        owner: this process.
    """

    def __init__(
        self, store: ByteStore, record: LockRecord, content: bytes, timing: Timing
    ) -> None:
        """Keep a lock alive that is stored already, with the given content; see `acquire`."""
        self.store = store
        self.owner = record.owner
        self._process = os.getpid()
        self._record = record
        self._content = content
        self._timing = timing
        self._mutex = threading.Lock()
        self._last_beat = timing.monotonic()
        self._lost = False
        self._released = False
        try:
            HEARTBEAT.add(self, timing.heartbeat)
        except RuntimeError:  # no more threads
            self.release()
            raise

    @property
    def lost(self) -> bool:
        """Whether the lock was taken over or removed, or couldn't be kept alive for too long.

        Known with the next heartbeat. A lost lock stays lost.

        Raises:
            RuntimeError: in a process forked from the one that acquired the lock.
        """
        self._check_process()
        return self._lost

    def check(self) -> None:
        """Check that the lock isn't lost, as far as is known.

        Raises:
            OutputError: it is: another process writes to the output now.
        """
        if self.lost:
            raise OutputError(
                f"{self.store}: another process has taken this output over, because this one had "
                "stopped responding; run the same again when the other has ended"
            )

    def release(self) -> None:
        """Remove the lock, and the folders that were made for it alone.

        Releasing twice is no error, nor is releasing a lost lock: another run's lock stays. A lock
        that can't be removed because the store fails goes stale by itself.

        Raises:
            RuntimeError: in a process forked from the one that acquired the lock.
        """
        self._check_process()
        HEARTBEAT.remove(self)
        with self._mutex:
            if not self._released:
                with suppress(OutputError):
                    self._swap(None)
            self._released = True

    def beat(self) -> float | None:
        """Send a heartbeat; return the seconds until the next one, None if there is none."""
        with self._mutex:
            if self._released or self._lost:
                return None
            started = self._timing.monotonic()
            update = {"beat": self._record.beat + 1, "beat_time": self._timing.now()}
            record = self._record.model_copy(update=update)
            content = record.to_bytes()
            try:
                self._lost = not self._swap(content)
            except Exception:  # whatever it is, one heartbeat is missing
                self._lost = started - self._last_beat >= self._timing.stale
            else:
                self._record, self._content, self._last_beat = record, content, started
            return None if self._lost else self._timing.heartbeat

    def _swap(self, data: bytes | None) -> bool:
        """Replace the lock (None: remove it); return False if it isn't ours any more.

        Raises:
            OutputError: the store fails.
        """
        for _ in range(3):
            if self.store.swap(LOCK_KEY, self._content, data):
                return True
            content = self.store.get(LOCK_KEY, MOST_LOCK_BYTES)
            record = LockRecord.parse(content)
            if content is None or record is None or record.token != self._record.token:
                return False
            # Ours: a heartbeat that seemed to have failed went through after all.
            self._content = content
        raise OutputError(f"{self.store}: the lock can't be replaced; try again")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"{self.store}: the lock belongs to process {self._process}, not to the process "
                f"{os.getpid()} that was forked from it; acquire a lock there"
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
    """Acquire the lock of an output, taking it over from a dead run.

    Refuses at once, or within two heartbeats, if another run is alive; to find out that it is dead
    may take `STALE_SECONDS`.

    Args:
        store: the output, which need not exist; folders made for the lock are
            removed with it.
        owner: this process; None is `LockOwner.current()`.
        timing: for tests; None is `HEARTBEAT_SECONDS` and `STALE_SECONDS`.

    Raises:
        LockedError: another run is writing there.
        OutputError: the lock can't be read or written.
    """
    owner = owner or LockOwner.current()
    timing = timing or Timing(HEARTBEAT_SECONDS, STALE_SECONDS)
    token = uuid.uuid4().hex
    watch = _OwnerWatch(store, timing)
    while True:
        stored = store.get(LOCK_KEY, MOST_LOCK_BYTES)
        record = LockRecord.parse(stored)
        if record is not None and record.token == token:
            # Taken after all: the store's answer got lost, and the store was asked again.
            return OutputLock(store, record, stored or b"", timing)
        if stored is None or watch.observe(stored, record):
            now = timing.now()
            record = LockRecord(token=token, owner=owner, since=now, beat=0, beat_time=now)
            content = record.to_bytes()
            if stored is None:
                taken = store.create(LOCK_KEY, content)
            else:
                taken = store.swap(LOCK_KEY, stored, content)
            if taken:
                return OutputLock(store, record, content, timing)
        watch.wait()


class _OwnerWatch:
    """Watches an output's lock until it is clear whether its owner is alive."""

    def __init__(self, store: ByteStore, timing: Timing) -> None:
        self._store = store
        self._timing = timing
        self._content: bytes | None = None
        self._watched_since = timing.monotonic()
        self._patience = 0.0
        self._deadline = self._watched_since + 2 * (timing.stale + timing.heartbeat)

    def observe(self, content: bytes, record: LockRecord | None) -> bool:
        """Look at the lock once more; return whether its owner is known to be dead by now.

        Args:
            content: the lock as it is now.
            record: the same, None if it can't be parsed.

        Raises:
            LockedError: the owner is alive.
        """
        runs = None if record is None else record.owner.is_running()
        if runs is False:
            return True
        if self._content is None:
            timing = self._timing
            self._content, self._watched_since = content, timing.monotonic()
            silence = 0.0 if record is None else (timing.now() - record.beat_time).total_seconds()
            if runs and abs(silence) < timing.stale:
                raise self._locked_error(record, silence)
            self._patience = 2 * timing.heartbeat if silence >= timing.stale else timing.stale
        elif content != self._content:
            raise self._locked_error(record, 0)
        return self._timing.monotonic() - self._watched_since >= self._patience

    def wait(self) -> None:
        """Wait a moment before looking again.

        Raises:
            LockedError: it has taken so long that something must be wrong.
        """
        if self._timing.monotonic() > self._deadline:
            raise LockedError(
                f"{self._store}: can't be locked: {LOCK_KEY!r} keeps changing; make sure that "
                "no other run writes there, delete that file and try again"
            )
        # Nothing to watch yet means that another run was quicker: its lock will be there at once.
        longest = 0.05 if self._content is None else 1
        self._timing.sleep(min(self._timing.heartbeat / 5, longest))

    def _locked_error(self, record: LockRecord | None, silence: float) -> LockedError:
        if record is None:
            who = "a process of another version of wsi-unet"
        else:
            owner = record.owner
            who = (
                f"process {owner.pid} of {owner.user}@{owner.host} since "
                f"{record.since:%Y-%m-%d %H:%M:%S %Z} (last heartbeat {max(0, silence):.0f} s ago)"
            )
        return LockedError(
            f"{self._store}: is being written by {who}; wait for it, or stop it and try again"
        )
