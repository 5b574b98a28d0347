"""The kinds of faults, each with what it does and how it is undone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from support.fault_account import Block
from support.fault_cluster import NURSED, end, is_alive, is_stopped
from support.fault_study import LABEL
from support.fault_trial import Fault, Trial

WORKER_TTL = 6.0
"""Seconds of silence after which the cluster's scheduler is to take a worker for dead."""

LONGEST_STOP = 90.0
"""Seconds after which a stopped worker continues, whatever has become of its blocks."""

DEATHS = 4
"""How often a block kills its worker: once more than Dask allows by default."""


def kill_worker(trial: Trial, random: Random) -> bool:
    """SIGKILL a worker process; its nanny starts another."""
    workers = list(trial.cluster.worker_processes())
    if not workers:
        return False
    pid = random.choice([one for one in workers if trial.in_flight(one)] or workers)
    os.kill(pid, signal.SIGKILL)
    _gone(pid)
    trial.hit("kill a worker", trial.in_flight(pid))
    return True


def kill_block_workers(trial: Trial, random: Random) -> bool:
    """SIGKILL whatever process computes a certain block, more than three times."""
    left = trial.not_started()
    if not left:
        return False
    trial.cluster.orders.give("die", random.choice(left), times=DEATHS)
    return True


def kill_all_workers(trial: Trial, random: Random) -> bool:
    """SIGKILL all workers with their nannies; new ones start after a while."""
    workers = list(trial.cluster.worker_processes())
    trial.revive_at = time.monotonic() + random.uniform(0, 3)
    for process in trial.cluster.workers.values():
        end(process)
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _gone(pid)
    trial.hit("kill all workers", trial.in_flight(*workers))
    return True


def kill_scheduler(trial: Trial, random: Random) -> bool:
    """SIGKILL the scheduler; another one starts at the same address after a while."""
    process = trial.cluster.scheduler
    assert process is not None
    trial.revive_at = time.monotonic() + random.uniform(0.2, 3)
    workers = list(trial.cluster.worker_processes())
    end(process)
    trial.hit("kill the scheduler", trial.in_flight(*workers))
    return True


def kill_client(trial: Trial, random: Random) -> bool:
    """SIGKILL the client."""
    if trial.client.ended() is not None:
        return False
    trial.client.kill()
    trial.hit("kill the client", trial.in_flight())
    return True


def stop_client(trial: Trial, random: Random) -> bool:
    """SIGSTOP the client for a while."""
    if trial.client.ended() is not None:
        return False
    _stop(trial, trial.client.pid, random.uniform(1, 3))
    trial.hit("stop the client", trial.in_flight())
    return True


def stop_worker(trial: Trial, random: Random) -> bool:
    """SIGSTOP a worker for as long as its scheduler tolerates."""
    pid = _choose_worker(trial, random)
    if pid is None:
        return False
    _stop(trial, pid, random.uniform(0.5, 2.5))
    trial.hit("stop a worker", trial.in_flight(pid))
    return True


def stop_worker_for_long(trial: Trial, random: Random) -> bool:
    """SIGSTOP a worker until its blocks were done by another; then let it continue.

    The scheduler has declared it dead by then. It has no nanny, which would kill it.
    """
    _hold_blocks(trial)
    pid = _choose_worker(trial, random, but=NURSED)
    if pid is not None:
        blocks: list[Block] = []
        _stop(trial, pid, LONGEST_STOP, lambda: bool(blocks) and trial.done(blocks))
        blocks += trial.in_flight(pid)
        trial.hit("stop a worker for long", blocks)
    trial.cluster.orders.withdraw("slow")
    return pid is not None


def delete_shard(trial: Trial, random: Random) -> bool:
    """Delete a shard of a block that is done."""
    return _damage(trial, random, "delete a shard", Path.unlink)


def truncate_shard(trial: Trial, random: Random) -> bool:
    """Cut off the end of a shard of a block that is done."""

    def cut(path: Path) -> None:
        os.truncate(path, random.randrange(path.stat().st_size))

    return _damage(trial, random, "truncate a shard", cut)


def truncate_marker(trial: Trial, random: Random) -> bool:
    """Cut off the end of a marker, as a power cut may."""
    found = trial.study.marker_files(trial.output)
    if not found:
        return False
    path = random.choice(sorted(found))
    os.truncate(path, random.randrange(path.stat().st_size))
    trial.hit("truncate a marker", [(LABEL, path.stem)], damage=True)
    return True


def hang_read(trial: Trial, random: Random) -> bool:
    """Let a read hang past its block's deadline, until the run has finished without it."""
    left = trial.not_started()
    if not left:
        return False
    trial.cluster.orders.give("hold")
    trial.cluster.orders.give("hang", random.choice(left), times=1)
    return True


