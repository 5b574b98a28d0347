"""Running a block idempotently: its result is the same however often and wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import getpid
from socket import gethostname
from time import perf_counter, time
from typing import Protocol

from wsi_unet.errors import BlockError, OutputError, describe_error
from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.progress import (
    BlockMarker,
    MarkedBoxes,
    Progress,
    RunRecord,
    ShardRecord,
)


@dataclass
class Stopwatch:
    """A stopwatch for several activities.

    Attributes:
        seconds: time spent so far on each activity, by name, as `BlockMarker.seconds` stores it.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time spent in the context to the activity `name`."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(name, perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add `seconds` to the activity `name`."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


@dataclass(frozen=True)
class WrittenBlock:
    """A block whose shards are stored.

    Attributes:
        shards: every shard that the block owns, by key.
        counts: pixels per label value at level 0.
        predicted: pixels at level 0 that were predicted (tissue inside the regions).
    """

    shards: dict[str, ShardRecord]
    counts: tuple[int, ...] = ()
    predicted: int = 0


class BlockRunner(Protocol):
    """What a process holds open to run the blocks of one array."""

    def run(self, index: BlockIndex, attempt: int) -> BlockMarker:
        """Compute and store one block and mark it done; a block that is marked is left alone.

        Args:
            index: the block.
            attempt: 1 for the first try.

        Raises:
            BlockError: anything fails; the message names the slide and the block.
        """

    def close(self) -> None:
        """Close what is held open."""


def check_current(progress: Progress, signature: str) -> RunRecord:
    """Return the record of the present run, to refuse storing pixels that are no longer wanted.

    A task can outlive its run: its client was killed, and another run was started on the same
    output.

    Raises:
        OutputError: another run has replaced the one with `signature`.
    """
    record = progress.read_run()
    if record is None or record.signature != signature:
        raise OutputError(f"another run of {progress.name!r} has replaced this one")
    return record


def run_once(
    progress: Progress,
    signature: str,
    index: BlockIndex,
    attempt: int,
    name: str,
    work: Callable[[Stopwatch], WrittenBlock],
    boxes: MarkedBoxes,
) -> BlockMarker:
    """Do `work` and mark the block done; a block that is marked already is left alone.

    Args:
        progress: the run's progress files, which hold the markers.
        signature: the run's signature.
        index: the block.
        attempt: 1 for the first try.
        name: name of the array, for the error message.
        work: computes the block and writes its shards.
        boxes: what of the block it computes; a marker of other boxes doesn't count.

    Raises:
        BlockError: `work` fails in any way; the message names the block.
    """
    done = progress.read_marker(index, signature)
    if done is not None and done.boxes == boxes and progress.shards_exist(done):
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
            boxes=boxes,
            shards=written.shards,
        )
        progress.write_marker(marker)
    # A reader, a codec or a device may raise anything; whatever it is, it belongs to this block.
    except Exception as error:
        raise BlockError(f"{name}, block {index[0]}.{index[1]}: {describe_error(error)}") from error
    return marker
