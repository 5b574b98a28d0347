"""Code that all benchmarks share: rows of the table, child processes, medians.

Every measurement happens in a process of its own, so that none inherits another's warm caches,
allocator state or thread settings. The parents must stay small: on Linux a child's peak memory
starts at its parent's size, so they import neither torch nor zarr.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30

TRIES = 2
QUIET_CORES = 0.15
QUIET_SECONDS = 2.0
"""A patient benchmark waits until other processes use less than `QUIET_CORES` cores for
`QUIET_SECONDS`, and measures up to `TRIES` times until they disturb it as little."""

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        benchmark: the program that measured it.
        what: what was measured, on which slide and network.
        value: the median.
        unit: the value's unit.
        least: the value must be at least this; None for no such bar.
        most: the value must be below this; None for no such bar.
        detail: the numbers behind the value, for people.
    """

    benchmark: str
    what: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    detail: str = ""

    @property
    def verdict(self) -> str:
        """Whether the bar is "met" or "missed"; "" without a bar."""
        if self.least is None and self.most is None:
            return ""
        low = self.least is not None and self.value < self.least
        high = self.most is not None and self.value >= self.most
        return "missed" if low or high else "met"


@dataclass(frozen=True)
class Scale:
    """The amount of work that the benchmarks do.

    Attributes:
        tiny: whether this is a smoke test, which takes seconds and measures nothing useful.
        repeats: how often each alternative runs; the median counts.
        patience: how many seconds to wait before each measurement until other processes leave the
            machine alone; above 0, disturbed measurements are repeated.
    """

    tiny: bool = False
    repeats: int = 3
    patience: float = 0.0


@dataclass(frozen=True)
class FinishedProcess:
    """A child process that ended without an error.

    Attributes:
        stdout: the text that it printed.
        seconds: time from its start to its end.
        cpu_seconds: processor time of all its threads.
        peak_bytes: the most memory that it held at once.
    """

    stdout: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object that it printed."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed


