"""Doing a block exactly once as far as anyone can see, however often it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import getpid
from socket import gethostname
from time import perf_counter, time
from typing import Protocol

from wsi_unet.errors import BlockError, OutputError
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.progress import BlockMarker, Progress, ShardRecord


@dataclass
class Stopwatch:
    """Seconds spent by name; what `BlockMarker.seconds` holds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time spent inside the `with` block to `name`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(name, perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add `seconds` to `name`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


@dataclass(frozen=True)
class WrittenBlock:
    """What storing a block left behind.

    Attributes:
        shards: every shard the block owns, by key.
        counts: pixels per label value at level 0.
        predicted: pixels at level 0 that were predicted (inside the tissue mask).
    """

    shards: dict[str, ShardRecord]
    counts: tuple[int, ...] = ()
    predicted: int = 0


class BlockRunner(Protocol):
    """The blocks of one array that a process can run."""

    def run(self, index: BlockIndex, attempt: int) -> BlockMarker:
        """Compute and store one block, unless it is marked done."""

    def close(self) -> None:
        """Give back what it holds open."""


def check_current(progress: Progress, signature: str) -> None:
    """Make sure, before pixels are stored, that they are still wanted.

    A task can outlive its run: its client was killed, and another run has begun at the same
    output.

    Raises:
        OutputError: if another run has taken the place of the one with `signature`.
    """
    record = progress.read_run()
    if record is None or record.signature != signature:
        raise OutputError(f"another run of {progress.name!r} has taken this one's place")


def run_once(
    progress: Progress,
    signature: str,
    index: BlockIndex,
    attempt: int,
    name: str,
    work: Callable[[Stopwatch], WrittenBlock],
) -> BlockMarker:
    """Do `work` and mark the block done; a block that is marked already is left alone.

    Args:
        progress: where the markers are.
        signature: of the run.
        index: the block.
        attempt: 1 for the first try.
        name: of the array, for the error message.
        work: computes the block and writes its shards.

    Raises:
        BlockError: if `work` fails in any way; the message names the block.
    """
    done = progress.read_marker(index, signature)
    if done is not None and progress.shards_exist(done):
        return done
    clock = Stopwatch()
    try:
        written = work(clock)
        marker = BlockMarker(
            block=index,
            signature=signature,
            counts=written.counts,
            predicted=written.predicted,
            seconds=clock.seconds,
            attempts=attempt,
            ended=round(time(), 3),
            worker=f"{gethostname()}:{getpid()}",
            shards=written.shards,
        )
        progress.write_marker(marker)
    # A reader, a codec or a device may raise anything; whatever it is, it belongs to this block.
    except Exception as error:
        reason = str(error).partition("\n")[0] or "no message"
        raise BlockError(
            f"{name}, block {index[0]}.{index[1]}: {type(error).__name__}: {reason}"
        ) from error
    return marker
