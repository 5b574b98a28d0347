"""Accounts of blocks that were computed more than once, and why, from the workers' events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from support.fault_orders import Event

Block = tuple[str, str]
"""The run ("random" or "image") and the block ("1.2")."""

FAILED = "an attempt that failed"
OVERDUE = "an attempt given up at its deadline"
TWICE = "a slow block started a second time"


@dataclass
class Account:
    """Counts of what happened to the blocks of one output.

    Attributes:
        begun: computations that were started.
        blocks: blocks that were computed at least once.
        faults: how often each kind of fault hit.
        in_flight: by kind of fault, the blocks that it hit: those being computed by what it
            disturbed, or what it damaged.
        recomputed: by kind of fault, the blocks that were computed again because of it; and those
            whose previous attempt had failed, was given up, or was slow.
        unexplained: blocks that were computed again without a reason.
        redone: blocks that were computed again although they were done and intact.
        done: blocks that were marked, and not damaged since.
    """

    begun: int = 0
    blocks: set[Block] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    recomputed: Counter[str] = field(default_factory=Counter)
    unexplained: list[Block] = field(default_factory=list)
    redone: list[Block] = field(default_factory=list)
    done: set[Block] = field(default_factory=set)


@dataclass
class _Hit:
    """A fault and the blocks that it hit and that weren't computed again since."""

    kind: str
    blocks: set[Block]


class _Book:
    def __init__(self) -> None:
        self.account = Account()
        self._open: Counter[tuple[int, Block]] = Counter()
        self._was_done: dict[tuple[int, Block], bool] = {}
        self._failed: Counter[Block] = Counter()
        self._hits: list[_Hit] = []
        self._deaths = ""

    def enter(self, event: Event) -> None:
        """Count the next event."""
        what, pid = event["event"], event["pid"]
        if what == "fault":
            self._hit(event["kind"], {(run, block) for run, block in event["blocks"]})
            if event["damage"]:
                self.account.done -= self._hits[-1].blocks
            return
        block = (event["run"], event["block"])
        if what == "asked":
            self._was_done[pid, block] = block in self.account.done
        elif what == "begun":
            self._begin(pid, block, event["attempt"])
        elif what == "marked":
            self._open[pid, block] -= 1
            self.account.done.add(block)
        elif what == "failed":
            self._open[pid, block] -= 1
            self._failed[block] += 1
        elif what == "dying":
            dying = {b for (other, b), count in self._open.items() if other == pid and count}
            self._hit("kill a block's workers", dying)
        elif what == "hanging":
            self._hit("hang a read", {block})

    def _hit(self, kind: str, blocks: set[Block]) -> None:
        self.account.faults[kind] += 1
        self.account.in_flight[kind] += len(blocks)
        self._hits.append(_Hit(kind, blocks))

    def _begin(self, pid: int, block: Block, attempt: int) -> None:
        account = self.account
        account.begun += 1
        under_way = any(count for (_, other), count in self._open.items() if other == block)
        self._open[pid, block] += 1
        if block not in account.blocks:
            account.blocks.add(block)
            return
        if self._was_done[pid, block]:
            account.redone.append(block)
        for hit in reversed(self._hits):
            if block in hit.blocks:
                hit.blocks.remove(block)
                account.recomputed[hit.kind] += 1
                return
        if self._failed[block]:
            self._failed[block] -= 1
            account.recomputed[FAILED] += 1
        elif attempt > 1:
            account.recomputed[OVERDUE] += 1
        elif under_way:
            account.recomputed[TWICE] += 1
        else:
            account.unexplained.append(block)


def account(events: Iterable[Event], output: Path) -> Account:
    """Return the account of one output."""
    book = _Book()
    for event in events:
        if event.get("output") == str(output):
            book.enter(event)
    return book.account


def in_flight(events: Iterable[Event], output: Path, pids: Iterable[int]) -> list[Block]:
    """Return the blocks that these processes are computing, according to the events."""
    wanted, found = set(pids), Counter[Block]()
    for event in events:
        if event.get("output") == str(output) and event["pid"] in wanted and "run" in event:
            block = (event["run"], event["block"])
            found[block] += {"begun": 1, "marked": -1, "failed": -1}.get(event["event"], 0)
    return sorted(block for block, count in found.items() if count > 0)
