"""The kinds of faults, each with what it does and how it is undone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from support.fault_cluster import NURSED, end, is_alive, is_stopped
from support.fault_study import LABEL
from support.fault_trial import Fault, Trial

WORKER_TTL = 6.0
"""Seconds of silence after which the cluster's scheduler is to take a worker for dead."""

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
    return _stop_worker(trial, random, "stop a worker", random.uniform(0.5, 2.5))


def stop_worker_for_long(trial: Trial, random: Random) -> bool:
    """SIGSTOP a worker until the scheduler has declared it dead; then let it continue.

    It has no nanny, which would kill it.
    """
    seconds = 2 * WORKER_TTL + 1  # the scheduler looks that rarely
    return _stop_worker(trial, random, "stop a worker for long", seconds, but=NURSED)


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


def _stop_worker(trial: Trial, random: Random, kind: str, seconds: float, but: str = "") -> bool:
    found = trial.cluster.worker_processes().items()
    workers = [pid for pid, name in found if name != but and not is_stopped(pid)]
    if not workers:
        return False
    pid = random.choice([one for one in workers if trial.in_flight(one)] or workers)
    _stop(trial, pid, seconds)
    trial.hit(kind, trial.in_flight(pid))
    return True


def _stop(trial: Trial, pid: int, seconds: float) -> None:
    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    trial.later(seconds, go_on)


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
        if not shard.empty
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
