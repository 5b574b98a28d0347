"""The costs of running a network, counted from its architecture without running it or torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wsi_unet.geometry import Border
from wsi_unet.models.number_types import ITEM_BYTES

ALLOCATOR_SLACK = 64 * 2**20
"""Bytes of freed arrays that the C library keeps for the next ones, as measured (glibc)."""


@dataclass(frozen=True)
class ForwardCost:
    """The cost of one forward pass.

    Attributes:
        flops: floating-point operations; a multiplication and an addition count as two,
            activations and poolings aren't counted.
        parameters: numbers in the network (batch norm folded away).
        peak: most bytes of feature maps that are alive at once, without the image itself.
        unfolded_peak: the same where each convolution first unfolds its input into columns of
            kernel² numbers per pixel (im2col).
        last: bytes of the last feature map, from which the logits are computed.
        largest: values in the largest feature map.
        side: side of the output, px.
    """

    flops: int
    parameters: int
    peak: int
    unfolded_peak: int
    last: int
    largest: int
    side: int


class NetworkDescription(Protocol):
    """What the costs depend on: an architecture, a whole spec, or a member of an ensemble."""

    @property
    def in_channels(self) -> int:
        """Channels of the image."""

    @property
    def classes_out(self) -> int:
        """Channels of the output."""

    def border(self) -> Border:
        """Return the context that a core needs."""

    def forward_cost(self, side: int, item_bytes: int) -> ForwardCost:
        """Return the cost of a forward pass on `side` × `side` px, with `item_bytes` per number."""


@dataclass
class CostCounter:
    """Counts what a forward pass takes, while it is followed map by map.

    Attributes:
        side: side of the present feature map, px.
        item_bytes: bytes of one number.
        live: bytes of the maps that are alive now.
        peak: the most bytes that were alive at once.
        unfolded_peak: see `ForwardCost`.
        largest: bytes of the largest map.
        flops: see `ForwardCost`.
        parameters: see `ForwardCost`.
    """

    side: int
    item_bytes: int
    live: int = 0
    peak: int = 0
    unfolded_peak: int = 0
    largest: int = 0
    flops: int = 0
    parameters: int = 0

    def hold(self, channels: int) -> int:
        """Count a new map of the present side as alive; return its bytes."""
        size = channels * self.side**2 * self.item_bytes
        self.live += size
        self.spend(0)
        self.largest = max(self.largest, size)
        return size

    def spend(self, size: int) -> None:
        """Count `size` bytes that are needed for a moment."""
        self.peak = max(self.peak, self.live + size)

    def drop(self, size: int) -> None:
        """Count maps of `size` bytes as freed."""
        self.live -= size

    def convolve(self, channels: int, width: int, kernel: int, stride: int = 1) -> int:
        """Count a convolution and keep its output alive; return the output's bytes.

        `side` is divided by the stride; what a valid convolution crops is left to the caller.
        """
        self.side //= stride
        output_bytes = self.hold(width)
        self.multiply(channels, width, kernel)
        return output_bytes

    def multiply(self, channels: int, width: int, kernel: int) -> None:
        """Count a convolution's operations and weights; no map is kept.

        For a transposed convolution call it while `side` is that of its input.
        """
        self.flops += 2 * kernel**2 * channels * width * self.side**2
        self.parameters += (kernel**2 * channels + 1) * width
        columns = kernel**2 * channels * self.side**2 * self.item_bytes if kernel > 1 else 0
        self.unfolded_peak = max(self.unfolded_peak, self.live + columns)

    def total(self, last: int) -> ForwardCost:
        """Return what was counted; `last` is the bytes of the last map."""
        largest = self.largest // self.item_bytes
        unfolded_peak = max(self.peak, self.unfolded_peak)
        return ForwardCost(
            self.flops, self.parameters, self.peak, unfolded_peak, last, largest, self.side
        )


def window_side(network: NetworkDescription, tile: int) -> int:
    """Return the side of the window that a core of `tile` px (a multiple of the period) needs."""
    border = network.border()
    return border.before + tile + border.after


def tile_memory(
    network: NetworkDescription,
    tile: int,
    precision: str = "float32",
    *,
    probabilities: bool = False,
    unfolds: bool = False,
) -> int:
    """Estimate the most memory that predicting one core of `tile` × `tile` px takes, in bytes.

    It counts the tensors that are alive at the same time, the weights and the arrays around the
    network, on the device; not what the process takes anyway (torch itself is some 300 MiB). For
    U-Nets that took more than 100 MiB on a CPU, it is within 20 % of what was measured, and at
    most 5 % below it.

    Args:
        network: an architecture or a spec.
        tile: side of the core, px, a multiple of the period.
        precision: number type that the network runs in.
        probabilities: whether probabilities are made, not only labels.
        unfolds: whether convolutions unfold their input (`devices.unfolds_convolutions`).
    """
    item_bytes = ITEM_BYTES[precision]
    side = window_side(network, tile)
    cost = network.forward_cost(side, item_bytes)
    classes = network.classes_out
    around = cost.parameters * item_bytes
    around += side * side * 3  # the window
    around += side * side * network.in_channels * (4 if item_bytes == 4 else 4 + item_bytes)
    logits = classes * cost.side * cost.side * item_bytes
    # The core's logits in float32, then the temporaries of the labels or of the softmax.
    per_pixel = 4 * classes * (item_bytes != 4)
    per_pixel += 6 * classes + 5 if probabilities else 14
    maps = cost.unfolded_peak if unfolds else cost.peak
    peak = max(maps, cost.last + logits, logits + tile * tile * per_pixel)
    return around + peak + ALLOCATOR_SLACK


def largest_map(network: NetworkDescription, tile: int) -> int:
    """Return the number of values in the largest feature map for a core of `tile` px."""
    return network.forward_cost(window_side(network, tile), 1).largest


def parameter_count(network: NetworkDescription) -> int:
    """Return how many weights the network has (batch norm folded away)."""
    return network.forward_cost(window_side(network, network.border().period), 1).parameters


def window_flops(network: NetworkDescription, tile: int) -> int:
    """Return the floating-point operations for one core of `tile` × `tile` px, border included."""
    return network.forward_cost(window_side(network, tile), 1).flops
