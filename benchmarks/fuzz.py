"""Check that no input, however damaged or forged, does harm: `python -m benchmarks.fuzz`.

    python -m benchmarks.fuzz --cases 20000 --seed 1 --keep bad-cases

It isn't among the other benchmarks because it takes long. Every case is a mutation of a good input
of some kind (slides, masks, annotations, models, manifests, recipes, results), on which a command
of `wsi-unet` is run in a process of its own, under a limit of time and memory. It must end well or
refuse in one line; nothing outside the mutated input and the output may change. Ends with status 1
if anything else happens. A case is decided by its kind, number and seed alone.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from benchmarks.common import GIB, tell
from benchmarks.fuzz_inputs import KINDS, Input, write_inputs
from benchmarks.fuzz_mutations import mutate_tree

LONGEST_SECONDS = 20.0
"""How long a command may take."""

MOST_BYTES = 2 * GIB
"""How much memory a command may take, shared libraries included."""

ADDRESS_SPACE = 8 * GIB
"""What the kernel grants, so that a case can't take the machine's memory."""

ENDS = ("done", "refused", "raw error", "hang", "memory", "outside")
GOOD = ("done", "refused")

RAW = re.compile(r"Traceback|unexpected [A-Z]|(?<![.\w])(?!Slide|Output)[A-Z]\w+(Error|Warning): ")
"""What people see of exceptions that aren't ours; click's refusals begin with "Error: " alone."""

MODULES = (
    "torch", "distributed", "zarr", "tiffslide", "scipy.ndimage", "wsi_unet_cli.main",
    "wsi_unet.segmentation.segment", "wsi_unet.segmentation.runs.execution",
    "wsi_unet.segmentation.worker.label_block", "wsi_unet.segmentation.worker.image_block",
    "wsi_unet.slides.readers.tiff", "wsi_unet.slides.readers.image", "wsi_unet.slides.readers.zarr",
    "wsi_unet.slides.readers.openslide", "wsi_unet.cohorts.cohort", "wsi_unet.evaluation.run",
    "wsi_unet.view.overlay", "wsi_unet.training.run", "wsi_unet.models.importing.checkpoints",
    "wsi_unet.models.probing.verify", "PIL.PngImagePlugin", "PIL.JpegImagePlugin",
    "wsi_unet.segmentation.find_objects", "wsi_unet.objects.reading", "wsi_unet.measuring.run",
    "wsi_unet.models.finite", "wsi_unet.models.importing.programs", "wsi_unet.cohorts.report",
    "wsi_unet.cohorts.status", "wsi_unet.storage.s3.zarr_store", "PIL.TiffImagePlugin",
    "PIL.ImageOps", "imagecodecs._imcd", "safetensors.torch", "tornado.platform.asyncio",
    "torch.utils._device",
)  # fmt: skip
"""Imported once, since importing them takes longer than a case."""


@dataclass(frozen=True)
class Ending:
    """How a case ended.

    Attributes:
        how: one of `ENDS`.
        command: the command; "" if all is well.
        said: the last lines that it said, or what changed.
    """

    how: str
    command: str = ""
    said: str = ""


@dataclass
class Totals:
    """The results of all cases so far.

    Attributes:
        ends: number of cases by (kind of input, how they ended).
        bad: what went wrong, by case ("tiff 17").
        good_inputs_refused: commands that refuse the input that isn't mutated.
        longest: the longest time that a command took, seconds.
        most_bytes: the most memory that a command took.
    """

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: dict[str, Ending] = field(default_factory=dict)
    good_inputs_refused: list[str] = field(default_factory=list)
    longest: float = 0.0
    most_bytes: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="how many, over all kinds")
    parser.add_argument("--seed", type=int, default=1, help="of all mutations")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of input, with commas")
    parser.add_argument("--only", type=int, help="the number of a single case of each kind")
    parser.add_argument("--keep", type=Path, help="folder for inputs of cases that went wrong")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wsi-unet-fuzz-") as folder:
        fuzzer = Fuzzer(Path(folder), given.seed, given.keep)
        for kind in kinds:
            fuzzer.check_good(kind)
        each = range(-(-given.cases // len(kinds))) if given.only is None else [given.only]
        for number in each:
            for kind in kinds:
                ending = fuzzer.run(kind, number)
                if ending.how not in GOOD:
                    tell(f"{kind} {number}: {ending.how}: {ending.command}\n  {ending.said}")
            if number % 100 == 99:
                cases = fuzzer.totals.ends.total()
                tell(
                    f"{cases} cases, {time.monotonic() - start:.0f} s, {len(fuzzer.totals.bad)} bad"
                )
    totals = fuzzer.totals
    Console(width=max(110, Console().width)).print(make_table(totals, time.monotonic() - start))
    for case, ending in totals.bad.items():
        print(f"{case}: {ending.how}: wsi-unet {ending.command}\n  {ending.said}")
    if given.json:
        given.json.write_text(json.dumps(to_json(totals), indent=1) + "\n")
    for refused in totals.good_inputs_refused:
        print(f"a good input is refused: wsi-unet {refused}")
    sys.exit(1 if totals.bad or totals.good_inputs_refused else 0)


def make_table(totals: Totals, seconds: float) -> Table:
    """Return the result as a table."""
    title = (
        f"{totals.ends.total()} cases, {seconds:.0f} s; the longest command took "
        f"{totals.longest:.1f} s, the largest {totals.most_bytes / GIB:.2f} GiB"
    )
    made = Table(title=title)
    made.add_column("input", no_wrap=True)
    for heading in ENDS:
        made.add_column(heading, justify="right")
    for kind in dict.fromkeys(kind for kind, _ in totals.ends):
        made.add_row(kind, *(str(totals.ends[kind, how]) for how in ENDS))
    return made


def to_json(totals: Totals) -> dict[str, object]:
    """Return the numbers."""
    by_end = {how: sum(n for (_, end), n in totals.ends.items() if end == how) for how in ENDS}
    return {
        "cases": totals.ends.total(),
        **by_end,
        "good_inputs_refused": totals.good_inputs_refused,
        "longest_seconds": totals.longest,
        "most_bytes": totals.most_bytes,
        "bad": {case: vars(ending) for case, ending in totals.bad.items()},
    }


class Fuzzer:
    """Runs cases, one after the other."""

    def __init__(self, folder: Path, seed: int, keep: Path | None = None) -> None:
        """Write the good inputs, and import what commands need.

        Args:
            folder: an empty folder.
            seed: of all mutations.
            keep: where inputs of cases that went wrong are copied to; None: nowhere.
        """
        self.totals = Totals()
        self._seed = seed
        self._keep = keep
        self._good, self._folder = folder / "good", folder / "case"
        self._good.mkdir()
        # OpenBLAS would start threads, and a fork has none.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        for module in MODULES:
            importlib.import_module(module)
        gc.freeze()
        self._write_good()

    def run(self, kind: str, number: int) -> Ending:
        """Run a case and count it."""
        random = Random(f"{self._seed} {kind} {number}")
        mutated = self._prepare(KINDS[kind], random)
        commands = KINDS[kind].commands
        ending = self._run_watched(commands[number % len(commands)], mutated)
        self.totals.ends[kind, ending.how] += 1
        if ending.how not in GOOD:
            self.totals.bad[f"{kind} {number}"] = ending
            if self._keep is not None:
                _copy(mutated, self._keep / f"{kind}-{number}")
        return ending

    def check_good(self, kind: str) -> None:
        """Run all commands of a kind on its good input, to see that they read it."""
        for command in KINDS[kind].commands:
            ending = self._run_watched(command, self._prepare(KINDS[kind], None))
            if ending.how != "done":
                self.totals.good_inputs_refused.append(f"{ending.command}: {ending.said}")

    def _write_good(self) -> None:
        """Write the good inputs, in a fork: this process computes nothing, so it has no threads."""
        child = os.fork()
        if not child:
            code = 1
            try:
                write_inputs(self._good)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the good inputs can't be written")

    def _run_watched(self, command: Sequence[str], mutated: Path) -> Ending:
        before = self._surroundings()
        ending = self._run_command(self._fill_in(command, mutated))
        after = self._surroundings()
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        return Ending("outside", ending.command, f"changed: {changed}") if changed else ending

    def _prepare(self, kind: Input, random: Random | None) -> Path:
        """Return the mutated copy of an input, beside a folder of somebody else's."""
        shutil.rmtree(self._folder, ignore_errors=True)
        victim = self._folder / "victim"
        (victim / "data").mkdir(parents=True)
        (victim / "thesis.txt").write_text("years of work")
        (victim / "data" / "zarr.json").write_text("{}")
        for path in [*victim.rglob("*"), victim]:
            os.utime(path, (1e9, 1e9))
        good, copy = self._good / kind.name, self._folder / "mutated" / kind.name
        copy.parent.mkdir()
        (self._folder / "out").mkdir()
        (shutil.copytree if good.is_dir() else shutil.copy)(good, copy)
        if random is not None:
            mutate_tree(copy, victim, random)
        return copy

    def _surroundings(self) -> dict[str, tuple[int, int, int]]:
        """Return inode, time and size of everything that commands must leave alone."""
        found = {}
        for root in (self._folder / "victim", self._good):
            for path in root.rglob("*"):
                state = path.lstat()
                found[str(path)] = (state.st_ino, state.st_mtime_ns, state.st_size)
        return found

    def _fill_in(self, command: Sequence[str], mutated: Path) -> list[str]:
        places = {
            "it": str(mutated),
            "here": str(self._good),
            "out": str(self._folder / "out" / "result"),
        }
        return [word.format(**places) for word in command]

    def _run_command(self, words: Sequence[str]) -> Ending:
        """Run one command in a fork of this process."""
        log = self._folder / "said.txt"
        start = time.monotonic()
        child = os.fork()
        if not child:
            _run_here(words, log)
        shown = " ".join(words)
        if not _ends_in_time(child):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ending("hang", shown, f"after {LONGEST_SECONDS:g} s")
        _, status, usage = os.wait4(child, 0)
        self.totals.longest = max(self.totals.longest, time.monotonic() - start)
        self.totals.most_bytes = max(self.totals.most_bytes, usage.ru_maxrss * 1024)
        said = log.read_text(errors="replace")
        if usage.ru_maxrss * 1024 > MOST_BYTES:
            return Ending("memory", shown, f"{usage.ru_maxrss / 2**20:.1f} GiB")
        return judge(os.waitstatus_to_exitcode(status), said, shown)


