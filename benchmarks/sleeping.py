"""Run a cohort whose blocks only sleep: `python -m benchmarks.sleeping SCHEDULER --blocks N …`.

This is the client of `benchmarks.scheduler`, in a process of its own. Tasks, keys, markers and the
code that streams them are those of real runs; nothing is read or written. At every checkpoint it
prints a JSON object and waits for a line on stdin, so that all processes can be measured at the
same moment.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from wsi_unet.dask_cluster.cluster import open_client
from wsi_unet.dask_cluster.options import ClusterOptions
from wsi_unet.dask_cluster.workers import count_workers
from wsi_unet.labels.progress import BlockMarker, ShardRecord
from wsi_unet.segmentation.dispatch.in_flight import BlockDone, BlockFailed
from wsi_unet.segmentation.dispatch.policy import Limits
from wsi_unet.segmentation.dispatch.stream import stream
from wsi_unet.segmentation.worker.task import Run, Task

GRID = (24, 25)
"""(rows, columns) of a slide's blocks: 600 of 4096 px are a slide of 98,000 × 102,000 px."""

SECONDS = 0.2
TINY_SECONDS = 0.01


def sleep_block(task: Task) -> BlockMarker:
    """Sleep as long as a block takes, and return a marker like one that a block returns."""
    time.sleep(SECONDS)
    return _marker(task)


def doze_block(task: Task) -> BlockMarker:
    """Sleep for a moment only, for smoke tests, and return the same marker."""
    time.sleep(TINY_SECONDS)
    return _marker(task)


def _marker(task: Task) -> BlockMarker:
    i, j = task.index
    return BlockMarker(
        block=task.index,
        signature=task.run.signature,
        counts=(16_000_000, 777_216),
        predicted=16_777_216,
        seconds={"read": 0.05, "wait": 0.01, "predict": 0.12, "write": 0.02},
        attempts=1,
        ended=time.time(),
        worker="host-0001-12345",
        shards={
            f"labels/{task.run.name}/{level}/c/{i}/{j}": ShardRecord(
                length=123_456 >> 2 * level, sha256=task.run.signature
            )
            for level in range(4)
        },
    )


class Cohort:
    """The tasks of many slides, counted when they are taken and when they have ended.

    Attributes:
        taken: tasks taken so far.
        ended: tasks that have ended so far.
        most: the most tasks that were taken and hadn't ended at any moment.
    """

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self.taken = self.ended = self.most = 0

    def __iter__(self) -> Iterator[Task]:
        rows, columns = GRID
        for number in range(self._blocks):
            slide, index = divmod(number, rows * columns)
            run = Run(
                output=f"/cohort/results/slide-{slide:05}.ome.zarr",
                name="nuclei-he",
                signature=f"{slide:064x}",
                session=f"{slide:012x}",
            )
            self.taken += 1
            self.most = max(self.most, self.taken - self.ended)
            yield Task(run, divmod(index, columns))


def _count_tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scheduler")
    parser.add_argument("--blocks", type=int, required=True)
    parser.add_argument("--every", type=int, required=True, help="blocks between checkpoints")
    parser.add_argument("--threads", type=int, required=True, help="task threads to wait for")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--tls", metavar="PEM", help="certificate and key of the cluster")
    given = parser.parse_args()
    cohort = Cohort(given.blocks)
    options = ClusterOptions(scheduler=given.scheduler, tls_ca=given.tls, tls_cert=given.tls)
    with open_client(options) as client:
        while count_workers(client).total_threads < given.threads:
            time.sleep(0.1)
        start = time.perf_counter()
        for event in stream(client, cohort, run=doze_block if given.tiny else sleep_block):
            if isinstance(event, BlockFailed):
                raise SystemExit(event.error)
            if not isinstance(event, BlockDone):
                continue
            cohort.ended += 1
            if cohort.ended % given.every == 0 or cohort.ended == given.blocks:
                checkpoint = {
                    "blocks": cohort.ended,
                    "seconds": time.perf_counter() - start,
                    "most_in_flight": cohort.most,
                    "bound": Limits().tasks_per_thread * given.threads,
                    "with_the_scheduler": client.run_on_scheduler(_count_tasks),
                }
                print(json.dumps(checkpoint), flush=True)
                sys.stdin.readline()


if __name__ == "__main__":
    # Imported by name, so that its functions are sent by name, as a run's are, not as code.
    from benchmarks import sleeping

    sleeping.main()
