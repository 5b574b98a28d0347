"""Trials: one command, disturbed by faults and repeated until it has finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from support.fault_account import TWICE, Account, Block, account, in_flight
from support.fault_cluster import Cluster
from support.fault_runner import DEADLINE_SECONDS, RUN_SECONDS, Client, Ended
from support.fault_study import LABEL, FaultStudy, differences, leftovers

TRIAL_SECONDS = 600.0
TICK_SECONDS = 0.02


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: kind of the fault, in words.
        inject: causes it; returns False if there is nothing that it could hit.
        after: number of blocks that must have started before it.
        pause: seconds to wait after that.
    """

    kind: str
    inject: Callable[[Trial, Random], bool]
    after: int
    pause: float = 0.0


@dataclass
class Trial:
    """A run of the command, disturbed, and its reruns.

    Attributes:
        cluster: Dask cluster that computes the blocks; intact again at the end.
        study: the slide and its undisturbed run.
        output: the output, which doesn't exist yet.
        options: options of the command besides the usual ones.
        seed: seed of random choices.
        deadline: deadline of a block, seconds.
        slow: seconds after which one of the last blocks is started a second time.
    """

    cluster: Cluster
    study: FaultStudy
    output: Path
    options: tuple[str, ...] = ()
    seed: int = 0
    deadline: float = DEADLINE_SECONDS
    slow: float = RUN_SECONDS
    ends: list[Ended] = field(default_factory=list)
    injected: list[str] = field(default_factory=list)
    damaged: bool = False
    revive_at: float = 0.0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.client = self._begin()
        self._later: list[tuple[float, Callable[[], bool], Callable[[], None]]] = []
        self._patience = time.monotonic() + TRIAL_SECONDS

    @property
    def restarts(self) -> int:
        """Number of times that the command had to be repeated."""
        return len(self.ends) - 1

    @property
    def last(self) -> Ended:
        """The result of the last run."""
        return self.ends[-1]

    def run(self, faults: Sequence[Fault]) -> None:
        """Inject the faults, and repeat the command until it has finished.

        Raises:
            AssertionError: if it never finishes; with all logs.
        """
        try:
            for fault in sorted(faults, key=lambda fault: fault.after):
                while self.keep_running() and not self._inject(fault):
                    self.tick()
            while self.keep_running():
                self.tick()
            self._let_all_end()
            if self.damaged or leftovers(self.output):
                # A rerun repairs damaged files and removes those that killed runs left.
                self._again()
                self.finish()
        finally:
            self.close()

    def keep_running(self) -> bool:
        """Repeat the command if it failed; return whether it still runs."""
        ended = self.client.ended()
        if ended is None:
            return True
        if not self.ends or ended is not self.last:
            self.ends.append(ended)
        if ended.code:
            self._again()
        return bool(ended.code)

    def finish(self) -> Ended:
        """Wait for the end of this run of the command."""
        while (ended := self.client.ended()) is None:
            self.tick()
        self.ends.append(ended)
        return ended

    def wait(self, seconds: float) -> None:
        """Let the run continue for some seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tick()

    def tick(self) -> None:
        """Let a moment pass; do what is due; restart dead processes."""
        time.sleep(TICK_SECONDS)
        now = time.monotonic()
        if now > self._patience:
            raise AssertionError(f"this never ends\n{self.story()}")
        due = [later for later in self._later if later[0] <= now or later[1]()]
        self._later = [later for later in self._later if later not in due]
        for _, _, undo in due:
            undo()
        if now >= self.revive_at:
            self.cluster.revive()

    def later(
        self,
        seconds: float,
        what: Callable[[], None],
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Call a function after some seconds, once `enough`, or if the command is repeated."""
        self._later.append((time.monotonic() + seconds, enough, what))

    def _inject(self, fault: Fault) -> bool:
        """Inject a fault if it is due and can hit something; return whether it did."""
        if self.account().begun < fault.after:
            return False
        self.wait(fault.pause)
        if not fault.inject(self, self.random):
            return False
        self.injected.append(fault.kind)
        return True

    def hit(self, kind: str, blocks: Sequence[Block], *, damage: bool = False) -> None:
        """Record that a fault has hit these blocks."""
        self.damaged |= damage
        self.cluster.orders.note(
            "fault", kind=kind, blocks=blocks, damage=damage, output=str(self.output)
        )

    def in_flight(self, *pids: int) -> list[Block]:
        """Return the blocks that these worker processes, or all, are computing."""
        workers = pids or tuple(self.cluster.worker_processes())
        return in_flight(self.cluster.orders.events(), self.output, workers)

    def done(self, blocks: Iterable[Block]) -> bool:
        """Return whether these blocks are done, and weren't damaged since."""
        return self.account().done.issuperset(blocks)

    def noted_by(self, name: str, what: str) -> list[Block]:
        """Return the blocks for which a worker noted an event, "begun" or "marked"."""
        events = self.cluster.orders.events()
        pids = {event["pid"] for event in events if event.get("name") == name}
        return [
            (event["run"], event["block"])
            for event in events
            if event["event"] == what
            and event["pid"] in pids
            and event["output"] == str(self.output)
        ]

    def not_started(self) -> list[str]:
        """Return the label blocks that nobody has started yet, in their order."""
        begun = {block for run, block in self.account().blocks if run == LABEL}
        left = [block for block in self.study.blocks() if block not in begun]
        return sorted(left, key=lambda block: [int(part) for part in block.split(".")])

    def account(self) -> Account:
        """Return which blocks were computed, and how often."""
        return account(self.cluster.orders.events(), self.output)

    def complaints(self) -> list[str]:
        """Return everything that is wrong with the finished run, one line each."""
        book = self.account()
        found = differences(self.study, self.output, self.last.report)
        found += [f"computed again without a reason: {block}" for block in book.unexplained]
        if book.recomputed[TWICE] and self.slow == RUN_SECONDS:
            found.append(f"started a second time while under way: {book.recomputed[TWICE]} blocks")
        found += [f"computed again although done: {block}" for block in book.redone]
        found += [
            f"ended badly ({ended.code}): {ended.said}"
            for ended in self.ends
            if "Traceback" in ended.said or "unexpected" in ended.said
        ]
        return found

    def story(self) -> str:
        """Return a history of the trial, for the message of a failed test."""
        runs = [f"  exit {ended.code}: {ended.said.strip()[-1000:]}" for ended in self.ends]
        return "\n".join(
            [f"seed {self.seed}: {', '.join(self.injected)}", *runs, self.cluster.logs()]
        )

    def close(self) -> None:
        """End the command and restore the cluster."""
        self.client.kill()
        self.cluster.remove_late()
        self._settle()
        self.cluster.orders.withdraw("*")

    def _begin(self) -> Client:
        log = self.cluster.folder / f"{self.output.name}-{len(self.ends)}.log"
        return self.study.start(
            self.output, *self.cluster.connection, *self.options,
            log=log, orders=self.cluster.orders.folder, deadline=self.deadline, slow=self.slow,
        )  # fmt: skip

    def _again(self) -> None:
        """Repeat the command, after the faults have been undone."""
        assert len(self.ends) <= 3 + 2 * len(self.injected), f"no end\n{self.story()}"
        self._settle()
        self.client = self._begin()

    def _let_all_end(self) -> None:
        """Wait for computations that the run gave up: they must do no harm."""
        self.cluster.orders.withdraw("hold")
        self._settle()
        while self.in_flight():
            self.tick()

    def _settle(self) -> None:
        for _, _, undo in sorted(self._later, key=lambda later: later[0]):
            undo()
        self._later.clear()
        self.cluster.revive()
        self.cluster.wait_for_workers()