def store_errors(trial: Trial, random: Random) -> bool:
    """Let every write fail for a while, and every read of progress, for workers and client."""
    trial.cluster.orders.give("store-errors")
    trial.later(random.uniform(0.5, 2), lambda: trial.cluster.orders.withdraw("store-errors"))
    trial.hit("store errors", [])
    return True


def fill_disk(trial: Trial, random: Random) -> bool:
    """Fill the disk for a while; the output must lie on a small one."""
    ballast = trial.output.parent / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    trial.later(random.uniform(0.5, 2), lambda: ballast.unlink(missing_ok=True))
    trial.hit("fill the disk", [])
    return True


def add_worker(trial: Trial, random: Random) -> bool:
    """Start one more worker, and leave blocks for it."""
    name = f"late{len(trial.cluster.workers)}"
    trial.cluster.orders.give("slow")
    trial.cluster.add_worker(name)
    trial.hit("add a worker late", [])
    while trial.not_started() and not trial.noted_by(name, "begun"):
        if not trial.keep_running():
            break
        trial.tick()
    trial.cluster.orders.withdraw("slow")
    return True


Inject = Callable[[Trial, Random], bool]

KINDS: dict[str, Inject] = {
    "kill a worker": kill_worker,
    "kill a block's workers": kill_block_workers,
    "kill all workers": kill_all_workers,
    "kill the scheduler": kill_scheduler,
    "kill the client": kill_client,
    "stop the client": stop_client,
    "stop a worker": stop_worker,
    "stop a worker for long": stop_worker_for_long,
    "delete a shard": delete_shard,
    "truncate a shard": truncate_shard,
    "truncate a marker": truncate_marker,
    "hang a read": hang_read,
    "store errors": store_errors,
    "fill the disk": fill_disk,
    "add a worker late": add_worker,
}
"""Every kind of fault by its name."""


EARLY = ("kill a block's workers", "hang a read", "add a worker late")


def fault(kind: str, after: int, pause: float = 0.0) -> Fault:
    """Return a fault of a kind; see `Fault`."""
    return Fault(kind, KINDS[kind], after, pause)


def random_faults(random: Random, kinds: list[str], blocks: int) -> list[Fault]:
    """Return faults of these kinds at random moments of a run.

    The moments range from before the first block, while the output is laid out, to after the last,
    while the small levels are built; faults that need blocks which nobody has started come in the
    first half.
    """
    found = []
    for kind in kinds:
        after = random.randrange(blocks // 2 if kind in EARLY else blocks + 1)
        found.append(fault(kind, after, random.uniform(0, 0.3 if after else 1.5)))
    return found


def _running_workers(trial: Trial, but: str = "") -> list[int]:
    found = trial.cluster.worker_processes().items()
    return [pid for pid, name in found if name != but and not is_stopped(pid)]


def _choose_worker(trial: Trial, random: Random, but: str = "") -> int | None:
    """Return a worker that computes something, or any; None if there is none."""
    workers = _running_workers(trial, but)
    busy = [pid for pid in workers if trial.in_flight(pid)]
    return random.choice(busy or workers) if workers else None


def _hold_blocks(trial: Trial) -> None:
    """Let blocks last, and wait until a worker without a nanny has started one that does."""
    trial.cluster.orders.give("slow")
    before = trial.in_flight()  # these may be past the order
    while trial.not_started() and trial.keep_running():
        workers = _running_workers(trial, but=NURSED)
        found = {block for pid in workers for block in trial.in_flight(pid)}
        if any(block[0] == LABEL for block in found.difference(before)):
            break
        trial.tick()


def _stop(
    trial: Trial, pid: int, seconds: float, enough: Callable[[], bool] = lambda: False
) -> None:
    """SIGSTOP a process for some seconds, or until it is enough."""

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    trial.later(seconds, go_on, enough)


def _damage(trial: Trial, random: Random, kind: str, damage: Callable[[Path], None]) -> bool:
    from wsi_unet.labels.progress import Progress
    from wsi_unet.storage.opening import open_store

    progress = Progress(open_store(str(trial.output)), LABEL)
    record = progress.read_run()
    markers = [] if record is None else list(progress.read_markers(record.signature))
    shards = [
        (marker, trial.output / key)
        for marker in markers
        for key, shard in marker.shards.items()
        if not shard.empty and (trial.output / key).exists()  # no fault has deleted it yet
    ]
    if not shards:
        return False
    marker, path = random.choice(shards)
    damage(path)
    row, column = marker.block
    trial.hit(kind, [(LABEL, f"{row}.{column}")], damage=True)
    return True


def _gone(pid: int) -> None:
    """Wait until a killed process is gone."""
    while is_alive(pid):
        time.sleep(0.005)
