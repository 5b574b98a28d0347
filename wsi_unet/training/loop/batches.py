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
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from wsi_unet.errors import TrainingError, first_line
from wsi_unet.models.inference.devices import cpu_threads
from wsi_unet.signals import interrupts_blocked

if TYPE_CHECKING:
    from wsi_unet.training.augmentation.samples import Sample, SampleSides

SAMPLES_AHEAD = 2
"""Samples that each process has before it, where batches are made ahead."""


class SampleSource(Protocol):
    """Samples by number; sent to other processes."""

    @property
    def channels(self) -> int:
        """Of the images."""

    @property
    def sides(self) -> SampleSides:
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
class _Slots:
    """Memory for some batches, which processes can share.

    Attributes:
        images: float32 (slots, n, c, H, W), channels last in memory.
        labels: uint8 (slots, n, h, w).
        weights: float32 (slots, n, h, w).
    """

    images: Tensor
    labels: Tensor
    weights: Tensor

    @classmethod
    def for_batches(cls, samples: SampleSource, size: int, count: int = 1) -> _Slots:
        """Return memory for `count` batches of `size` samples."""
        image, labels = samples.sides.image, samples.sides.labels
        images = torch.zeros(count, size, image, image, samples.channels)
        return cls(
            images=images.permute(0, 1, 4, 2, 3),
            labels=torch.zeros(count, size, labels, labels, dtype=torch.uint8),
            weights=torch.zeros(count, size, labels, labels),
        )

    def share(self) -> None:
        """Move it to where it stays one when it is sent to other processes."""
        for tensor in (self.images, self.labels, self.weights):
            tensor.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Samples of a batch."""
        return self.images.shape[1]

    def put(self, slot: int, place: int, sample: Sample) -> str:
        """Put a sample into a batch, and return where it is from."""
        self.images[slot, place] = sample.image
        self.labels[slot, place] = sample.labels
        self.weights[slot, place] = sample.weights
        return sample.where

    def batch(self, slot: int, where: Sequence[str]) -> Batch:
        """Return the batch that is there."""
        return Batch(self.images[slot], self.labels[slot], self.weights[slot], tuple(where))


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
        yield BatchStream(_made_here(samples, _Slots.for_batches(samples, size), iterations))
        return
    slots = _Slots.for_batches(samples, size, 2 + workers * SAMPLES_AHEAD // size if ahead else 1)
    try:
        slots.share()
    except RuntimeError as error:
        raise TrainingError(
            f"too little shared memory (/dev/shm) to pass on samples ({first_line(error)}); give "
            "the container more, or use --workers 0"
        ) from error
    # Never a fork of this process: its threads (PyTorch's, a bucket's client) don't survive one.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "wsi_unet.training.augmentation.samples"])
    over, open_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (samples, slots, over))
    try:
        with interrupts_blocked():
            forkserver.ensure_running()
            for _ in range(workers):
                pool.submit(_start)
        yield BatchStream(_made_by(pool, slots, iterations))
    finally:
        open_end.close()  # a sample that is half made would be waited for, however long it takes
        pool.shutdown(cancel_futures=True)
        over.close()


def _made_here(samples: SampleSource, slots: _Slots, iterations: range) -> Iterator[Batch]:
    for iteration in iterations:
        first = iteration * slots.size
        with cpu_threads(1):  # as in other processes, for samples that are the same to the last bit
            where = [slots.put(0, i, samples[first + i]) for i in range(slots.size)]
        yield slots.batch(0, where)


def _made_by(pool: ProcessPoolExecutor, slots: _Slots, iterations: range) -> Iterator[Batch]:
    """Have a batch made for all slots but that of the one that the network has."""
    begun = iter(iterations)
    coming: deque[list[Future[str]]] = deque()
    for iteration in iterations:
        while len(coming) < len(slots) and (other := next(begun, None)) is not None:
            slot, first = other % len(slots), other * slots.size
            coming.append([pool.submit(_make, first + i, slot, i) for i in range(slots.size)])
        where = [one.result() for one in coming.popleft()]
        yield slots.batch(iteration % len(slots), where)


# A process of a pool is given its tasks alone, so what they are about is the process's.
_samples: SampleSource
_slots: _Slots


def _begin(samples: SampleSource, slots: _Slots, over: Connection) -> None:
    """Get a process ready."""
    global _samples, _slots
    _samples, _slots = samples, slots
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # should somebody else have begun the fork server
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent, over), daemon=True).start()


def _end_after(parent: BaseProcess, over: Connection) -> None:
    """End at once when the parent ends, however it does, or has done with it."""
    connection.wait([parent.sentinel, over])
    os._exit(0)


def _start() -> None:
    """Do nothing but start: one whose start was interrupted, a pool would forget."""


def _make(number: int, slot: int, place: int) -> str:
    try:
        return _slots.put(slot, place, _samples[number])
    except BaseException as error:
        told = _portable(error)
    raise told  # out here, without the other as its context: Dask lets exceptions take theirs along


def _portable(error: BaseException) -> Exception:
    """Return an error that arrives where it is sent: not all can be, and some end who gets them."""
    if isinstance(error, Exception):
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever its class does
            pass
        else:
            return error
    return RuntimeError("".join(traceback.format_exception(error)))
