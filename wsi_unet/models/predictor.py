"""Run a model on windows of a slide: uint8 in, uint8 labels out, everything between on the device.

The labels are the model's label values (`ModelSpec.label_values`), so nothing downstream needs
to know the order of the network's classes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_unet.errors import ModelError, OptionError
from wsi_unet.geometry import Box, Shape
from wsi_unet.models.checkpoint import Model
from wsi_unet.models.devices import (
    cpu_threads,
    full_float32,
    resolve_device,
    resolve_precision,
    usable_cores,
)
from wsi_unet.models.folding import fold_batch_norm
from wsi_unet.models.interpolation import Place
from wsi_unet.models.transfer import transfer_to

CPU_SLOTS = 2
"""Forwards that share a CPU, each on its part of the cores.

A forward on all cores waits, at the end of every layer, for the core that something else (reading,
writing, the next slide) has taken part of; two forwards fill each other's gaps. Measured on two
cores: see docs/performance.md.
"""

# For the process, not for each predictor: more forwards at once only fight for the same cores or
# the same memory.
_SECTIONS = {slots: threading.BoundedSemaphore(slots) for slots in (1, CPU_SLOTS)}

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, from R, G, B


@dataclass(frozen=True)
class Prediction:
    """What the network says about one core.

    Attributes:
        labels: uint8 (rows, columns), label values.
        probabilities: uint8 (classes, rows, columns), round(255 · softmax), in the order of the
            spec's classes; None unless asked for.
        seconds_busy: time in which the device computed for this; where it computes for several
            at once, this one's share of it.
        seconds_waited: time spent waiting for the device to be free.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    seconds_busy: float
    seconds_waited: float


