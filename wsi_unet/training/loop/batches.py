"""Batches of samples, made by other processes.

The batch of iteration t holds samples t·n to t·n + n − 1, whichever process makes them: the number
of processes changes nothing, and a resumed training gets the same batches.

If the network has cores or a GPU of its own, batches are made while it learns. If not, making
batches and learning take turns: a network that uses all cores would wait, in every layer, for the
thread whose core another process is using (docs/explanation/performance.md).
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
from wsi_unet.signals import interruptions_kept_from_children

if TYPE_CHECKING:
    from wsi_unet.training.augmentation.samples import Sample, SampleSides

SAMPLES_AHEAD = 2
"""Samples queued for each process, if batches are made ahead."""


class SampleSource(Protocol):
    """Samples by number; picklable, since other processes make them."""

    @property
    def channels(self) -> int:
        """Channels of the images."""

    @property
    def sides(self) -> SampleSides:
        """Sides of images and labels, px."""

    def __getitem__(self, number: int) -> Sample:
        """Return a sample; the same number always gives the same sample."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one iteration.

    Attributes:
        images: float32 (n, c, H, W), channels last in memory.
        labels: (n, h, w), uint8 when made and int64 on the device.
        weights: float32 (n, h, w).
        where: field and position of each sample, for messages.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor
    where: tuple[str, ...]

    def to(self, device: str) -> Batch:
        """Return the batch on a device, with labels of the type that losses need."""
        images, labels, weights = (
            tensor.to(device) for tensor in (self.images, self.labels, self.weights)
        )
        return Batch(images, labels.long(), weights, self.where)

    def single(self, index: int) -> Batch:
        """Return a batch of one of the samples."""
        only = slice(index, index + 1)
        return Batch(self.images[only], self.labels[only], self.weights[only], self.where[only])


@dataclass(frozen=True, eq=False)
class _Slots:
    """Memory for several batches, which processes can share.

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
        """Move the memory to where other processes share it instead of getting a copy."""
        for tensor in (self.images, self.labels, self.weights):
            tensor.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Samples per batch."""
        return self.images.shape[1]

    def put(self, slot: int, index: int, sample: Sample) -> str:
        """Store a sample of a batch, and return its field and position."""
        self.images[slot, index] = sample.image
        self.labels[slot, index] = sample.labels
        self.weights[slot, index] = sample.weights
        return sample.where

    def batch(self, slot: int, where: Sequence[str]) -> Batch:
        """Return the batch in a slot; it shares the slot's memory."""
        return Batch(self.images[slot], self.labels[slot], self.weights[slot], tuple(where))


class BatchStream:
    """Batches in order, timed.

    Attributes:
        seconds_waited: time spent waiting for the last batch.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.seconds_waited = 0.0
        self._batches = batches

    def next(self) -> Batch:
        """Return the next batch; the memory of the previous one may be reused from now on.

        Raises:
            WsiUnetError: if the batch can't be made.
            TrainingError: if a process that makes samples has died.
        """
        start = time.perf_counter()
        try:
            batch = next(self._batches)
        except BrokenProcessPool as error:
            raise TrainingError(
                "a process that makes samples has died, perhaps for lack of memory; use fewer "
                "`workers`, or `workers=0`"
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
    """Make batches inside, in other processes, which are ended afterwards.

    Args:
        samples: samples that batches are made of.
        size: samples per batch.
        iterations: iterations to make batches for, in order.
        workers: number of processes; 0: batches are made by this process, on demand.
        ahead: whether processes also make batches before they are needed.

    Raises:
        TrainingError: if there is too little shared memory.
    """
    if not workers:
        yield BatchStream(_make_on_demand(samples, _Slots.for_batches(samples, size), iterations))
        return
    slots = _Slots.for_batches(samples, size, 2 + workers * SAMPLES_AHEAD // size if ahead else 1)
    try:
        slots.share()
    except RuntimeError as error:
        raise TrainingError(
            f"too little shared memory (/dev/shm) for the samples of other processes "
            f"({first_line(error)}); give the container more, or use `workers=0`"
        ) from error
    # Never fork this process: its threads (PyTorch's, an object store's client) don't survive that.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "wsi_unet.training.augmentation.samples"])
    finished, our_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _set_up_worker, (samples, slots, finished))
    try:
        with interruptions_kept_from_children():
            forkserver.ensure_running()
            for _ in range(workers):
                pool.submit(_start_worker)
        yield BatchStream(_make_in_pool(pool, slots, iterations))
    finally:
        our_end.close()  # ends the workers at once, else the pool waits for unfinished samples
        pool.shutdown(cancel_futures=True)
        finished.close()


def _make_on_demand(samples: SampleSource, slots: _Slots, iterations: range) -> Iterator[Batch]:
    for iteration in iterations:
        first = iteration * slots.size
        with cpu_threads(1):  # as in other processes, so that samples are the same to the last bit
            where = [slots.put(0, i, samples[first + i]) for i in range(slots.size)]
        yield slots.batch(0, where)


def _make_in_pool(pool: ProcessPoolExecutor, slots: _Slots, iterations: range) -> Iterator[Batch]:
    """Yield batches, while those of the next iterations are made in all other slots."""
    to_submit = iter(iterations)
    submitted: deque[list[Future[str]]] = deque()
    for iteration in iterations:
        while len(submitted) < len(slots) and (later := next(to_submit, None)) is not None:
            slot, first = later % len(slots), later * slots.size
            submitted.append(
                [pool.submit(_make_sample, first + i, slot, i) for i in range(slots.size)]
            )
        where = [future.result() for future in submitted.popleft()]
        yield slots.batch(iteration % len(slots), where)


# The samples and slots of a worker process: too large to be sent with each task.
_samples: SampleSource
_slots: _Slots


def _set_up_worker(samples: SampleSource, slots: _Slots, finished: Connection) -> None:
    global _samples, _slots
    _samples, _slots = samples, slots
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGHUP):  # the fork server may be somebody else's
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent, finished), daemon=True).start()


def _exit_with(parent: BaseProcess, finished: Connection) -> None:
    """Exit at once when the parent ends, in whatever way, or closes its end of the pipe."""
    connection.wait([parent.sentinel, finished])
    os._exit(0)


def _start_worker() -> None:
    """Do nothing: submitting this makes the pool start a process while interrupts are blocked."""


def _make_sample(number: int, slot: int, index: int) -> str:
    try:
        return _slots.put(slot, index, _samples[number])
    except BaseException as error:
        raised = _make_picklable(error)
    raise raised  # not inside `except`: the context would be pickled too, where Dask is imported


def _make_picklable(error: BaseException) -> Exception:
    """Return an error that can be sent to another process: this one, or one with its text.

    Some errors can't be pickled; some can't be unpickled, and would kill the receiving process.
    """
    if isinstance(error, Exception):
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever its class does
            pass
        else:
            return error
    return RuntimeError("".join(traceback.format_exception(error)))
