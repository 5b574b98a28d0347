"""A network under test: run on images made up for it, with some of their pixels spoilt."""

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
"""What spoils pixels where NaN may get lost (onnxruntime's max-pooling prefers numbers): so much
that it shows through many layers, and so little that it doesn't only saturate them."""


@dataclass(frozen=True)
class ProbedNetwork:
    """A network under test.

    Attributes:
        forward: from (1, channels, h, w), and its place in a larger image for networks that are
            told that, to (1, classes, h', w').
        in_channels: channels of its input.
        dtype: what it computes in.
        survives: whether NaN is lost on its way through.
    """

    forward: Callable[[Tensor, Placement], Tensor]
    in_channels: int
    dtype: torch.dtype
    survives: bool

    @property
    def tolerance(self) -> float:
        """Difference, relative to the output's range, that rounding explains."""
        return 1e-9 if self.dtype == torch.float64 else 1e-4

    @property
    def rounding(self) -> float:
        """Difference, relative to the output's range, that rounding makes as a rule."""
        return 16 * torch.finfo(self.dtype).eps

    def image(self, rows: int, columns: int | None = None) -> Tensor:
        """Return normal noise, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        shape = (1, self.in_channels, rows, rows if columns is None else columns)
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(self.dtype)

    def run(self, image: Tensor, place: Placement | None = None) -> Tensor:
        """Return the output for an image, (classes, rows, columns).

        Args:
            image: (1, channels, rows, columns).
            place: where it lies in a larger one; None: it is the whole.

        Raises:
            ModelError: if it isn't a map of classes.
            Exception: of any kind, if the network doesn't take images of this size.
        """
        place = place or Placement((0, 0), (image.shape[2], image.shape[3]))
        with torch.inference_mode(), full_float32(), cpu_threads(usable_cores()):
            return check_class_map("the network", self.forward(image, place))[0]

    def changed(self, image: Tensor, clean: Tensor, spoil: Tensor) -> Tensor:
        """Return which pixels of the output, bool (rows, columns), depend on some of the input.

        Args:
            image: the input.
            clean: the output for it.
            spoil: those pixels of the input, bool (rows, columns).
        """
        found = torch.zeros(clean.shape[1:], dtype=torch.bool)
        for poison in self._poisons(image):
            output = self.run(torch.where(spoil, poison, image))
            # To the last bit: what is computed from the same numbers, at the same place of an
            # image of the same size, is the same.
            found |= (output != clean).any(0)
        return found

    def _poisons(self, image: Tensor) -> Iterator[Tensor]:
        if not self.survives:
            yield torch.full_like(image, torch.nan)
            return
        # A ReLU may swallow one sign, and the mean of both may be nothing.
        generator = torch.Generator().manual_seed(1)
        mixed = torch.rand(image.shape, generator=generator).sub_(0.5).sign_()
        for amplitude in AMPLITUDES:
            for signs in (mixed, torch.ones_like(mixed), -torch.ones_like(mixed)):
                yield amplitude * signs.to(image.dtype)


def measure_range(output: Tensor) -> Tensor:
    """Return the range of the class that varies most."""
    return (output.amax((1, 2)) - output.amin((1, 2))).max()


def wrap_network(network: nn.Module, in_channels: int, *, placed: bool = False) -> ProbedNetwork:
    """Return a network as it computes, to find out what depends on what.

    Args:
        network: in evaluation mode, float32, on the CPU; it is left as it was.
        in_channels: channels of its input.
        placed: whether it is to be told where an image lies.
    """
    runnable, survives = _runnable(network)
    return ProbedNetwork(_forward(runnable, placed), in_channels, torch.float32, survives)


def wrap_in_float64(
    network: nn.Module, in_channels: int, side: int, *, placed: bool = False
) -> ProbedNetwork:
    """Return a network in float64, or as it computes where it can't, to compare its outputs.

    Args:
        network: in evaluation mode, float32, on the CPU; it is left as it was.
        in_channels: channels of its input.
        side: of an image that it takes, px; it is tried.
        placed: whether it is to be told where an image lies.
    """
    runnable, survives = _runnable(network)
    if not survives:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of its own exports
            double = copy.deepcopy(runnable).double()
        subject = ProbedNetwork(_forward(double, placed), in_channels, torch.float64, survives)
        try:
            subject.run(subject.image(side))
        except RuntimeError:  # a program with numbers in it that are float32
            pass
        else:
            return subject
    return ProbedNetwork(_forward(runnable, placed), in_channels, torch.float32, survives)


def _forward(network: nn.Module, placed: bool) -> Callable[[Tensor, Placement], Tensor]:
    def run(image: Tensor, place: Placement) -> Tensor:
        output: Tensor = network(image, place) if placed else network(image)
        return output

    return run


@singledispatch
def _runnable(network: nn.Module) -> tuple[nn.Module, bool]:
    """Return what can be called, and whether NaN gets lost in it."""
    return network, False


@_runnable.register
def _(network: OnnxProgram) -> tuple[nn.Module, bool]:
    return network.prepare("cpu", usable_cores()), True
