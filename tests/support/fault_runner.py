"""Starting the fault harness's clients, through `support.fault_client`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from support import fault_client
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


class Runner:
    """Starts clients that have imported everything already."""

    def __init__(self) -> None:
        paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._server = subprocess.Popen(
            [sys.executable, "-m", fault_client.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Importing numpy would start OpenBLAS's threads, and a fork may have none.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
            text=True,
        )

    def __enter__(self) -> Runner:
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.communicate()  # ends it by the end of its stdin

    def ask(self, **job: Any) -> Any:
        """Return the server's answer."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(
        self,
        *arguments: str | Path,
        log: Path,
        orders: Path | None = None,
        deadline: float = DEADLINE_SECONDS,
        slow: float = RUN_SECONDS,
        core: int | None = None,
    ) -> Client:
        """Start a client.

        Args:
            arguments: arguments of the command line.
            log: file for its stderr; its stdout goes beside it.
            orders: folder of orders; None: there are none.
            deadline: least deadline of a block, seconds.
            slow: seconds after which one of the last blocks is started a second time.
            core: core that it is bound to; None: all.
        """
        out = log.with_suffix(".json")
        pid = self.ask(
            arguments=[*map(str, arguments)],
            out=str(out),
            log=str(log),
            orders=str(orders or log.parent),
            deadline=deadline,
            slow=slow,
            core=core,
        )
        return Client(self, pid, out, log)


class Client:
    """A running `wsi-unet`."""

    def __init__(self, runner: Runner, pid: int, out: Path, log: Path) -> None:
        self.pid = pid
        self._runner = runner
        self._out = out
        self._log = log
        self._ended: Ended | None = None

    def ended(self) -> Ended | None:
        """Return its result; None while it runs."""
        if self._ended is None and (code := self._runner.ask(pid=self.pid)) is not None:
            said, printed = self._log.read_text(errors="replace"), self._out.read_text()
            report = json.loads(printed)["slides"][0] if code >= 0 and printed else None
            self._ended = Ended(code, report, said)
        return self._ended

    def wait(self) -> Ended:
        """Wait for its end.

        Raises:
            AssertionError: if it doesn't end in time.
        """
        deadline = time.monotonic() + RUN_SECONDS
        while (ended := self.ended()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"a run hangs\n{self._log.read_text(errors='replace')}")
            time.sleep(0.02)
        return ended

    def kill(self) -> None:
        """Kill it, if it runs."""
        if self.ended() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        while self.ended() is None:
            time.sleep(0.005)