class Predictor:
    """A model on a device. One per process and model; threads may share it.

    Args:
        model: what to run.
        device: "auto", "cpu", "cuda" or "cuda:i".
        precision: "auto", "float32", "bfloat16" or "float16". The whole network runs in it;
            batch norm is folded into the convolutions before, and logits are compared in
            float32.
        threads: cores to use on the CPU; by default all that this process may.

    Attributes:
        model: as given.
        device: as resolved.
        precision: as resolved.
        threads: as resolved.
        slots: how many forwards share the device at once.
        border: the context that a core needs.
        label_count: one more than the largest label value.

    Raises:
        ModelError: if the model has changed on disk.
        OptionError: if there is no such device or precision.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.threads = usable_cores() if threads is None else threads
        self.border = model.spec.border()
        # Told where a window lies, a network needs no windows of one size.
        self._placed = model.spec.architecture.sized and model.spec.exactness == "exact"
        self.label_count = max(model.spec.label_values) + 1
        self.slots = CPU_SLOTS if self.device == "cpu" and self.threads > 1 else 1
        self._dtype: torch.dtype = getattr(torch, self.precision)
        self._network: nn.Module = fold_batch_norm(model.build()).to(
            device=self.device,
            dtype=self._dtype,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self._transfer = transfer_to(self.device)
        scaling = model.spec.scaling
        # (v/255 − mean)/std for v from 0 to 255, as (v − 255·mean) · 1/(255·std).
        self._shift = self._tensor([255 * mean for mean in scaling.mean])
        self._factor = self._tensor([1 / (255 * std) for std in scaling.std])
        self._luma = self._tensor(_LUMA)

    def _tensor(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self.device)

    def predict(
        self,
        pixels: NDArray[np.uint8],
        window: Box,
        core: Box,
        shape: Shape,
        *,
        probabilities: bool = False,
    ) -> Prediction:
        """Label the pixels of `core`.

        Args:
            pixels: uint8 (rows, columns, 3), RGB; those of `window`, mirrored beyond the raster.
            window: which pixels those are, px of the raster; `Border.window` of the core.
            core: the wanted pixels, px of the raster.
            shape: (rows, columns) of the whole raster, px.
            probabilities: whether to return the classes' probabilities too.

        Raises:
            ValueError: if the pixels aren't such an array, the window's size doesn't fit the
                network, or the core isn't inside the output.
            OptionError: if the device's memory isn't enough for this window.
            ModelError: if the network computes something that isn't a number.
        """
        if pixels.dtype != np.uint8 or pixels.shape != (*window.shape, 3):
            raise ValueError(
                f"the pixels of {window} are uint8 {(*window.shape, 3)}, not {pixels.dtype} "
                f"{pixels.shape}"
            )
        with self._enough_memory(pixels.shape), self._transfer.uploaded(pixels) as image:
            start = time.perf_counter()
            with self._section(), torch.inference_mode():
                entered = time.perf_counter()
                logits = self._logits(image, window, core, shape)
                labels, best = _label(logits, self.model.spec.label_values)
                quantised = _quantise(logits) if probabilities else None
                finite = bool(best.isfinite().all())  # waits for the device
                left = time.perf_counter()
        if not finite:
            raise ModelError(
                f"{self.model.path} computes NaN or infinite logits in {self.precision}; "
                "try --precision float32"
            )
        return Prediction(
            self._transfer.download(labels),
            None if quantised is None else self._transfer.download(quantised),
            seconds_busy=(left - entered) / self.slots,
            seconds_waited=entered - start,
        )

    def _logits(self, image: Tensor, window: Box, core: Box, shape: Shape) -> Tensor:
        """Return float32 logits (classes, rows, columns) of the core, from uint8 (h, w, 3)."""
        scaled = self._scale(image).permute(2, 0, 1)[None]  # channels last: a view
        if self._placed:
            output = self._network(scaled, Place((window.y0, window.x0), shape))[0]
        else:
            output = self._network(scaled)[0]
        inside = self.border.core_in_output(core, window)
        rows, columns = inside.slices()
        if inside.y1 > output.shape[1] or inside.x1 > output.shape[2]:
            raise ValueError(f"{inside} is not inside the network's output {tuple(output.shape)}")
        logits: Tensor = output[:, rows, columns].float()
        return logits

    def _scale(self, image: Tensor) -> Tensor:
        """Return (h, w, channels) intensities as the network wants them, from uint8 (h, w, 3)."""
        order = self.model.spec.channel_order
        intensities = image.float()
        if order == "gray":
            intensities = (intensities * self._luma).sum(dim=2, keepdim=True)
        elif order == "bgr":
            intensities = intensities.flip(2)
        return intensities.sub_(self._shift).mul_(self._factor).to(self._dtype)

    @contextmanager
    def _section(self) -> Iterator[None]:
        """The device, or this thread's part of it, with this predictor's settings."""
        with (
            _SECTIONS[self.slots],
            full_float32(),
            cpu_threads(max(1, self.threads // self.slots)),
        ):
            yield

    @contextmanager
    def _enough_memory(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Say what helps when the device runs out of memory inside."""
        try:
            yield
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise OptionError(
                f"{self.device} has too little memory for a window of "
                f"{shape[0]}×{shape[1]} px in {self.precision}; use a smaller --tile"
            ) from error


def _label(logits: Tensor, values: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return, both (rows, columns), the label values as uint8 and the largest logits.

    The first among equals wins. Anything not a number in a pixel's logits shows in the largest.
    """
    best = logits[0]
    labels = torch.full(best.shape, values[0], dtype=torch.uint8, device=logits.device)
    for value, logit in zip(values[1:], logits[1:], strict=True):
        labels.masked_fill_(logit > best, value)
        best = torch.maximum(best, logit)
    return labels, best


def _quantise(logits: Tensor) -> Tensor:
    """Return uint8 (classes, rows, columns): softmax, 255 for certain."""
    return logits.softmax(dim=0).mul_(255).round_().to(torch.uint8).contiguous()


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator and NVIDIA's libraries raise a plain RuntimeError.
    signs = ("can't allocate memory", "_STATUS_ALLOC_FAILED", "CUDA out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)
