"""Real processes that compete for a lock, and are stopped, killed and forked."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from support import warm
from support.lock_processes import ask, competing, holding, running, stored
from support.locks import (
    START,
    dead,
    elsewhere,
    record_of,
    token_of,
)

from wsi_unet.errors import LockedError
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.locking.lock import (
    LockOwner,
    Timing,
    acquire,
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out.ome.zarr")


def test_a_second_process_is_refused_until_the_first_has_ended(store: LocalStore) -> None:
    with holding(store.root) as first:
        with running(store.root) as second:
            owner = LockOwner.current()
            who = f"process {first.process.pid} of {owner.user}@{owner.host} since 20"
            refusal = second.heard()
            assert refusal.startswith(f"{store.root}: is being written by {who}")
            assert refusal.endswith(" s ago); wait for it, or stop it and try again")
            assert second.process.wait() == 0
        assert first.asked() == "still held"
        assert first.ended() == "released"
        assert not store.root.exists()
    with holding(store.root):
        assert stored(store).owner.pid != first.process.pid


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_owner_is_followed_at_once(store: LocalStore, reaped: bool) -> None:
    with holding(store.root) as first:
        first.process.kill()
        os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)
        if reaped:
            first.process.wait()
        begun = time.monotonic()
        with acquire(store):
            assert time.monotonic() - begun < 2
    assert not store.root.exists()


def test_a_stopped_owner_loses_it_and_notices(store: LocalStore) -> None:
    with holding(store.root, 0.1, 0.6) as first:
        os.kill(first.process.pid, signal.SIGSTOP)
        time.sleep(0.05)
        seen = stored(store)
        begun = time.monotonic()
        while True:  # refused at first, since the last heartbeat is recent
            try:
                lock = acquire(store, timing=Timing(0.1, 0.6))
                break
            except LockedError:
                time.sleep(0.02)
        assert 0.5 < time.monotonic() - begun < 5
        assert stored(store).token == token_of(lock) != seen.token
        os.kill(first.process.pid, signal.SIGCONT)
        end = time.monotonic() + 60
        while first.asked() != "lost":
            assert time.monotonic() < end
            time.sleep(0.02)
        assert first.ended() == "released"
        assert first.process.wait() == 0
        assert not lock.lost
        assert stored(store).token == token_of(lock)
        lock.release()
    assert not store.root.exists()


def test_a_stopped_owner_that_nobody_robbed_goes_on(store: LocalStore) -> None:
    with holding(store.root, 0.05, 0.2) as first:
        os.kill(first.process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(first.process.pid, signal.SIGCONT)
        begun = stored(store).beat
        while stored(store).beat < begun + 3:
            assert first.asked() == "still held"
            time.sleep(0.01)
        with pytest.raises(LockedError):
            acquire(store)


def test_an_output_that_is_removed_is_lost_and_not_made_again(store: LocalStore) -> None:
    with holding(store.root, 0.05, 0.5) as first:
        (store.root / LOCK_KEY).unlink()
        end = time.monotonic() + 60
        while first.asked() != "lost":
            assert time.monotonic() < end
            time.sleep(0.01)
        assert first.ended() == "released"
    assert store.get(LOCK_KEY) is None


def test_of_many_racing_processes_one_wins_every_time(tmp_path: Path) -> None:
    with competing(8) as competitors:
        for turn in range(36):
            output = tmp_path / f"folder-{turn}" / "out.ome.zarr"
            store = LocalStore(output)
            kind = ("nothing", "dead", "silent")[turn % 3]
            if kind != "nothing":
                long_ago = START - timedelta(days=1)
                record = record_of(dead() if kind == "dead" else elsewhere(), long_ago)
                assert store.create(LOCK_KEY, record.to_bytes())
            answers = ask(competitors, f"take {output} {time.monotonic() + 0.02}")
            assert sorted(answers) == ["refused"] * 7 + ["won"], (turn, kind)
            winner = competitors[answers.index("won")]
            assert stored(store).owner.pid == winner.pid
            assert ask([winner], "release") == ["released"]
            assert store.get(LOCK_KEY) is None


FORK = """
import os, sys
from wsi_unet.storage.locking.heartbeat import HEARTBEAT
from wsi_unet.storage.locking.lock import LockRecord, Timing, acquire
from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.opening import open_store
store = open_store(sys.argv[1])
def beats(store):
    return LockRecord.parse(store.get(LOCK_KEY)).beat
with acquire(store, timing=Timing(0.02, 5)) as lock:
    child = os.fork()
    if child == 0:
        for attempt in (lambda: lock.lost, lock.release):
            try:
                attempt()
                os._exit(3)
            except RuntimeError as error:
                assert "forked" in str(error)
        other = open_store(sys.argv[2])
        with acquire(other, timing=Timing(0.02, 5)) as own:
            while beats(other) < 3:
                assert not own.lost
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    begun = beats(store)
    while beats(store) < begun + 3:
        assert not lock.lost
assert store.get(LOCK_KEY) is None
"""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_leaves_its_parents_lock_alone(tmp_path: Path) -> None:
    outputs = [str(tmp_path / name) for name in ("first", "second")]
    warm.run([sys.executable, "-c", FORK, *outputs], check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


KILL_EVERYWHERE = """
import sys, threading, time
from pathlib import Path
from support import kill_points
from wsi_unet.storage.locking.lock import acquire
from wsi_unet.storage.opening import open_store

kill_points.CHANGES += ("link", "rmdir", "open")

def run(output, fatal):
    counter = kill_points.Counter(output, fatal)
    threading.current_thread().name = kill_points.THREAD_NAME
    with acquire(open_store(output)) as lock:
        lock.beat()
    return counter.count

folder = Path(sys.argv[1])
fatal = killed = 0
while True:
    fatal += 1
    output = folder / str(fatal) / "out"
    survived = kill_points.in_a_fork(lambda: run(output, fatal))
    begun = time.monotonic()
    with acquire(open_store(output)):
        assert time.monotonic() - begun < 1
        open_store(output).remove_leftovers()
    left = [path for path in output.rglob("*") if path.is_file()]
    assert not left, (fatal, left)
    if survived is not None:
        break
    killed += 1
print(killed)
"""


def test_a_run_killed_at_any_of_its_changes_is_followed_at_once(tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", KILL_EVERYWHERE, str(tmp_path)]
    done = warm.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    assert int(done.stdout) > 15
