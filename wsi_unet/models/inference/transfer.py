"""Copying pixels to a device, and labels back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override


class Transfer(Protocol):
    """A way for uint8 arrays to reach a device and to come back."""

    def uploaded(self, array: NDArray[np.uint8]) -> AbstractContextManager[Tensor]:
        """Yield the array as a tensor on the device, ready to use while the context lasts."""

    def download(self, tensor: Tensor) -> NDArray[np.uint8]:
        """Return the values of a tensor, whose computation is complete, as a new array."""


def choose_transfer(device: str) -> Transfer:
    """Return how arrays reach `device` ("cpu" or "cuda:<index>")."""
    return SharedMemory() if device == "cpu" else PinnedBuffers(device)


class SharedMemory(Transfer):
    """The transfer to the CPU: array and tensor share their memory."""

    @override
    @contextmanager
    def uploaded(self, array: NDArray[np.uint8]) -> Iterator[Tensor]:
        # torch warns about read-only arrays; nothing here writes, but a copy is cheap and safe.
        yield torch.from_numpy(array if array.flags.writeable else array.copy())

    @override
    def download(self, tensor: Tensor) -> NDArray[np.uint8]:
        return tensor.numpy()


class PinnedBuffers(Transfer):
    """The transfer to a GPU: each thread reuses page-locked memory and a stream of its own.

    So one thread's pixels are copied while another's are computed. Locking memory again for every
    window would cost more than it saves. Copies are complete when the methods return, so the
    tensors may be used on any stream.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._mine = threading.local()

    def _buffer(self, size: int) -> Tensor:
        """Return `size` bytes of the calling thread's page-locked memory."""
        buffer: Tensor | None = getattr(self._mine, "buffer", None)
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self._mine.buffer = buffer
        return buffer[:size]

    def _stream(self) -> torch.cuda.Stream:
        stream: torch.cuda.Stream | None = getattr(self._mine, "stream", None)
        if stream is None:
            stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._mine.stream = stream
        return stream

    @override
    @contextmanager
    def uploaded(self, array: NDArray[np.uint8]) -> Iterator[Tensor]:
        pinned = self._buffer(array.size).view(array.shape)
        pinned.numpy()[...] = array
        stream = self._stream()
        with torch.cuda.stream(stream):
            tensor = pinned.to(self._device, non_blocking=True)
        stream.synchronize()
        yield tensor

    @override
    def download(self, tensor: Tensor) -> NDArray[np.uint8]:
        pinned = self._buffer(tensor.numel()).view(tensor.shape)
        stream = self._stream()
        with torch.cuda.stream(stream):
            pinned.copy_(tensor, non_blocking=True)
        stream.synchronize()
        return pinned.numpy().copy()
