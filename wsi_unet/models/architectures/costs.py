"""What running a network costs, counted from its shape alone: no torch, nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wsi_unet.geometry import Border

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

ALLOCATOR_SLACK = 64 * 2**20
"""Bytes that the C library keeps of freed arrays for the next ones, as measured (glibc)."""


@dataclass(frozen=True)
class Work:
    """What one forward takes.

    Attributes:
        flops: floating-point operations; a multiplication and an addition count as two,
            activations and poolings aren't counted.
        parameters: numbers in the network (batch norm folded away).
        peak: most bytes of feature maps that live at once, without the image itself.
        last: bytes of the last feature map, from which the logits are computed.
        largest: values in the largest feature map.
        side: of the output, px.
    """

    flops: int
    parameters: int
    peak: int
    last: int
    largest: int
    side: int


class Network(Protocol):
    """What the costs depend on; an architecture or a whole spec."""

    @property
    def in_channels(self) -> int:
        """Channels of the image."""

    @property
    def classes_out(self) -> int:
        """Channels of the output."""

    def border(self) -> Border:
        """Return the context that a core needs."""

    def work(self, side: int, item: int) -> Work:
        """Return what running it on `side` × `side` px takes, with `item` bytes a number."""


@dataclass
class Count:
    """What a network takes, counted while its forward pass is followed map by map.

    Attributes:
        side: of the present feature map, px.
        item: bytes of a number.
        live: bytes of the maps that are held now.
        peak: the most there ever were.
        largest: bytes of the largest map.
        flops: see `Work`.
        parameters: see `Work`.
    """

    side: int
    item: int
    live: int = 0
    peak: int = 0
    largest: int = 0
    flops: int = 0
    parameters: int = 0

    def hold(self, channels: int) -> int:
        """Hold a new map of the present side; returns its bytes."""
        size = channels * self.side**2 * self.item
        self.live += size
        self.spend(0)
        self.largest = max(self.largest, size)
        return size

    def spend(self, size: int) -> None:
        """Take so many bytes for a moment."""
        self.peak = max(self.peak, self.live + size)

    def drop(self, size: int) -> None:
        """Free a map, or several."""
        self.live -= size

    def convolve(self, channels: int, width: int, kernel: int, stride: int = 1) -> int:
        """Hold the result of a convolution with padding; returns its bytes."""
        self.side //= stride
        self.multiply(channels, width, kernel)
        return self.hold(width)

    def multiply(self, channels: int, width: int, kernel: int) -> None:
        """Count a convolution's operations and weights; of a transposed one before its upsampling.

        Nothing is held.
        """
        self.flops += 2 * kernel**2 * channels * width * self.side**2
        self.parameters += (kernel**2 * channels + 1) * width

    def work(self, last: int) -> Work:
        """Return what was counted; `last` is the last map's bytes."""
        return Work(
            self.flops, self.parameters, self.peak, last, self.largest // self.item, self.side
        )


def window_side(network: Network, tile: int) -> int:
    """Return the side of the window that a core of `tile` px (a multiple of the period) needs."""
    border = network.border()
    return border.before + tile + border.after


def tile_memory(
    network: Network, tile: int, precision: str = "float32", *, probabilities: bool = False
) -> int:
    """Estimate the most memory that predicting one core of `tile` × `tile` px takes, in bytes.

    Follows the network tensor by tensor: what is alive at the same time, with the weights and
    the arrays around the network, on the device and without what the process takes anyway
    (torch itself is some 300 MiB). For U-Nets within 20 % of what was measured on a CPU, where
    it was above 100 MiB, and not below it by more than 5 %.
    """
    item = ITEM_BYTES[precision]
    side = window_side(network, tile)
    work = network.work(side, item)
    classes = network.classes_out
    around = work.parameters * item
    around += side * side * 3  # the window
    around += side * side * network.in_channels * (4 if item == 4 else 4 + item)
    logits = classes * work.side * work.side * item
    # The core's logits in float32, then the temporaries of the labels or of the softmax.
    per_pixel = 4 * classes * (item != 4)
    per_pixel += 6 * classes + 5 if probabilities else 14
    peak = max(work.peak, work.last + logits, logits + tile * tile * per_pixel)
    return around + peak + ALLOCATOR_SLACK


def largest_map(network: Network, tile: int) -> int:
    """Return the number of values in the largest feature map for a core of `tile` px."""
    return network.work(window_side(network, tile), 1).largest


def parameter_count(network: Network) -> int:
    """Return how many weights the network has (batch norm folded away)."""
    return network.work(window_side(network, network.border().period), 1).parameters


def window_flops(network: Network, tile: int) -> int:
    """Return the floating-point operations for one core of `tile` × `tile` px, border included."""
    return network.work(window_side(network, tile), 1).flops
