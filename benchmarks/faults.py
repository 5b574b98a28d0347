"""Check that runs give the same result however often they are killed, stopped or damaged.

    python -m benchmarks.faults --faults 100 --seed 1

It isn't among the other benchmarks because it takes long. A few faults happen at random moments of
each run; the same command is repeated until it has finished; then the whole output is compared with
that of an undisturbed run. The faults are those of `tests/faults`. Ends with status 1 if anything
differs.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.common import ROOT, tell

if TYPE_CHECKING:
    from support.fault_cluster import Cluster
    from support.fault_study import FaultStudy
    from support.fault_trial import Fault, Trial

AT_ONCE = 3
"""Faults per run."""

DEADLINE_SECONDS = 10.0
SLOW_SECONDS = 4.0
"""When one of the last blocks is started a second time, in every other run."""

DISK_MEBIBYTES = 160
DISK = "fill the disk"


@dataclass
class Totals:
    """The results of all runs so far.

    Attributes:
        runs: how many outputs were finished.
        bad: complaints, by run.
        faults: faults that happened, by kind.
        survived: faults in runs without complaints, by kind.
        restarts: how often the command was repeated in runs with such a fault, by kind.
        in_flight: blocks that were being computed when a fault happened, by kind.
        recomputed: blocks that were computed again because of a fault, by kind.
        codes: exit codes of the command, with the error that it ended with.
        seconds: seconds since the start.
    """

    runs: int = 0
    bad: dict[str, list[str]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    recomputed: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, trial: Trial, complaints: list[str]) -> None:
        """Count a run that has ended."""
        self.runs += 1
        book = trial.account()
        self.faults.update(trial.injected)
        self.in_flight.update(book.in_flight)
        self.recomputed.update(book.recomputed)
        self.restarts.update(dict.fromkeys(trial.injected, trial.restarts))
        for ended in trial.ends:
            error = next((line for line in ended.said.splitlines() if "error: " in line), "")
            self.codes[f"{ended.code} {error.rpartition(': ')[2]}".strip()] += 1
        if complaints:
            self.bad[f"seed {trial.seed}: {', '.join(trial.injected)}"] = complaints
        else:
            self.survived.update(trial.injected)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--faults", type=int, default=100, help="how many there are to be")
    parser.add_argument("--seed", type=int, default=1, help="of everything left to chance")
    parser.add_argument(
        "--tiny", action="store_true", help="a smoke run: one small slide, 2 faults"
    )
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    given = parser.parse_args()
    # A program that is ended must not leave its cluster behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # The harness belongs to the tests, which aren't installed.
    sys.path.insert(0, str(ROOT / "tests"))
    with tempfile.TemporaryDirectory(prefix="wsi-unet-faults-") as folder:
        wanted = min(given.faults, 2) if given.tiny else given.faults
        totals = inject_faults(Path(folder), wanted, given.seed, tiny=given.tiny)
    Console(width=max(110, Console().width)).print(make_table(totals))
    for run, complaints in totals.bad.items():
        print(f"{run}\n  " + "\n  ".join(complaints[:20]))
    if given.json:
        given.json.write_text(dumps(vars(totals), indent=1) + "\n")
    sys.exit(1 if totals.bad else 0)


def inject_faults(folder: Path, wanted: int, seed: int, *, tiny: bool) -> Totals:
    """Repeat runs with faults until enough faults have happened."""
    kinds = importlib.import_module("support.fault_kinds")
    shape = (1100, 1100) if tiny else (2100, 3000)
    ttl = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{kinds.WORKER_TTL}s"}
    totals, random, start = Totals(), Random(seed), time.monotonic()
    with _prepared(folder, shape, ttl) as (study, cluster, disk):
        names = [kind for kind in kinds.KINDS if disk is not None or kind != DISK]
        deck = Deck(["kill a worker", "kill the client"] if tiny else names, random)
        while totals.faults.total() < wanted:
            count = min(AT_ONCE, wanted - totals.faults.total())
            blocks = len(study.blocks()) + len(study.blocks("image"))
            faults = kinds.random_faults(random, deck.draw(count), blocks)
            output = (disk or folder) / f"run-{totals.runs}"
            trial = _trial(cluster, study, output, 1000 * seed + totals.runs)
            complaints = _complaints(trial, faults)
            totals.add(trial, complaints)
            totals.seconds = time.monotonic() - start
            deck.put_back([fault.kind for fault in faults], trial.injected)
            shutil.rmtree(output, ignore_errors=True)
            tell(
                f"{totals.faults.total()}/{wanted} faults, {totals.seconds:.0f} s: "
                f"{', '.join(trial.injected)}; {trial.restarts} restarts; "
                f"{complaints or 'identical'}"
            )
    return totals


class Deck:
    """A deck of kinds of faults, from which each kind is drawn equally often."""

    def __init__(self, kinds: list[str], random: Random) -> None:
        self._kinds = kinds
        self._random = random
        self._left: list[str] = []

    def draw(self, count: int) -> list[str]:
        """Return this number of kinds."""
        while len(self._left) < count:
            more = list(self._kinds)
            self._random.shuffle(more)
            self._left += more
        drawn, self._left = self._left[:count], self._left[count:]
        return drawn

    def put_back(self, drawn: list[str], used: list[str]) -> None:
        """Put back the kinds that were drawn but not used because the run had finished before."""
        self._left += (Counter(drawn) - Counter(used)).elements()


def make_table(totals: Totals) -> Table:
    """Return the result as a table."""
    title = f"{totals.faults.total()} faults in {totals.runs} runs, {totals.seconds:.0f} s"
    made = Table(title=title)
    made.add_column("fault", no_wrap=True)
    for heading in ("count", "survived", "blocks hit", "computed again", "commands repeated"):
        made.add_column(heading, justify="right")
    for kind in sorted(totals.faults.keys() | totals.recomputed.keys()):
        columns = (totals.faults, totals.survived, totals.in_flight, totals.recomputed)
        made.add_row(kind, *(str(column[kind]) for column in (*columns, totals.restarts)))
    return made


@contextmanager
def _prepared(
    folder: Path, shape: tuple[int, int], settings: dict[str, str]
) -> Iterator[tuple[FaultStudy, Cluster, Path | None]]:
    """Yield the slide, the cluster and, if it can be made, a small disk."""
    from support.fault_cluster import Cluster
    from support.fault_study import FaultStudy, small_disk

    (folder / "study").mkdir()
    study = FaultStudy.make(folder / "study", shape)
    with Cluster(folder / "cluster", settings=settings) as cluster, ExitStack() as stack:
        disk: Path | None = folder / "disk"
        try:
            stack.enter_context(small_disk(folder / "disk", DISK_MEBIBYTES))
        except OSError as error:
            tell(f"{error}; therefore no disk will be filled")
            disk = None
        yield study, cluster, disk


def _trial(cluster: Cluster, study: FaultStudy, output: Path, seed: int) -> Trial:
    from support.fault_runner import RUN_SECONDS
    from support.fault_trial import Trial

    slow = SLOW_SECONDS if seed % 2 else RUN_SECONDS
    return Trial(cluster, study, output, seed=seed, deadline=DEADLINE_SECONDS, slow=slow)


def _complaints(trial: Trial, faults: list[Fault]) -> list[str]:
    try:
        trial.run(faults)
    except AssertionError as error:
        return [f"the run never ended: {error}"]
    return trial.complaints()


if __name__ == "__main__":
    main()