def run_process(*command: str | Path, accept: Sequence[int] = (0,)) -> FinishedProcess:
    """Run a program to its end.

    Raises:
        SystemExit: it ends with a status that isn't accepted; its errors are shown.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        arguments = [str(part) for part in command]
        process = subprocess.Popen(arguments, stdout=out, stderr=err, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode not in accept:
            errors = err.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{errors}")
        unit = 1 if sys.platform == "darwin" else 1024
        cpu_seconds = usage.ru_utime + usage.ru_stime
        return FinishedProcess(out.read().decode(), seconds, cpu_seconds, usage.ru_maxrss * unit)


def run_module(name: str, *arguments: str | Path) -> FinishedProcess:
    """Run `python -m benchmarks.<name>`."""
    return run_process(sys.executable, "-m", f"benchmarks.{name}", *arguments)


def run_command(*arguments: str | Path) -> FinishedProcess:
    """Run the `wsi-unet` command of this Python environment."""
    return run_process(Path(sys.executable).with_name("wsi-unet"), *arguments)


def segment(
    slide: Path, output: Path, *options: str | Path
) -> tuple[dict[str, Any], FinishedProcess]:
    """Run `wsi-unet segment` as a user would, and return its report and the process."""
    done = run_command("segment", slide, "-o", output, "--json", "-q", "--overwrite", *options)
    report: dict[str, Any] = done.document["slides"][0]
    return report, done


def run_in_turns(
    alternatives: dict[str, Callable[[], float]], scale: Scale
) -> dict[str, list[float]]:
    """Run alternatives in turns, A B C A B C …, so that a busy minute doesn't hit only one.

    Returns:
        The values of each alternative, least disturbed first, without disturbed ones (see
        `select_least_disturbed`).
    """
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in alternatives}
    for turn in range(scale.repeats):
        for name, run in alternatives.items():
            value, others = run_undisturbed(run, scale)
            samples[name].append((value, others))
            noise = f"  (others took {others:.2f} cores)"
            tell(f"  {turn + 1}/{scale.repeats} {name}: {value:.4g}{noise}")
    return {name: select_least_disturbed(values) for name, values in samples.items()}


def run_undisturbed(run: Callable[[], T], scale: Scale) -> tuple[T, float]:
    """Call a function, again if the scale is patient and other processes disturbed it.

    Args:
        run: does its work in child processes, for which it waits.
        scale: whether to be patient.

    Returns:
        The result of the least disturbed call, and the cores that other processes used meanwhile.
    """
    tries: list[tuple[float, T]] = []
    for _ in range(TRIES if scale.patience else 1):
        _wait_for_quiet(scale.patience)
        before = ProcessorTime.now()
        result = run()
        tries.append((before.others(), result))
        if tries[-1][0] < QUIET_CORES:
            break
    others, result = min(tries, key=lambda pair: pair[0])
    return result, others


@dataclass(frozen=True)
class ProcessorTime:
    """Processor time used up to a moment.

    Attributes:
        time: the moment, s.
        everyone: processor time of all processes, s.
        own: processor time of this process and its children that have ended, s.
    """

    time: float
    everyone: float
    own: float

    @classmethod
    def now(cls) -> ProcessorTime:
        """Return the processor time used so far. Linux only."""
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _, _, *interrupts = map(int, fields[:8])
        ticks = user + nice + system + sum(interrupts)  # stolen time too
        own = os.times()
        return cls(
            time.perf_counter(),
            ticks / os.sysconf("SC_CLK_TCK"),
            own.user + own.system + own.children_user + own.children_system,
        )

    def others(self) -> float:
        """Return how many cores other processes have used since then on average."""
        now = ProcessorTime.now()
        used = (now.everyone - self.everyone) - (now.own - self.own)
        return max(0.0, used / (now.time - self.time))


def select_least_disturbed(samples: Sequence[tuple[float, float]]) -> list[float]:
    """Return the values that other processes didn't disturb, or the least disturbed third.

    Args:
        samples: each value with the number of cores that other processes used meanwhile.
    """
    ordered = sorted(samples, key=lambda sample: sample[1])
    quiet = sum(others < QUIET_CORES for _, others in ordered)
    return [value for value, _ in ordered[: max(quiet, -(-len(ordered) // 3))]]


def _wait_for_quiet(patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = ProcessorTime.now()
        time.sleep(QUIET_SECONDS)
        if before.others() < QUIET_CORES:
            return


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(statistics.median(values))


def format_spread(values: Sequence[float], digits: int = 3) -> str:
    """Return a text with the median and, for several values, the extremes.

    >>> format_spread([2.0, 1.0, 4.0])
    '2 (1 to 4)'
    """
    middle = f"{median(values):.{digits}g}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}g} to {max(values):.{digits}g})"


def tell(line: str) -> None:
    """Print a line of progress on stderr."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def workspace() -> Iterator[Path]:
    """Yield a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="wsi-unet-bench-") as folder:
        yield Path(folder)


def parse_scale(arguments: Sequence[str] | None = None) -> Scale:
    """Parse the scale from the command line."""
    parser = argparse.ArgumentParser()
    add_scale(parser)
    return read_scale(parser.parse_args(arguments))


def add_scale(parser: argparse.ArgumentParser) -> None:
    """Add the options that make up a scale."""
    parser.add_argument(
        "--tiny", action="store_true", help="a smoke test; its numbers mean nothing"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each alternative")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait for a quiet machine"
    )


def read_scale(given: argparse.Namespace) -> Scale:
    """Return the scale that parsed options mean."""
    return Scale(given.tiny, 1 if given.tiny else given.repeats, given.patience)


def emit(rows: Iterator[Row]) -> None:
    """Print rows as one JSON object per line, as they come."""
    for row in rows:
        print(json.dumps(asdict(row)), flush=True)
        tell(f"{row.what}: {row.value:.4g} {row.unit} {row.verdict}  {row.detail}")
