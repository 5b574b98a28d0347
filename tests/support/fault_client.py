"""`wsi-unet` for the fault harness: a process that forks one client per command.

The clients are like those that a shell starts, except that they have imported everything already,
and that tests set how long they wait for blocks. This process only forks and waits, so it has one
thread, as forking demands.

It reads one JSON object per line: `{"arguments", "out", "log", "core", "deadline", "slow",
"orders"}` starts a client and is answered with its process id; `{"pid"}` is answered with its exit
status, null while it runs.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until stdin ends."""
    import distributed.worker  # noqa: F401
    import zarr  # noqa: F401
    from support.fault_orders import Orders
    from support.fault_preload import make_store_fail

    import wsi_unet.slides.tissue.detection  # noqa: F401
    from wsi_unet.segmentation.dispatch.policy import Limits
    from wsi_unet.segmentation.runs import cohort
    from wsi_unet_cli.main import main as command_line

    def run(job: dict[str, Any]) -> None:
        cohort.LIMITS = Limits(
            shortest_deadline=job["deadline"], straggler_seconds=job["slow"], look_seconds=1.0
        )
        make_store_fail(Orders(Path(job["orders"])))
        sys.argv = ["wsi-unet", *job["arguments"]]
        command_line()

    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        answer = status(job["pid"]) if "pid" in job else fork(job, run)
        print(json.dumps(answer), flush=True)


def fork(job: dict[str, Any], run: Callable[[dict[str, Any]], None]) -> int:
    """Start a client in a process group of its own; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        for stream, path in ((0, os.devnull), (1, job["out"]), (2, job["log"])):
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, os.O_RDONLY if stream == 0 else flags, 0o644), stream)
        if job["core"] is not None and hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[job["core"] % len(cores)]})
        run(job)
        code = 0
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def status(pid: int) -> int | None:
    """Return the exit status of a client, negative after a signal; None while it runs."""
    ended, code = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(code) if ended else None


if __name__ == "__main__":
    main()
