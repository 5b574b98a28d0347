"""One output, one command, some faults: the command is given again until it has finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from support.fault_account import TWICE, Account, Block, account, in_flight
from support.fault_cluster import Cluster
from support.fault_runner import DEADLINE_SECONDS, RUN_SECONDS, Client, Ended
from support.fault_study import LABEL, Study, differences, leftovers

TRIAL_SECONDS = 600.0
TICK_SECONDS = 0.02


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: what, in words.
        inject: does it; returns False if there is nothing to do it to.
        after: when: after so many blocks were begun since the trial's start,
        pause: and so many seconds.
    """

    kind: str
    inject: Callable[[Trial, Random], bool]
    after: int
    pause: float = 0.0


@dataclass
class Trial:
    """A run of the command, disturbed, and its reruns.

    Attributes:
        cluster: where blocks are computed; given back whole.
        study: the slide.
        output: the store, which isn't there yet.
        options: of the command, beside the usual ones.
        seed: of what is left to chance.
        deadline: seconds that a block is given.
        slow: seconds after which one of the last blocks is begun a second time.
    """

    cluster: Cluster
    study: Study
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
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._patience = time.monotonic() + TRIAL_SECONDS

    @property
    def restarts(self) -> int:
        """How often the command had to be given again."""
        return len(self.ends) - 1

    @property
    def last(self) -> Ended:
        """How the last run ended."""
        return self.ends[-1]

    def run(self, faults: Sequence[Fault]) -> None:
        """Let the faults happen and give the command again until it has finished.

        Raises:
            AssertionError: if it never does; with all logs.
        """
        try:
            for fault in sorted(faults, key=lambda fault: fault.after):
                while self.goes_on() and not self._happens(fault):
                    self.tick()
            while self.goes_on():
                self.tick()
            self._let_all_end()
            if self.damaged or leftovers(self.output):
                # What was damaged after it was written, or left by the killed, goes with a rerun.
                self._again()
                self.finish()
        finally:
            self.close()

    def goes_on(self) -> bool:
        """Whether it hasn't finished yet; gives the command again if it ended without."""
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
        """Let it go on for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tick()

    def tick(self) -> None:
        """Let a moment pass; do what is due; start again what has died."""
        time.sleep(TICK_SECONDS)
        now = time.monotonic()
        if now > self._patience:
            raise AssertionError(f"this never ends\n{self.story()}")
        due = [what for when, what in self._later if when <= now]
        self._later = [(when, what) for when, what in self._later if when > now]
        for undo in due:
            undo()
        if now >= self.revive_at:
            self.cluster.revive()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something after so many seconds; before the command is given again in any case."""
        self._later.append((time.monotonic() + seconds, what))

    def _happens(self, fault: Fault) -> bool:
        """Let a fault happen if it is time and there is something to do it to."""
        if self.account().begun < fault.after:
            return False
        self.wait(fault.pause)
        if not fault.inject(self, self.random):
            return False
        self.injected.append(fault.kind)
        return True

    def hit(self, kind: str, blocks: Sequence[Block], *, damage: bool = False) -> None:
        """Note that a fault has hit these blocks."""
        self.damaged |= damage
        self.cluster.orders.note(
            "fault", kind=kind, blocks=blocks, damage=damage, output=str(self.output)
        )

    def in_flight(self, *pids: int) -> list[Block]:
        """Return the blocks that these worker processes compute; without any, that all compute."""
        workers = pids or tuple(self.cluster.worker_processes())
        return in_flight(self.cluster.orders.events(), self.output, workers)

    def noted_by(self, name: str, what: str) -> list[Block]:
        """Return the blocks that a worker has "begun", or "marked" as done."""
        events = self.cluster.orders.events()
        pids = {event["pid"] for event in events if event.get("name") == name}
        return [
            (event["run"], event["block"])
            for event in events
            if event["event"] == what
            and event["pid"] in pids
            and event["output"] == str(self.output)
        ]

    def not_begun(self) -> list[str]:
        """Return the label blocks that nobody has begun yet, in their order."""
        begun = {block for run, block in self.account().blocks if run == LABEL}
        left = [block for block in self.study.blocks() if block not in begun]
        return sorted(left, key=lambda block: [int(part) for part in block.split(".")])

    def account(self) -> Account:
        """Return which blocks were computed, and how often."""
        return account(self.cluster.orders.events(), self.output)

    def complaints(self) -> list[str]:
        """Return everything that isn't as it should be; to be asked when the run has finished."""
        book = self.account()
        found = differences(self.study, self.output, self.last.report)
        found += [f"computed again for nothing: {block}" for block in book.unexplained]
        if book.recomputed[TWICE] and self.slow == RUN_SECONDS:
            found.append(f"begun a second time while under way: {book.recomputed[TWICE]} blocks")
        found += [f"computed again although done: {block}" for block in book.redone]
        found += [
            f"ended badly ({ended.code}): {ended.said}"
            for ended in self.ends
            if "Traceback" in ended.said or "unexpected" in ended.said
        ]
        return found

    def story(self) -> str:
        """Return what has happened, for the message of a failed test."""
        runs = [f"  exit {ended.code}: {ended.said.strip()[-1000:]}" for ended in self.ends]
        return "\n".join(
            [f"seed {self.seed}: {', '.join(self.injected)}", *runs, self.cluster.logs()]
        )

    def close(self) -> None:
        """End the command and mend the cluster."""
        self.client.kill()
        self.cluster.remove_late()
        self._settle()
        self.cluster.orders.withdraw("*")

    def _begin(self) -> Client:
        log = self.cluster.folder / f"{self.output.name}-{len(self.ends)}.log"
        return self.study.start(
            self.output, "--scheduler", self.cluster.address, *self.options,
            log=log, orders=self.cluster.orders.folder, deadline=self.deadline, slow=self.slow,
        )  # fmt: skip

    def _again(self) -> None:
        """Give the command again, once what went wrong is mended."""
        assert len(self.ends) <= 3 + 2 * len(self.injected), f"no end\n{self.story()}"
        self._settle()
        self.client = self._begin()

    def _let_all_end(self) -> None:
        """Let computations end that the run didn't wait for: they must do no harm."""
        self.cluster.orders.withdraw("hold")
        self._settle()
        while self.in_flight():
            self.tick()

    def _settle(self) -> None:
        for _, undo in sorted(self._later, key=lambda pair: pair[0]):
            undo()
        self._later.clear()
        self.cluster.revive()
        self.cluster.wait_for_workers()
