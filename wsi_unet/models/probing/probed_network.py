"""Probing a network by running it on noise with some pixels spoilt."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor, nn

from wsi_unet.cores import usable_cores
from wsi_unet.models.exported.loading import OnnxProgram, check_class_map
from wsi_unet.models.inference.devices import cpu_threads, full_float32
from wsi_unet.models.networks.interpolation import Placement

AMPLITUDES = (1e15, 30.0)
"""Values that spoil pixels where NaN may get lost (onnxruntime's max-pooling prefers numbers): one
that shows through many layers, and one that doesn't only saturate them."""


@dataclass(frozen=True)
class ProbedNetwork:
    """A network that is probed.

    Attributes:
        forward: the network, from (1, channels, h, w) and the image's placement in a larger one
            (which only some networks use) to (1, classes, h', w').
        in_channels: channels of its input.
        dtype: number type that it computes in.
        loses_nan: whether NaN may get lost on its way through the network.
    """

    forward: Callable[[Tensor, Placement], Tensor]
    in_channels: int
    dtype: torch.dtype
    loses_nan: bool

    @property
    def tolerance(self) -> float:
        """The largest difference, relative to the output's range, that rounding explains."""
        return 1e-9 if self.dtype == torch.float64 else 1e-4

    @property
    def rounding(self) -> float:
        """The usual difference, relative to the output's range, that rounding makes."""
        return 16 * torch.finfo(self.dtype).eps

    def image(self, rows: int, columns: int | None = None) -> Tensor:
        """Return normal noise (1, channels, rows, columns), the same at every call."""
        generator = torch.Generator().manual_seed(0)
        shape = (1, self.in_channels, rows, rows if columns is None else columns)
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(self.dtype)

    def run(self, image: Tensor, placement: Placement | None = None) -> Tensor:
        """Return the output for an image, (classes, rows, columns).

        Args:
            image: (1, channels, rows, columns).
            placement: where the image lies in a larger one; None for an image of its own.

        Raises:
            ModelError: the output isn't a map of classes.
            Exception: of any kind, if the network doesn't take images of this size.
        """
        placement = placement or Placement((0, 0), (image.shape[2], image.shape[3]))
        with torch.inference_mode(), full_float32(), cpu_threads(usable_cores()):
            return check_class_map("the network", self.forward(image, placement))[0]

    def find_changed(self, image: Tensor, clean: Tensor, spoil: Tensor) -> Tensor:
        """Return the pixels of the output that spoilt pixels change, bool (rows, columns).

        Args:
            image: the input.
            clean: the output for it.
            spoil: the pixels of the input to spoil, bool (rows, columns).
        """
        changed = torch.zeros(clean.shape[1:], dtype=torch.bool)
        for spoilt in self._spoil(image):
            output = self.run(torch.where(spoil, spoilt, image))
            # Compared to the last bit: what is computed from the same numbers, at the same place
            # of an image of the same size, is the same.
            changed |= (output != clean).any(0)
        return changed

    def _spoil(self, image: Tensor) -> Iterator[Tensor]:
        """Yield images of the same shape that consist of spoilt pixels."""
        if not self.loses_nan:
            yield torch.full_like(image, torch.nan)
            return
        # A ReLU may swallow one sign, and the mean of both may be 0.
        generator = torch.Generator().manual_seed(1)
        mixed = torch.rand(image.shape, generator=generator).sub_(0.5).sign_()
        for amplitude in AMPLITUDES:
            for signs in (mixed, torch.ones_like(mixed), -torch.ones_like(mixed)):
                yield amplitude * signs.to(image.dtype)


def measure_range(output: Tensor) -> Tensor:
    """Return the range of values of the class that varies most."""
    return (output.amax((1, 2)) - output.amin((1, 2))).max()


def wrap_network(network: nn.Module, in_channels: int, *, placed: bool = False) -> ProbedNetwork:
    """Return a network in float32, to find out which pixels of the output depend on which.

    Args:
        network: in evaluation mode, float32, on the CPU; it isn't changed.
        in_channels: channels of its input.
        placed: whether the network is told where an image lies.
    """
    runnable, loses_nan = _make_runnable(network)
    return ProbedNetwork(_wrap_forward(runnable, placed), in_channels, torch.float32, loses_nan)


def wrap_in_float64(
    network: nn.Module, in_channels: int, side: int, *, placed: bool = False
) -> ProbedNetwork:
    """Return a network in float64 if it can compute in it, or else in float32.

    Its outputs for different images can be compared with little rounding.

    Args:
        network: in evaluation mode, float32, on the CPU; it isn't changed.
        in_channels: channels of its input.
        side: side of an image that it takes, px; float64 is tried on it.
        placed: whether the network is told where an image lies.
    """
    runnable, loses_nan = _make_runnable(network)
    if not loses_nan:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch warns about its own exports
            double = copy.deepcopy(runnable).double()
        forward = _wrap_forward(double, placed)
        subject = ProbedNetwork(forward, in_channels, torch.float64, loses_nan)
        try:
            subject.run(subject.image(side))
        except RuntimeError:  # a program that contains float32 constants
            pass
        else:
            return subject
    return ProbedNetwork(_wrap_forward(runnable, placed), in_channels, torch.float32, loses_nan)


def _wrap_forward(network: nn.Module, placed: bool) -> Callable[[Tensor, Placement], Tensor]:
    def run(image: Tensor, placement: Placement) -> Tensor:
        output: Tensor = network(image, placement) if placed else network(image)
        return output

    return run


@singledispatch
def _make_runnable(network: nn.Module) -> tuple[nn.Module, bool]:
    """Return a module that can be called, and whether NaN may get lost in it."""
    return network, False


@_make_runnable.register
def _(network: OnnxProgram) -> tuple[nn.Module, bool]:
    return network.prepare("cpu", usable_cores()), True
