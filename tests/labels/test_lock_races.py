"""Several who want the same lock: every order of their steps, and real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from support.locks import (
    START,
    Clock,
    MemoryObjects,
    dead,
    elsewhere,
    record_of,
    release_all,
    token_of,
)

from wsi_unet.errors import LockedError, OutputError
from wsi_unet.labels.lock import LockRecord, OutputLock, Owner, Timing, acquire
from wsi_unet.labels.objects import LOCK_KEY, LocalObjects, open_objects


@pytest.fixture(autouse=True)
def nothing_stays_held() -> Iterator[None]:
    yield
    assert release_all() == 0


# Every order


class Turns:
    """Lets threads do one step at a time, in an order that is chosen step by step."""

    def __init__(self, actors: dict[str, Callable[[], object]], objects: MemoryObjects) -> None:
        self.may_go = {name: threading.Semaphore(0) for name in actors}
        self.arrived = threading.Semaphore(0)
        self.live = sorted(actors)
        self.errors: list[BaseException] = []
        objects.before = self._step
        self.threads = [
            threading.Thread(target=self._act, args=item, name=item[0]) for item in actors.items()
        ]

    def _step(self, operation: str) -> None:
        name = threading.current_thread().name
        if name in self.may_go:
            self.arrived.release()
            self.may_go[name].acquire()

    def _act(self, name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self.errors.append(error)
        self.live.remove(name)
        self.arrived.release()

    def run(self, choose: Callable[[int], int]) -> None:
        for thread in self.threads:
            thread.start()
            self.arrived.acquire()
        while self.live:
            self.may_go[self.live[choose(len(self.live))]].release()
            self.arrived.acquire()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def every_order() -> Iterator[Callable[[int], int]]:
    """Yield functions that choose among n, until every sequence of choices has been made."""
    prefix: list[int] = []
    while True:
        made: list[tuple[int, int]] = []
        yield partial(follow, prefix, made)
        while made and made[-1][0] == made[-1][1] - 1:
            made.pop()
        if not made:
            return
        prefix = [choice for choice, _ in made[:-1]] + [made[-1][0] + 1]


def follow(prefix: list[int], made: list[tuple[int, int]], number: int) -> int:
    """Choose what `prefix` says, and 0 where it ends."""
    choice = prefix[len(made)] if len(made) < len(prefix) else 0
    made.append((choice, number))
    return choice


def take(objects: MemoryObjects, clock: Clock, held: list[OutputLock]) -> None:
    def sleep(seconds: float) -> None:
        clock.sleep(5001 if seconds == 1 else 0)  # watching once is long enough: few steps

    timing = Timing(100, 5000, clock.now, clock.monotonic, sleep)
    with suppress(LockedError):
        held.append(acquire(objects, timing=timing))


def takers(
    objects: MemoryObjects, clock: Clock, held: list[OutputLock]
) -> dict[str, Callable[[], object]]:
    return {name: partial(take, objects, clock, held) for name in "ab"}


@pytest.mark.parametrize("start", ["nothing", "dead", "silent", "damaged"])
def test_in_every_order_one_of_two_takers_wins(start: str) -> None:
    orders = 0
    for choose in every_order():
        orders += 1
        objects, clock, held = MemoryObjects(), Clock(), list[OutputLock]()
        if start != "nothing":
            record = record_of(dead() if start == "dead" else elsewhere())
            objects.put(LOCK_KEY, b"" if start == "damaged" else record.to_bytes())
        actors = takers(objects, clock, held)
        Turns(actors, objects).run(choose)
        (lock,) = held
        assert objects.token() == token_of(lock)
        assert lock.beat()
        lock.release()
        assert objects.stored == {}
    assert orders >= 6


def test_in_every_order_a_suspended_owner_keeps_it_or_knows_that_it_is_lost() -> None:
    """The owner wakes up and beats, or ends, while two others think that it is dead."""
    outcomes = set()
    for ends in (False, True):
        for choose in every_order():
            objects, clock, held = MemoryObjects(), Clock(), list[OutputLock]()
            owner = acquire(objects, owner=elsewhere(), timing=Timing(100, 5000, clock.now))
            clock.seconds = 5001
            actors = takers(objects, clock, held)
            actors["owner"] = owner.release if ends else owner.beat
            Turns(actors, objects).run(choose)
            objects.before = lambda name: None
            owner.beat()
            alive = [lock for lock in [owner, *held] if lock.beat()]
            assert len(alive) <= 1
            assert objects.token() == (token_of(alive[0]) if alive else None)
            outcomes.add((ends, "owner" if owner in alive else len(alive)))
            assert owner.lost == (not ends and owner not in alive)
            for lock in [owner, *held]:
                lock.release()
            assert objects.stored == {}
    assert outcomes == {(False, "owner"), (False, 1), (True, 1)}


# Real processes

HOLD = """
import sys, time
from wsi_unet.errors import LockedError
from wsi_unet.labels.lock import Timing, acquire
from wsi_unet.labels.objects import open_objects
objects = open_objects(sys.argv[1])
timing = Timing(float(sys.argv[2]), float(sys.argv[3]))
try:
    with acquire(objects, timing=timing) as lock:
        print("held", flush=True)
        for line in sys.stdin:
            print("lost" if lock.lost else "still held", flush=True)
    print("released", flush=True)
