"""Batches of samples, made by other processes.

The batch of iteration t is samples t·n to t·n + n − 1, whoever makes it: the number of processes
changes nothing, and a training that is resumed begins in the middle without a trace.

Where the network has cores or a GPU of its own, batches are made while it learns. Where it has not,
they take turns: a network on as many threads as there are cores waits in every layer for the thread
that shares its core with somebody (docs/performance.md).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from wsi_unet.errors import TrainingError, first_line
from wsi_unet.models.running.devices import cpu_threads

if TYPE_CHECKING:
    from wsi_unet.training.samples.samples import Sample, Sides

SAMPLES_AHEAD = 2
"""Samples that each process has before it, where batches are made ahead."""

START_METHOD = "forkserver"
"""Never a fork of this process: its threads (PyTorch's, a bucket's client) don't survive one."""


class SampleSource(Protocol):
    """Samples by number; sent to other processes."""

    @property
    def channels(self) -> int:
        """Of the images."""

    @property
    def sides(self) -> Sides:
        """Of images and labels."""

    def __getitem__(self, number: int) -> Sample:
        """Return a sample, the same whenever it is asked for."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one iteration.

    Attributes:
        images: float32 (n, c, H, W), channels last in memory.
        labels: (n, h, w), uint8 on the way and int64 on the device.
        weights: float32 (n, h, w).
        where: of each sample, for messages.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor
    where: tuple[str, ...]

    def to(self, device: str) -> Batch:
        """Return it on a device, with labels as losses want them."""
        images, labels, weights = (
            tensor.to(device) for tensor in (self.images, self.labels, self.weights)
        )
        return Batch(images, labels.long(), weights, self.where)

    def one(self, index: int) -> Batch:
        """Return one of its samples alone."""
        part = slice(index, index + 1)
        return Batch(self.images[part], self.labels[part], self.weights[part], self.where[part])


@dataclass(frozen=True, eq=False)
class _Slot:
    """Memory for a batch, which processes can share; `Batch` has what the tensors are."""

    images: Tensor
    labels: Tensor
    weights: Tensor

    @classmethod
    def for_(cls, samples: SampleSource, size: int) -> _Slot:
        """Return one for `size` samples."""
        image, labels = samples.sides.image, samples.sides.labels
        return cls(
            images=torch.zeros(size, image, image, samples.channels).permute(0, 3, 1, 2),
            labels=torch.zeros(size, labels, labels, dtype=torch.uint8),
            weights=torch.zeros(size, labels, labels),
        )

    def shared(self) -> _Slot:
        """Return it in memory that stays one when it is sent to other processes."""
        for tensor in (self.images, self.labels, self.weights):
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        return self

    def put(self, place: int, sample: Sample) -> str:
        """Put a sample into its place, and return where it is from."""
        self.images[place] = sample.image
        self.labels[place] = sample.labels
        self.weights[place] = sample.weights
        return sample.where

    def batch(self, where: Sequence[str]) -> Batch:
        """Return the samples that are there."""
        return Batch(self.images, self.labels, self.weights, tuple(where))


class BatchStream:
    """Batches in order, and how long they were waited for.

    Attributes:
        seconds_waited: for the last one.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.seconds_waited = 0.0
        self._batches = batches

    def next(self) -> Batch:
        """Return the next batch; the last one's memory may be used for others from now on.

        Raises:
            WsiUnetError: if it can't be made.
            TrainingError: if the process that was to make it has ended.
        """
        start = time.perf_counter()
        try:
            batch = next(self._batches)
        except BrokenProcessPool as error:
            raise TrainingError(
                "a process that makes samples has ended: out of memory? Try fewer --workers, or 0"
            ) from error
        self.seconds_waited = time.perf_counter() - start
        return batch


@contextmanager
def making_batches(
    samples: SampleSource,
    *,
    size: int,
    iterations: range,
    workers: int,
    ahead: bool,
) -> Iterator[BatchStream]:
    """Make batches inside, in other processes, which end with it.

    Args:
        samples: where they come from.
        size: samples per batch.
        iterations: whose batches are made, one after the other.
        workers: processes; 0: they are made here, when they are asked for.
        ahead: whether processes make batches before they are asked for, too.

    Raises:
        TrainingError: if there is too little shared memory.
    """
    if not workers:
        yield BatchStream(_made_here(samples, _Slot.for_(samples, size), iterations))
        return
    context = multiprocessing.get_context(START_METHOD)
    context.set_forkserver_preload([__name__, "wsi_unet.training.samples.samples"])
    count = 1 + (1 + workers * SAMPLES_AHEAD // size if ahead else 0)
    try:
        slots = [_Slot.for_(samples, size).shared() for _ in range(count)]
    except RuntimeError as error:
        raise TrainingError(
            f"too little shared memory (/dev/shm) to pass on samples ({first_line(error)}); give "
            "the container more, or use --workers 0"
        ) from error
    pool = ProcessPoolExecutor(workers, context, _begin, (samples, slots))
    try:
        yield BatchStream(_made_by(pool, slots, iterations))
    finally:
        pool.shutdown(cancel_futures=True)


def _made_here(samples: SampleSource, slot: _Slot, iterations: range) -> Iterator[Batch]:
    size = len(slot.images)
    for iteration in iterations:
        with cpu_threads(1):  # as in other processes, for samples that are the same to the last bit
            where = [slot.put(i, samples[iteration * size + i]) for i in range(size)]
        yield slot.batch(where)


def _made_by(pool: ProcessPoolExecutor, slots: list[_Slot], iterations: range) -> Iterator[Batch]:
    """Have a batch made for all slots but that of the one that the network has."""
    size, begun = len(slots[0].images), iter(iterations)
    coming: deque[list[Future[str]]] = deque()
    for iteration in iterations:
        while len(coming) < len(slots) and (other := next(begun, None)) is not None:
            at = other % len(slots)
            coming.append([pool.submit(_make, other * size + i, at, i) for i in range(size)])
        where = [one.result() for one in coming.popleft()]
        yield slots[iteration % len(slots)].batch(where)


_samples: SampleSource
_slots: list[_Slot]
"""What a process makes, and where it puts it."""


def _begin(samples: SampleSource, slots: list[_Slot]) -> None:
    """Get a process ready."""
    global _samples, _slots
    _samples, _slots = samples, slots
    torch.set_num_threads(1)
    _end_with_the_parent()


def _make(number: int, slot: int, place: int) -> str:
    return _slots[slot].put(place, _samples[number])


def _end_with_the_parent() -> None:
    """End when the parent ends, however it does, and not before: it decides about a Ctrl-C.

    Nobody else sees to it: this process was started by the fork server.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to all processes
    sys.excepthook = _show_unless_parted


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _show_unless_parted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Show an error, unless it is that the parent stopped in the midst of fetching a batch."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
