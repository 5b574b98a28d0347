"""Run a model on windows of a slide: uint8 in, uint8 labels out, everything between on the device.

The labels are the model's label values (`ModelSpec.label_values`), so nothing downstream needs
to know the order of the network's classes. Several models, or several views of a window, are
averaged here too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_unet.cores import usable_cores
from wsi_unet.errors import ModelError, OptionError
from wsi_unet.geometry import Box, Shape
from wsi_unet.models.checkpoint import Model
from wsi_unet.models.inference.devices import (
    cpu_threads,
    full_float32,
    is_out_of_memory,
    resolve_device,
    resolve_precision,
)
from wsi_unet.models.inference.ensemble import Ensemble, IntensityStatistics, find_member_boxes
from wsi_unet.models.inference.forward import Forward
from wsi_unet.models.inference.heads import quantise
from wsi_unet.models.inference.transfer import choose_transfer

CPU_SLOTS = 2
"""Forwards that share a CPU, each on its part of the cores.

A forward on all cores waits, at the end of every layer, for the core that something else (reading,
writing, the next slide) has taken part of; two forwards fill each other's gaps. Measured on two
cores: see docs/performance.md.
"""

# For the process, not for each predictor: more forwards at once only fight for the same cores or
# the same memory.
_SECTIONS = {slots: threading.BoundedSemaphore(slots) for slots in (1, CPU_SLOTS)}


@dataclass(frozen=True)
class Prediction:
    """What the network says about one core.

    Attributes:
        labels: uint8 (label images, rows, columns), label values; one image, or one for each
            class of a multi-label model (see `wsi_unet.models.inference.label_groups`).
        probabilities: uint8 (classes, rows, columns), round(255 · probability), in the order of
            the spec's classes; None unless asked for.
        seconds_busy: time in which the device computed for this; where it computes for several
            at once, this one's share of it.
        seconds_waited: time spent waiting for the device to be free.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    seconds_busy: float
    seconds_waited: float


class Predictor:
    """A model, or several, on a device. One per process and model; threads may share it.

    Args:
        model: what to run.
        device: "auto", "cpu", "cuda" or "cuda:i".
        precision: "auto", "float32", "bfloat16" or "float16". The whole network runs in it;
            batch norm is folded into the convolutions before, and outputs are compared in
            float32.
        threads: cores to use on the CPU; by default all that this process may.

    Attributes:
        ensemble: what is run.
        device: as resolved.
        precision: as resolved.
        threads: as resolved.
        slots: how many forwards share the device at once.
        border: the context that a core needs.
        label_images: how many label images it gives.
        label_count: one more than the largest label value.
        classes: how many there are.
        forwards: each model on the device.

    Raises:
        ModelError: if a model has changed on disk.
        OptionError: if there is no such device or precision.
    """

    def __init__(
        self,
        model: Model | Ensemble,
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.ensemble = model if isinstance(model, Ensemble) else Ensemble((model,))
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device, self.ensemble.precisions)
        self.threads = usable_cores() if threads is None else threads
        self.border = self.ensemble.border()
        self.label_images = len(self.ensemble.groups)
        self.label_count = self.ensemble.label_count
        self.classes = len(self.ensemble.spec.classes)
        self.slots = CPU_SLOTS if self.device == "cpu" and self.threads > 1 else 1
        dtype: torch.dtype = getattr(torch, self.precision)
        share = max(1, self.threads // self.slots)
        self.forwards = [Forward(m, self.device, dtype, share) for m in self.ensemble.members]
        self._head = self.forwards[0].head
        self._transfer = choose_transfer(self.device)

    def predict(
        self,
        pixels: NDArray[np.uint8],
        window: Box,
        core: Box,
        shape: Shape,
        *,
        probabilities: bool = False,
        statistics: tuple[IntensityStatistics, ...] = (),
    ) -> Prediction:
        """Label the pixels of `core`.

        Args:
            pixels: uint8 (rows, columns, 3), RGB; those of `window`, mirrored beyond the raster.
            window: which pixels those are, px of the raster; `Border.window` of the core.
            core: the wanted pixels, px of the raster; of several models, those beyond the raster
                are left out.
            shape: (rows, columns) of the whole raster, px.
            probabilities: whether to return the classes' probabilities too.
            statistics: what each model's intensities are scaled with; () is their own constants.

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
                scores, sum_of_all = self._scores(image, window, core, shape, statistics)
                labels = self._head.labels(scores)
                quantised = quantise(self._probabilities(scores)) if probabilities else None
                finite = bool(sum_of_all.isfinite())  # waits for the device
                left = time.perf_counter()
        if not finite:
            paths = ", ".join(str(model.path) for model in self.ensemble.models)
            raise ModelError(
                f"{paths} computes NaN or infinite numbers in {self.precision}; "
                "try --precision float32"
            )
        return Prediction(
            self._transfer.download(labels),
            None if quantised is None else self._transfer.download(quantised),
            seconds_busy=(left - entered) / self.slots,
            seconds_waited=entered - start,
        )

    def _scores(
        self,
        image: Tensor,
        window: Box,
        core: Box,
        shape: Shape,
        statistics: tuple[IntensityStatistics, ...],
    ) -> tuple[Tensor, Tensor]:
        """Return what labels are decided on (classes, rows, columns), and the sum of all outputs.

        Of several forwards that is the mean of their probabilities. Whatever isn't a number in an
        output shows in the sum.
        """
        outputs = self._outputs(image, window, core, shape, statistics)
        forward, first = next(outputs)
        scores, sum_of_all = forward.head.scores(first), first.sum()
        if self.ensemble.forwards == 1:
            return scores, sum_of_all
        mean = forward.head.probabilities(scores).clone()
        for forward, output in outputs:
            mean += forward.head.probabilities(forward.head.scores(output))
            sum_of_all = sum_of_all + output.sum()
        return mean.div_(self.ensemble.forwards), sum_of_all

    def _outputs(
        self,
        image: Tensor,
        window: Box,
        core: Box,
        shape: Shape,
        statistics: tuple[IntensityStatistics, ...],
    ) -> Iterator[tuple[Forward, Tensor]]:
        """Yield the output of every model for every view, float32 (classes, rows, columns)."""
        if len(self.forwards) == 1:
            (forward,), scale = self.forwards, statistics[0] if statistics else None
            for output in forward.outputs(image, window, core, shape, scale):
                yield forward, output
            return
        rows, columns = core.intersection(Box.of_shape(shape)).shape
        for number, forward in enumerate(self.forwards):
            own_core, own_window = find_member_boxes(forward.border, core, shape)
            part = image[own_window.relative_to(window).slices()]
            scale = statistics[number] if statistics else None
            for output in forward.outputs(part, own_window, own_core, shape, scale):
                yield forward, output[:, :rows, :columns]

    def _probabilities(self, scores: Tensor) -> Tensor:
        return scores if self.ensemble.forwards > 1 else self._head.probabilities(scores)

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
            if not is_out_of_memory(error):
                raise
            raise OptionError(
                f"{self.device} has too little memory for a window of "
                f"{shape[0]}×{shape[1]} px in {self.precision}; use a smaller --tile"
            ) from error