except LockedError as error:
    print(error, flush=True)
"""


class Run:
    """A process that wants an output's lock and holds it until it is told to end."""

    def __init__(self, output: Path, heartbeat: float = 5, stale: float = 30) -> None:
        command = [sys.executable, "-c", HOLD, str(output), str(heartbeat), str(stale)]
        self.process = subprocess.Popen(
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
def running(output: Path, heartbeat: float = 5, stale: float = 30) -> Iterator[Run]:
    run = Run(output, heartbeat, stale)
    try:
        with run.process:
            yield run
    finally:
        run.process.kill()


@contextmanager
def holding(output: Path, heartbeat: float = 5, stale: float = 30) -> Iterator[Run]:
    with running(output, heartbeat, stale) as run:
        assert run.heard() == "held"
        yield run
        run.process.kill()


@pytest.fixture
def objects(tmp_path: Path) -> LocalObjects:
    return LocalObjects(tmp_path / "out.ome.zarr")


def stored(objects: LocalObjects) -> LockRecord:
    record = LockRecord.parse(objects.get(LOCK_KEY))
    assert record is not None
    return record


def test_a_second_process_is_refused_until_the_first_has_ended(objects: LocalObjects) -> None:
    with holding(objects.root) as first:
        with running(objects.root) as second:
            owner = Owner.current()
            who = f"process {first.process.pid} of {owner.user}@{owner.host} since 20"
            refusal = second.heard()
            assert refusal.startswith(f"{objects.root}: is being written by {who}")
            assert refusal.endswith(" s ago); wait for it, or stop it and try again")
            assert second.process.wait() == 0
        assert first.asked() == "still held"
        assert first.ended() == "released"
        assert not objects.root.exists()
    with holding(objects.root):
        assert stored(objects).owner.pid != first.process.pid


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_owner_is_followed_at_once(objects: LocalObjects, reaped: bool) -> None:
    with holding(objects.root) as first:
        first.process.kill()
        os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)
        if reaped:
            first.process.wait()
        begun = time.monotonic()
        with acquire(objects):
            assert time.monotonic() - begun < 2
    assert not objects.root.exists()


def test_a_stopped_owner_loses_it_and_notices(objects: LocalObjects) -> None:
    with holding(objects.root, 0.1, 0.6) as first:
        os.kill(first.process.pid, signal.SIGSTOP)
        time.sleep(0.05)
        seen = stored(objects)
        begun = time.monotonic()
        while True:  # refused at first, since the last sign of life is fresh
            try:
                lock = acquire(objects, timing=Timing(0.1, 0.6))
                break
            except LockedError:
                time.sleep(0.02)
        assert 0.5 < time.monotonic() - begun < 5
        assert stored(objects).token == token_of(lock) != seen.token
        os.kill(first.process.pid, signal.SIGCONT)
        end = time.monotonic() + 5
        while first.asked() != "lost":
            assert time.monotonic() < end
            time.sleep(0.02)
        assert first.ended() == "released"
        assert first.process.wait() == 0
        assert not lock.lost
        assert stored(objects).token == token_of(lock)
        lock.release()
    assert not objects.root.exists()


