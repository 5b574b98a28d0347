"""Running models on windows of a slide: uint8 pixels in, uint8 labels out.

Everything in between is computed on the device. The labels are the model's label values
(`ModelSpec.label_values`), so nothing downstream needs to know the order of the network's classes.
The probabilities of several models, or of several views of a window, are averaged here too.

How many forward passes run at once is limited for the whole process, not for each predictor, since
more of them only fight for the same cores or the same memory (`_SECTIONS`, module state for that
reason).
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
from wsi_unet.models.inference.device_network import DeviceNetwork
from wsi_unet.models.inference.devices import (
    cpu_threads,
    full_float32,
    is_out_of_memory,
    resolve_device,
    resolve_precision,
    unfolds_convolutions,
)
from wsi_unet.models.inference.ensemble import Ensemble, IntensityStatistics, find_member_boxes
from wsi_unet.models.inference.heads import quantise
from wsi_unet.models.inference.transfer import choose_transfer
from wsi_unet.models.model import Model

CPU_SLOTS = 2
"""Forward passes that share a CPU, each on its part of the cores.

A forward pass on all cores waits, at the end of every layer, for a core that is busy with something
else (reading, writing, the next slide); two of them fill each other's gaps. Measured on two
cores: see the documentation's page on performance.
"""

_SECTIONS = {slots: threading.BoundedSemaphore(slots) for slots in (1, CPU_SLOTS)}


@dataclass(frozen=True)
class Prediction:
    """The labels of one core.

    Attributes:
        labels: uint8 (label images, rows, columns), label values; one image, or one for each
            class of a multi-label model (see `wsi_unet.models.inference.label_groups`).
        probabilities: uint8 (classes, rows, columns), round(255 · probability), in the order of
            the spec's classes; None unless they were wanted.
        seconds_busy: how long the device computed for this core; where it computes for several at
            once, this core's share.
        seconds_waited: how long this core waited for the device.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    seconds_busy: float
    seconds_waited: float


class Predictor:
    """One model or several on a device. A process needs one per model; threads may share it.

    Args:
        model: the model or models to run.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        precision: "auto", "float32", "bfloat16" or "float16". The whole network runs in it, after
            batch norm was folded into the convolutions; outputs are compared in float32.
        threads: cores to use on the CPU; None for all that this process may use.

    Attributes:
        ensemble: the models that are run.
        device: "cpu" or "cuda:<index>".
        precision: the number type that the networks compute in.
        threads: cores used on the CPU.
        slots: how many forward passes share the device at once.
        border: the context that a core needs.
        label_images: number of label images of a prediction.
        label_count: one more than the largest label value.
        classes: number of the models' classes.
        networks: each model on the device.

    Raises:
        ModelError: a model has changed on disk.
        OptionError: there is no such device or precision.
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
        self.networks = [DeviceNetwork(m, self.device, dtype, share) for m in self.ensemble.members]
        self._head = self.networks[0].head
        self._transfer = choose_transfer(self.device)

    def memory(self, tile: int, *, probabilities: bool) -> int:
        """Estimate the most memory that predicting takes, in bytes, with every slot in use.

        Args:
            tile: side of a core, px.
            probabilities: whether probabilities are wanted too.
        """
        unfolds = unfolds_convolutions(self.device, self.precision)
        return self.slots * self.ensemble.memory(
            tile, self.precision, probabilities=probabilities, unfolds=unfolds
        )

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
            pixels: RGB of `window`, uint8 (rows, columns, 3), mirrored beyond the raster.
            window: the box that `pixels` covers, px of the raster: `Border.window` of the core.
            core: the wanted pixels, px of the raster; with several models, those beyond the raster
                are left out.
            shape: (rows, columns) of the whole raster, px.
            probabilities: whether to return the classes' probabilities too.
            statistics: how each model's intensities are normalised; () for the models' own
                constants.

        Raises:
            ValueError: the pixels aren't such an array, the window's size doesn't fit the
                network, or the core isn't inside the output.
            OptionError: the device has too little memory for this window.
            ModelError: the network computes something that isn't a number.
        """
        if pixels.dtype != np.uint8 or pixels.shape != (*window.shape, 3):
            raise ValueError(
                f"the pixels of {window} must be uint8 {(*window.shape, 3)}, but are "
                f"{pixels.dtype} {pixels.shape}"
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
                "try `precision=float32`"
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
        """Return the scores that labels are decided on, and the sum of all outputs.

        The scores (classes, rows, columns) of several forward passes are the mean of their
        probabilities. If any number of an output is NaN or infinite, so is the sum.
        """
        outputs = self._outputs(image, window, core, shape, statistics)
        network, first = next(outputs)
        scores, sum_of_all = network.head.scores(first), first.sum()
        if self.ensemble.forward_passes == 1:
            return scores, sum_of_all
        mean = network.head.probabilities(scores).clone()
        for network, output in outputs:
            mean += network.head.probabilities(network.head.scores(output))
            sum_of_all = sum_of_all + output.sum()
        return mean.div_(self.ensemble.forward_passes), sum_of_all

    def _outputs(
        self,
        image: Tensor,
        window: Box,
        core: Box,
        shape: Shape,
        statistics: tuple[IntensityStatistics, ...],
    ) -> Iterator[tuple[DeviceNetwork, Tensor]]:
        """Yield each model's output for each view, float32 (classes, rows, columns)."""
        if len(self.networks) == 1:
            (network,), scale = self.networks, statistics[0] if statistics else None
            for output in network.outputs(image, window, core, shape, scale):
                yield network, output
            return
        rows, columns = core.intersection(Box.from_shape(shape)).shape
        for number, network in enumerate(self.networks):
            own_core, own_window = find_member_boxes(network.border, core, shape)
            part = image[own_window.relative_to(window).slices()]
            scale = statistics[number] if statistics else None
            for output in network.outputs(part, own_window, own_core, shape, scale):
                yield network, output[:, :rows, :columns]

    def _probabilities(self, scores: Tensor) -> Tensor:
        return scores if self.ensemble.forward_passes > 1 else self._head.probabilities(scores)

    @contextmanager
    def _section(self) -> Iterator[None]:
        """Hold the device, or one slot of it, with this predictor's settings."""
        with (
            _SECTIONS[self.slots],
            full_float32(),
            cpu_threads(max(1, self.threads // self.slots)),
        ):
            yield

    @contextmanager
    def _enough_memory(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Turn running out of memory into an error that says what helps."""
        try:
            yield
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise OptionError(
                f"{self.device} has too little memory for a window of "
                f"{shape[0]}×{shape[1]} px in {self.precision}; use a smaller `tile`",
                option="tile",
            ) from error
