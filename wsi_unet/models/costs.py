"""What running a network costs, counted from its shape alone: no torch, nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wsi_unet.geometry import Border

if TYPE_CHECKING:
    from wsi_unet.models.config import UNetConfig

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
class Tally:
    """Bytes that live at once while a network runs, and the most there ever were."""

    live: int = 0
    peak: int = 0
    largest: int = 0

    def hold(self, size: int) -> int:
        """Add a feature map; returns its size."""
        self.live += size
        self.peak = max(self.peak, self.live)
        self.largest = max(self.largest, size)
        return size

    def drop(self, size: int) -> None:
        """Free a feature map."""
        self.live -= size


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


def unet_work(config: UNetConfig, side: int, item: int) -> Work:
    """Follow `UNet.forward` tensor by tensor.

    Args:
        config: the network's shape.
        side: of its input, px.
        item: bytes of a number.
    """
    tally = Tally()
    layout = config.layout
    flops = parameters = 0

    def bytes_of(width: int) -> int:
        return width * side * side * item

    def convolve(held: int, channels: int, widths: tuple[int, ...]) -> int:
        """Run a level's convolutions on a map whose bytes are held until they are all done."""
        nonlocal side, flops, parameters
        previous = 0
        for width in widths:
            side -= 2 if config.padding == "valid" else 0
            new = tally.hold(bytes_of(width))
            tally.drop(previous)
            previous = new
            flops += 2 * 9 * channels * width * side * side
            parameters += 9 * channels * width + width
            channels = width
        tally.drop(held)
        return previous

    skips = []
    held, channels = 0, config.in_channels
    for level, width in enumerate(layout.contracting):
        held = convolve(held, channels, (width,) * config.convolutions)
        channels = width
        if level < config.depth:
            skips.append((held, width))
            side //= 2
            held = tally.hold(bytes_of(width))
            indices = 8 * width * side * side  # max_pool2d always computes them, in int64
            tally.peak = max(tally.peak, tally.live + indices)
    for level, widths in enumerate(layout.expanding):
        if layout.upsampled is None:
            width = channels
        else:
            width = layout.upsampled[level]
            kernel = 4 if config.upsampling == "transpose" else 1
            flops += 2 * kernel * channels * width * side * side
            parameters += kernel * channels * width + width
        side *= 2
        upsampled = tally.hold(bytes_of(width))
        tally.drop(held)
        skip, skip_width = skips.pop()
        held = tally.hold(bytes_of(skip_width + width))
        tally.drop(upsampled + skip)
        held = convolve(held, skip_width + width, widths)
        channels = widths[-1]
    flops += 2 * channels * config.classes * side * side
    parameters += (channels + 1) * config.classes
    return Work(flops, parameters, tally.peak, held, tally.largest // item, side)
