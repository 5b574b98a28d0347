"""Run the SLURM recipe on a one-node SLURM, requeue the job in the middle, verify the output.

`make slurm` calls this, and the tests use its parts. The undisturbed result that the output is
compared with is computed by the same number of local processes, so they agree to the last byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = Path(sys.executable).parent
WORKERS = 2
OPTIONS = ("--block", "512", "--tile", "256", "--precision", "float32", "--quiet")
"""Many small blocks, and nothing that is found out by measuring."""


def main() -> int:
    """Try the recipe out and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wsi-unet-slurm-") as folder:
        figures = requeue_in_the_middle(arguments.slide.resolve(), Path(folder))
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    sound = figures["status --verify"] and figures["same as undisturbed"]
    return 0 if sound and not figures["blocks computed twice"] else 1


def requeue_in_the_middle(slide: Path, folder: Path) -> dict[str, float | bool]:
    """Segment `slide` twice, once undisturbed and once as a job that is requeued half-way.

    Args:
        slide: the slide.
        folder: an empty folder for everything.

    Returns:
        The results: numbers of blocks, seconds, and whether the output is sound.
    """
    output = folder / "slide.ome.zarr"
    blocks, whole = undisturbed(slide, folder / "whole.ome.zarr", *OPTIONS)
    with one_node(folder / "slurm") as slurm:
        started = time.monotonic()
        job = slurm.submit(folder, str(slide), "--output", str(output), *OPTIONS)
        job.wait_until(lambda: len(markers(output)) >= blocks // 3)
        job.requeue()
        before, requeued = markers(output), time.monotonic()
        job.wait_for("COMPLETED")
        ended = time.monotonic()
    after = markers(output)
    kept = sum(after.get(name) == written for name, written in before.items())
    return {
        "blocks": blocks,
        "blocks before the requeue": len(before),
        "blocks after the requeue": len(after) - kept,
        "blocks computed twice": len(before) - kept,
        "seconds until the requeue": round(requeued - started, 1),
        "seconds after the requeue": round(ended - requeued, 1),
        "seconds undisturbed": whole,
        "status --verify": sound(output),
        "same as undisturbed": arrays(output) == arrays(folder / "whole.ome.zarr"),
    }


@dataclass(frozen=True)
class Slurm:
    """A running SLURM.

    Attributes:
        environment: environment variables with which commands find it.
    """

    environment: dict[str, str]

    def call(self, *command: str, folder: Path | None = None, **environment: str) -> str:
        """Return the output of a command.

        Raises:
            subprocess.CalledProcessError: if it fails.
        """
        done = subprocess.run(
            command,
            env=self.environment | environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def submit(self, folder: Path, *arguments: str, workers: int = WORKERS, **env: str) -> Job:
        """Submit the recipe.

        Args:
            folder: folder for its log and its scheduler's files.
            arguments: arguments of `wsi-unet segment`.
            workers: number of worker processes.
            env: environment variables of the job.
        """
        command = ["sbatch", "--parsable", f"--ntasks={workers}", "--time=30"]
        command += [str(HERE / "segment.sbatch"), *arguments]
        return Job(self, self.call(*command, folder=folder, **env), folder)


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    slurm: Slurm
    number: str
    folder: Path

    def field(self, name: str) -> str:
        """Return a field of SLURM's record of the job, such as "JobState"."""
        fields = self.slurm.call("scontrol", "show", "job", "--oneliner", self.number).split()
        return dict(word.partition("=")[::2] for word in fields)[name]

    def log(self) -> str:
        """Return the output of the job, of all its starts together."""
        return (self.folder / f"wsi-unet-{self.number}.log").read_text(encoding="utf-8")

    def requeue(self) -> None:
        """Put the job back into the queue and wait until it has left the node."""
        restarts = self.field("Restarts")
        self.slurm.call("scontrol", "requeue", self.number)
        self.wait_until(lambda: self.field("Restarts") != restarts)

    def wait_for(self, state: str) -> None:
        """Wait until the job is in a state.

        Raises:
            RuntimeError: if it ends in another, or doesn't get there in time.
        """
        self.wait_until(lambda: self.field("JobState") == state)

    def wait_until(self, reached: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until a condition holds.

        Raises:
            RuntimeError: if it doesn't in time, or the job has ended first.
        """
        end = time.monotonic() + seconds
        while not reached():
            state = self.field("JobState")
            going = state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")
            if (not going or time.monotonic() > end) and not reached():
                raise RuntimeError(f"the job is {state}:\n{self.log()}")
            time.sleep(0.1)


@contextmanager
def one_node(folder: Path) -> Iterator[Slurm]:
    """Run a SLURM of our own in an empty folder inside.

    Raises:
        subprocess.CalledProcessError: if it doesn't start.
    """
    script = str(HERE / "one_node.sh")
    subprocess.run([script, "start", str(folder)], check=True)
    try:
        path = f"{PROGRAMS}:{os.environ['PATH']}"
        yield Slurm({**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")})
    finally:
        subprocess.run([script, "stop", str(folder)], check=True)


def undisturbed(slide: Path, output: Path, *options: str) -> tuple[int, float]:
    """Segment `slide` without SLURM; return how many blocks and seconds that took."""
    command = [str(PROGRAMS / "wsi-unet"), "segment", str(slide), "--output", str(output)]
    command += [*options, f"--workers={WORKERS}", "--json"]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    blocks = json.loads(done.stdout)["slides"][0]["blocks"]["total"]
    return blocks, round(time.monotonic() - started, 1)


def sound(output: Path) -> bool:
    """Return whether an output is finished and every byte is intact."""
    command = [str(PROGRAMS / "wsi-unet"), "status", str(output), "--verify"]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def markers(output: Path) -> dict[str, int]:
    """Return when each block of the labels was marked done, in nanoseconds."""
    folder = output / ".wsi_unet" / "nuclei-he" / "blocks"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def arrays(output: Path) -> dict[str, str]:
    """Return the hash of every file of every array, whatever the level."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.rglob("*")
        if path.is_file() and any(part.isdecimal() for part in path.relative_to(output).parts)
    }


if __name__ == "__main__":
    sys.exit(main())