def _ends_in_time(child: int) -> bool:
    """Wait until a child has ended; return whether it has in `LONGEST_SECONDS`."""
    end = os.pidfd_open(child)
    try:
        return bool(select.select([end], [], [], LONGEST_SECONDS)[0])
    finally:
        os.close(end)


def _copy(mutated: Path, target: Path) -> None:
    """Keep the input of a case that went wrong; pipes can't be copied."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with contextlib.suppress(shutil.Error, OSError):
        if mutated.is_dir():
            shutil.copytree(mutated, target / mutated.name, symlinks=True)
        elif mutated.is_file():
            shutil.copy(mutated, target)


def judge(code: int, said: str, command: str) -> Ending:
    """Return how a command ended, from its exit status and what it said."""
    last = "\n  ".join(line[:300] for line in said.splitlines()[-12:])
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    raw = any(line.startswith("error: unexpected ") for line in errors)
    if "-v" not in command.split():  # which shows where an error came from
        raw |= RAW.search(said) is not None
    if raw or code not in (0, 1, 2):
        return Ending("raw error", command, f"exit {code}: {last}")
    if code == 0:
        return Ending("done")
    # What is damaged inside a slide or a result fails blocks, or is found by `status`.
    told = "some blocks failed" in said or command.startswith("status ")
    if not (errors or told or "Error: " in said):
        return Ending("raw error", command, f"exit {code} without an error: {last}")
    return Ending("refused", command, last)


def _run_here(words: Sequence[str], log: Path) -> None:
    """Run a command in this process, a fork, and end it."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        os.dup2(said, 1)
        os.dup2(said, 2)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        from wsi_unet_cli.main import main as command_line

        sys.argv = ["wsi-unet", *words]
        command_line()
        code = 0
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
