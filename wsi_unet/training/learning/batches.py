"""Batches of samples, made by other processes while the network learns.

The batch of iteration t is samples t·n to t·n + n − 1, whoever makes it: the number of processes
changes nothing, and a training that is resumed begins in the middle without a trace.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsi_unet.errors import TrainingError, WsiUnetError, first_line
from wsi_unet.models.running.devices import cpu_threads

if TYPE_CHECKING:
    from wsi_unet.training.samples.samples import Sample

AHEAD = 4
"""Batches that each process makes ahead of the network."""

START_METHOD = "forkserver"
"""Never a fork of this process: its threads (PyTorch's, a bucket's client) don't survive one."""


class SampleSource(Protocol):
    """Samples by number; sent to other processes."""

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

    @classmethod
    def of(cls, samples: list[Sample]) -> Batch:
        """Put samples of one size together."""
        images = torch.stack([sample.image for sample in samples])
        return cls(
            images=images.contiguous(memory_format=torch.channels_last),
            labels=torch.stack([sample.labels.to(torch.uint8) for sample in samples]),
            weights=torch.stack([sample.weights for sample in samples]),
            where=tuple(sample.where for sample in samples),
        )

    def pin_memory(self) -> Batch:
        """Return it in page-locked memory, from where a GPU fetches it by itself."""
        images, labels, weights = (
            tensor.pin_memory() for tensor in (self.images, self.labels, self.weights)
        )
        return Batch(images, labels, weights, self.where)

    def to(self, device: str) -> Batch:
        """Return it on a device, with labels as losses want them."""
        images, labels, weights = (
            tensor.to(device, non_blocking=True)
            for tensor in (self.images, self.labels, self.weights)
        )
        return Batch(images, labels.long(), weights, self.where)

    def one(self, index: int) -> Batch:
        """Return one of its samples alone."""
        part = slice(index, index + 1)
        return Batch(self.images[part], self.labels[part], self.weights[part], self.where[part])


class _Batches(Dataset["Batch | WsiUnetError"]):
    """All batches by iteration; what couldn't be made is its error, which travels as it is."""

    def __init__(self, samples: SampleSource, size: int) -> None:
        self._samples = samples
        self._size = size

    def __getitem__(self, iteration: int) -> Batch | WsiUnetError:
        first = iteration * self._size
        try:
            return Batch.of([self._samples[first + i] for i in range(self._size)])
        except WsiUnetError as error:
            return error


class BatchStream:
    """Batches in order, and how long they were waited for.

    Attributes:
        seconds_waited: for the last one.
    """

    def __init__(self, batches: Iterator[Batch | WsiUnetError]) -> None:
        self.seconds_waited = 0.0
        self._batches: Iterator[Batch | WsiUnetError] = batches

    def close(self) -> None:
        """End the processes, which they do with the last reference."""
        self._batches = iter(())

    def next(self) -> Batch:
        """Return the next batch.

        Raises:
            WsiUnetError: if it can't be made.
            TrainingError: if the process that was to make it has ended, or can't send it.
        """
        start = time.perf_counter()
        try:
            # As in the other processes, so that it makes the same samples to the last bit.
            with cpu_threads(1):
                batch = next(self._batches)
        except RuntimeError as error:
            raise _explained(error) from error
        self.seconds_waited = time.perf_counter() - start
        if isinstance(batch, WsiUnetError):
            raise batch
        return batch


@contextmanager
def making_batches(
    samples: SampleSource,
    *,
    size: int,
    first: int,
    last: int,
    workers: int,
    pinned: bool,
) -> Iterator[BatchStream]:
    """Make batches inside, in other processes, which end with it.

    Args:
        samples: where they come from.
        size: samples per batch.
        first: iteration of the first batch.
        last: iteration after the last one.
        workers: processes; 0: they are made here, when they are asked for.
        pinned: whether they go to a GPU.
    """
    if workers:
        context = multiprocessing.get_context(START_METHOD)
        context.set_forkserver_preload([__name__, "wsi_unet.training.samples.samples"])
    with warnings.catch_warnings():
        # of more processes than cores, which is for whoever asks for them to know
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader: DataLoader[Batch | WsiUnetError] = DataLoader(
            _Batches(samples, size),
            batch_size=None,
            sampler=range(first, last),
            num_workers=workers,
            pin_memory=pinned,
            multiprocessing_context=START_METHOD if workers else None,
            prefetch_factor=AHEAD if workers else None,
            worker_init_fn=_end_with_the_parent,
            generator=torch.Generator(),
        )
        stream = BatchStream(iter(loader))
    try:
        yield stream
    finally:
        stream.close()


def _explained(error: RuntimeError) -> Exception:
    """Return what a person can do something about, if PyTorch's error is of that kind."""
    text = str(error)
    if "exited unexpectedly" in text or "killed by signal" in text:
        return TrainingError(
            f"a process that makes samples has ended ({first_line(error)}): out of memory? "
            "Try fewer --workers, or 0"
        )
    if "No space left on device" in text:
        return TrainingError(
            "there is too little shared memory (/dev/shm) to pass on samples; give the container "
            "more, or try fewer --workers, or 0"
        )
    return error


def _end_with_the_parent(number: int) -> None:
    """End when the parent ends, however it does, and not before: it decides about a Ctrl-C.

    PyTorch's own watch looks at who started this process, which is the fork server.
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
