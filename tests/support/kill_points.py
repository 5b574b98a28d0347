"""Kill a run at many of the places where it changes the disk, and run it again each time.

A program of its own: it forks a process per run, which only a process with one thread may do, and
which spares each of them the imports. Counted are the changes that the client's own threads make:
locking and laying out the output, removing what is replaced, building the small levels, finishing.
(The blocks are written by other threads; other tests kill those.)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREAD_NAME = "wsi-unet"
"""Name of the threads in which outputs are prepared and completed."""

CHANGES = ("fsync", "replace", "rename", "unlink", "mkdir")
"""Functions of `os` that every change of the disk goes through."""


class Counter:
    """Counts the client's own changes below a folder; kills the process before the n-th."""

    def __init__(self, folder: Path, fatal: int | None) -> None:
        self.folder = str(folder)
        self.fatal = fatal
        self.count = 0
        for name in CHANGES:
            setattr(os, name, self._watch(getattr(os, name)))

    def _watch(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def watched(target: Any, *rest: Any, **options: Any) -> Any:
            ours = isinstance(target, int) or os.fspath(target).startswith(self.folder)
            if ours and threading.current_thread().name == THREAD_NAME:
                self.count += 1
                if self.count == self.fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
            return change(target, *rest, **options)

        return watched


def in_a_fork(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a forked process, as JSON; None if that was killed."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return None
    assert status == 0, f"a run ended with {status}"
    return json.loads(text)


def main() -> None:
    """Print as JSON the number of changes, and the result of a kill at some of them."""
    job = json.loads(sys.argv[1])
    start, folder = job["start"], Path(job["folder"])

    import distributed.worker  # noqa: F401
    from support.runs import array_objects

    from wsi_unet.segmentation.segment import segment
    from wsi_unet.segmentation.status import run_status

    def run(output: Path, fatal: int | None) -> Any:
        counter = Counter(output, fatal)
        report = segment(job["slide"], output, job["model"], **job["options"])
        return counter.count, report.state

    def prepared(name: str) -> Path:
        output = folder / name
        if start is not None:
            shutil.copytree(start, output)
        return output

    assert threading.active_count() == 1
    whole = prepared("undisturbed")
    changes, state = in_a_fork(lambda: run(whole, None))
    assert state == "finished"
    expected = array_objects(whole)
    step = max(1, changes // job["kills"])
    found = []
    for fatal in range(1, changes + 1, step):
        output = prepared(f"killed-at-{fatal}")
        killed = in_a_fork(lambda o=output, f=fatal: run(o, f)) is None  # type: ignore[misc]
        _, state = in_a_fork(lambda o=output: run(o, None))  # type: ignore[misc]
        statuses = {status.state for status in run_status(output, verify=True)}
        found.append(
            {
                "fatal": fatal,
                "killed": killed,
                "state": state,
                "verified": sorted(statuses),
                "differing": sorted(
                    key for key, _ in expected.items() ^ array_objects(output).items()
                ),
                "left": [path.name for path in (output / ".wsi_unet/.tmp").glob("*")],
            }
        )
        shutil.rmtree(output)
    print(json.dumps({"changes": changes, "found": found}))


if __name__ == "__main__":
    main()