def test_a_stopped_owner_that_nobody_robbed_goes_on(objects: LocalObjects) -> None:
    with holding(objects.root, 0.05, 0.2) as first:
        os.kill(first.process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(first.process.pid, signal.SIGCONT)
        begun = stored(objects).beat
        while stored(objects).beat < begun + 3:
            assert first.asked() == "still held"
            time.sleep(0.01)
        with pytest.raises(LockedError):
            acquire(objects)


def test_an_output_that_is_removed_is_lost_and_not_made_again(objects: LocalObjects) -> None:
    with holding(objects.root, 0.05, 0.5) as first:
        (objects.root / LOCK_KEY).unlink()
        end = time.monotonic() + 5
        while first.asked() != "lost":
            assert time.monotonic() < end
            time.sleep(0.01)
        assert first.ended() == "released"
    assert objects.get(LOCK_KEY) is None


COMPETE = """
import sys, time
from wsi_unet.errors import LockedError
from wsi_unet.labels.lock import Timing, acquire
from wsi_unet.labels.objects import open_objects
timing = Timing(0.05, 10)
print("ready", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "take":
        output, start = rest
        while time.monotonic() < float(start):
            pass
        try:
            lock = acquire(open_objects(output), timing=timing)
            print("won", flush=True)
        except LockedError:
            lock = None
            print("refused", flush=True)
    elif lock is not None:
        lost = lock.lost
        lock.release()
        print("lost" if lost else "released", flush=True)
"""


def test_of_many_racing_processes_one_wins_every_time(tmp_path: Path) -> None:
    competitors = [
        subprocess.Popen(
            [sys.executable, "-c", COMPETE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        for process in competitors:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for turn in range(36):
            output = tmp_path / f"folder-{turn}" / "out.ome.zarr"
            objects = LocalObjects(output)
            kind = ("nothing", "dead", "silent")[turn % 3]
            if kind != "nothing":
                long_ago = START - timedelta(days=1)
                record = record_of(dead() if kind == "dead" else elsewhere(), long_ago)
                assert objects.create(LOCK_KEY, record.to_bytes())
            start = time.monotonic() + 0.02
            answers = ask(competitors, f"take {output} {start}")
            assert sorted(answers) == ["refused"] * 7 + ["won"], (turn, kind)
            winner = competitors[answers.index("won")]
            assert stored(objects).owner.pid == winner.pid
            assert ask([winner], "release") == ["released"]
            assert objects.get(LOCK_KEY) is None
    finally:
        for process in competitors:
            process.kill()
            process.communicate()


def ask(processes: list[subprocess.Popen[str]], question: str) -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{question}\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        assert process.stdout is not None
        answers.append(process.stdout.readline().strip())
    return answers


FORK = """
import os, sys
from wsi_unet.labels.heartbeat import HEARTBEAT
from wsi_unet.labels.lock import LockRecord, Timing, acquire
from wsi_unet.labels.objects import LOCK_KEY, open_objects
objects = open_objects(sys.argv[1])
def beats(objects):
    return LockRecord.parse(objects.get(LOCK_KEY)).beat
with acquire(objects, timing=Timing(0.02, 5)) as lock:
    child = os.fork()
    if child == 0:
        for attempt in (lambda: lock.lost, lock.release):
            try:
                attempt()
                os._exit(3)
            except RuntimeError as error:
                assert "forked" in str(error)
        other = open_objects(sys.argv[2])
        with acquire(other, timing=Timing(0.02, 5)) as own:
            while beats(other) < 3:
                assert not own.lost
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    begun = beats(objects)
    while beats(objects) < begun + 3:
        assert not lock.lost
assert objects.get(LOCK_KEY) is None
"""


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_leaves_its_parents_lock_alone(tmp_path: Path) -> None:
    outputs = [str(tmp_path / name) for name in ("first", "second")]
    subprocess.run([sys.executable, "-c", FORK, *outputs], check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


# Places that can't be written to


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a small file system")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def fill(folder: Path) -> Path:
    with (folder / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return folder / "filling"


def test_a_full_disk_is_refused_and_survived_while_the_lock_is_held(small_disk: Path) -> None:
    filling = fill(small_disk)
    objects = LocalObjects(small_disk / "out.ome.zarr")
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        acquire(objects)
    assert list(small_disk.iterdir()) == [filling]
    filling.unlink()
    with acquire(objects, timing=Timing(0.05, 20)) as lock:
        filling = fill(small_disk)
        time.sleep(0.2)
        assert not lock.lost
        begun = stored(objects).beat
        filling.unlink()
        end = time.monotonic() + 10
        while stored(objects).beat < begun + 2:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert list(small_disk.iterdir()) == []


def test_a_read_only_disk_is_one_clear_line(small_disk: Path) -> None:
    (small_disk / "out.ome.zarr").mkdir()
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    for name in ("out.ome.zarr", "new"):
        with pytest.raises(OutputError, match="choose an output folder that you may") as refused:
            acquire(open_objects(small_disk / name))
        assert "\n" not in str(refused.value)
    assert not list((small_disk / "out.ome.zarr").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="that you may write to"):
            acquire(open_objects(tmp_path / "out"))
    finally:
        tmp_path.chmod(0o700)


def test_a_lock_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / LOCK_KEY).mkdir(parents=True)
    with pytest.raises(OutputError, match=r"can't read '\.wsi_unet/lock\.json'"):
        acquire(open_objects(tmp_path))
