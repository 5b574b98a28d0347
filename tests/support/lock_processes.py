"""Processes that compete for the lock of an output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import warm

from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.locking.lock import LockRecord
from wsi_unet.storage.store import ByteStore

HOLD = """
import sys, time
from wsi_unet.errors import LockedError
from wsi_unet.storage.locking.lock import Timing, acquire
from wsi_unet.storage.opening import open_store
store = open_store(sys.argv[1])
timing = Timing(float(sys.argv[2]), float(sys.argv[3]))
try:
    with acquire(store, timing=timing) as lock:
        print("held", flush=True)
        for line in sys.stdin:
            print("lost" if lock.lost else "still held", flush=True)
    print("released", flush=True)
except LockedError as error:
    print(error, flush=True)
"""


class Run:
    """A process that takes an output's lock and holds it until it is asked to end."""

    def __init__(self, output: Path | str, heartbeat: float = 5, stale: float = 30) -> None:
        command = [sys.executable, "-c", HOLD, str(output), str(heartbeat), str(stale)]
        self.process: subprocess.Popen[str] = warm.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def asked(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        return self.heard()

    def ended(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.heard()


@contextmanager
def running(output: Path | str, heartbeat: float = 5, stale: float = 30) -> Iterator[Run]:
    run = Run(output, heartbeat, stale)
    try:
        with run.process:
            yield run
    finally:
        run.process.kill()


@contextmanager
def holding(output: Path | str, heartbeat: float = 5, stale: float = 30) -> Iterator[Run]:
    with running(output, heartbeat, stale) as run:
        assert run.heard() == "held"
        yield run
        run.process.kill()


COMPETE = """
import sys, time
from wsi_unet.errors import LockedError
from wsi_unet.storage.locking.lock import Timing, acquire
from wsi_unet.storage.opening import open_store
timing = Timing(0.05, 10)
print("ready", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "take":
        output, start = rest
        while time.monotonic() < float(start):
            pass
        try:
            lock = acquire(open_store(output), timing=timing)
            print("won", flush=True)
        except LockedError:
            lock = None
            print("refused", flush=True)
    elif lock is not None:
        lost = lock.lost
        lock.release()
        print("lost" if lost else "released", flush=True)
"""


def ask(processes: list[subprocess.Popen[str]], question: str) -> list[str]:
    """Ask several processes the same question, all before the first answer."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{question}\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        assert process.stdout is not None
        answers.append(process.stdout.readline().strip())
    return answers


def stored(store: ByteStore) -> LockRecord:
    """Return the lock that is stored."""
    record = LockRecord.parse(store.get(LOCK_KEY))
    assert record is not None
    return record


@contextmanager
def competing(number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Run processes that `take` the lock at a given time and `release` it on request."""
    command = [sys.executable, "-c", COMPETE]
    processes: list[subprocess.Popen[str]] = [
        warm.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()
