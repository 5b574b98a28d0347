"""Pixels to a device and back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Transfer(Protocol):
    """How uint8 arrays reach a device and come back."""

    def uploaded(self, array: NDArray[np.uint8]) -> AbstractContextManager[Tensor]:
        """Give the array as a tensor on the device, ready to use, while the context lasts."""

    def download(self, tensor: Tensor) -> NDArray[np.uint8]:
        """Return a tensor's values as an array of the caller's own."""


def choose_transfer(device: str) -> Transfer:
    """Return the way to `device` ("cpu" or "cuda:i")."""
    return SharedMemory() if device == "cpu" else PinnedBuffers(device)


class SharedMemory:
    """The CPU's way: nothing moves."""

    @contextmanager
    def uploaded(self, array: NDArray[np.uint8]) -> Iterator[Tensor]:
        """Give the array's own memory as a tensor."""
        # torch warns of read-only arrays; nothing here writes, but a copy is cheap and certain.
        yield torch.from_numpy(array if array.flags.writeable else array.copy())

    def download(self, tensor: Tensor) -> NDArray[np.uint8]:
        """Return the tensor's own memory as an array."""
        return tensor.numpy()


class PinnedBuffers:
    """A GPU's way: through page-locked memory that each thread reuses, on a stream of its own.

    So one thread's pixels travel while another's are computed; pinning memory anew for every
    window would cost more than it saves. Copies are complete when the methods return, therefore
    the tensors may be used on any stream.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._mine = threading.local()

    def _buffer(self, size: int) -> Tensor:
        """Return `size` bytes of pinned memory of the calling thread."""
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

    @contextmanager
    def uploaded(self, array: NDArray[np.uint8]) -> Iterator[Tensor]:
        """Copy the array to the device and wait for it."""
        pinned = self._buffer(array.size).view(array.shape)
        pinned.numpy()[...] = array
        stream = self._stream()
        with torch.cuda.stream(stream):
            tensor = pinned.to(self._device, non_blocking=True)
        stream.synchronize()
        yield tensor

    def download(self, tensor: Tensor) -> NDArray[np.uint8]:
        """Copy a tensor, whose computation is complete, from the device."""
        pinned = self._buffer(tensor.numel()).view(tensor.shape)
        stream = self._stream()
        with torch.cuda.stream(stream):
            pinned.copy_(tensor, non_blocking=True)
        stream.synchronize()
        return pinned.numpy().copy()
