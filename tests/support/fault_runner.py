"""Starting the fault harness's clients, which are `support.fault_client`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import warm
from support.fault_cluster import TESTS

DEADLINE_SECONDS = 45.0
"""How long a block may take, waiting for workers included: none hangs, however busy the machine."""

RUN_SECONDS = 480.0


@dataclass(frozen=True)
class Ended:
    """A run of the command that has ended.

    Attributes:
        code: its exit status; negative if a signal killed it.
        report: what it printed about the slide; None if nothing.
        said: its stderr.
    """

    code: int
    report: dict[str, Any] | None
    said: str


def start(
    *arguments: str | Path,
    log: Path,
    orders: Path | None = None,
    deadline: float = DEADLINE_SECONDS,
    slow: float = RUN_SECONDS,
    core: int | None = None,
) -> Client:
    """Start a client in a process group of its own.

    Args:
        arguments: arguments of the command line.
        log: file for its stderr; its stdout goes beside it.
        orders: folder of orders; None: there are none.
        deadline: least deadline of a block, seconds.
        slow: seconds after which one of the last blocks is started a second time.
        core: core that it is bound to; None: all.
    """
    job = {
        "arguments": [*map(str, arguments)],
        "orders": str(orders or log.parent),
        "deadline": deadline,
        "slow": slow,
        "core": core,
    }
    printed = log.with_suffix(".json")
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    with printed.open("wb") as out, log.open("wb") as err:
        process = warm.Popen(
            [sys.executable, "-m", "support.fault_client", json.dumps(job)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
    return Client(process, printed, log)


class Client:
    """A running `wsi-unet`."""

    def __init__(self, process: subprocess.Popen[bytes], printed: Path, log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._printed = printed
        self._log = log
        self._ended: Ended | None = None

    def ended(self) -> Ended | None:
        """Return its result; None while it runs."""
        code = self._process.poll()
        if self._ended is None and code is not None:
            printed, said = self._printed.read_text(), self._log.read_text(errors="replace")
            report = json.loads(printed)["slides"][0] if code >= 0 and printed else None
            self._ended = Ended(code, report, said)
        return self._ended

    def wait(self) -> Ended:
        """Wait for its end.

        Raises:
            AssertionError: if it doesn't end in time.
        """
        try:
            self._process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            said = self._log.read_text(errors="replace")
            raise AssertionError(f"a run hangs\n{said}") from None
        ended = self.ended()
        assert ended is not None
        return ended

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
