"""What running a network costs, counted from its shape alone: no torch, nothing is run."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_unet.models.border import derive_border
from wsi_unet.models.config import UNetConfig

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


ALLOCATOR_SLACK = 64 * 2**20
"""Bytes that the C library keeps of freed arrays for the next ones, as measured (glibc)."""


@dataclass
class _Tally:
    """Bytes that live at once while a network runs, and the most there ever were."""

    live: int = 0
    peak: int = 0
    largest: int = 0

    def hold(self, size: int) -> int:
        self.live += size
        self.peak = max(self.peak, self.live)
        self.largest = max(self.largest, size)
        return size

    def drop(self, size: int) -> None:
        self.live -= size


def window_side(config: UNetConfig, tile: int) -> int:
    """Return the side of the window that a core of `tile` px (a multiple of the period) needs."""
    border = derive_border(config)
    return border.before + tile + border.after


def tile_memory(
    config: UNetConfig, tile: int, precision: str = "float32", *, probabilities: bool = False
) -> int:
    """Estimate the most memory that predicting one core of `tile` × `tile` px takes, in bytes.

    Follows `UNet.forward` tensor by tensor: what is alive at the same time, with the weights and
    the arrays around the network, on the device and without what the process takes anyway
    (torch itself is some 300 MiB). Within 20 % of what was measured on a CPU, where it was
    above 100 MiB, and not below it by more than 5 %.
    """
    item = ITEM_BYTES[precision]
    side = window_side(config, tile)
    tally = _Tally()
    tally.hold(parameter_count(config) * item)
    tally.hold(side * side * 3)  # the window
    tally.hold(side * side * config.in_channels * (4 if item == 4 else 4 + item))
    side, map_bytes = _follow(config, side, item, tally)
    logits = config.classes * side * side
    tally.hold(logits * item)
    tally.drop(map_bytes)
    # The core's logits in float32, then the temporaries of the labels or of the softmax.
    per_pixel = 4 * config.classes * (item != 4)
    per_pixel += 6 * config.classes + 5 if probabilities else 14
    tally.hold(tile * tile * per_pixel)
    return tally.peak + ALLOCATOR_SLACK


def largest_map(config: UNetConfig, tile: int) -> int:
    """Return the number of values in the largest feature map for a core of `tile` px."""
    tally = _Tally()
    _follow(config, window_side(config, tile), 1, tally)
    return tally.largest


def _follow(config: UNetConfig, side: int, item: int, tally: _Tally) -> tuple[int, int]:
    """Run through both paths; return the side of the last feature map and its bytes."""

    def bytes_of(width: int, side: int) -> int:
        return width * side * side * item

    def convolve(held: int, width: int, side: int) -> tuple[int, int]:
        """Convolve k times a map whose bytes the caller holds until they are all done."""
        previous = 0
        for _ in range(config.convolutions):
            side -= 2 if config.padding == "valid" else 0
            new = tally.hold(bytes_of(width, side))
            tally.drop(previous)
            previous = new
        tally.drop(held)
        return previous, side

    skips = []
    held = 0
    for level, width in enumerate(config.widths):
        held, side = convolve(held, width, side)
        if level < config.depth:
            skips.append(held)
            side //= 2
            held = tally.hold(bytes_of(width, side))
            indices = 8 * width * side * side  # max_pool2d always computes them, in int64
            tally.peak = max(tally.peak, tally.live + indices)
    for width in reversed(config.widths[:-1]):
        side *= 2
        upsampled = tally.hold(bytes_of(width, side))
        tally.drop(held)
        held = tally.hold(bytes_of(2 * width, side))
        tally.drop(upsampled + skips.pop())
        held, side = convolve(held, width, side)
    return side, held


def parameter_count(config: UNetConfig) -> int:
    """Return how many weights the network has (batch norm folded away)."""
    count, channels = 0, config.in_channels
    for width in config.widths:
        count += _level_parameters(channels, width, config.convolutions)
        channels = width
    kernel = 4 if config.upsampling == "transpose" else 1
    for width in config.widths[:-1]:
        count += 2 * width * width * kernel + width
        count += _level_parameters(2 * width, width, config.convolutions)
    return count + (config.base_width + 1) * config.classes


def _level_parameters(channels: int, width: int, convolutions: int) -> int:
    return 9 * channels * width + 9 * width * width * (convolutions - 1) + width * convolutions


def window_flops(config: UNetConfig, tile: int) -> int:
    """Return the floating-point operations for one core of `tile` × `tile` px, border included.

    A multiplication and an addition count as two; activations and poolings aren't counted.
    """
    side = window_side(config, tile)
    total, channels = 0, config.in_channels

    def convolve(channels: int, width: int, side: int) -> tuple[int, int]:
        flops = 0
        for _ in range(config.convolutions):
            side -= 2 if config.padding == "valid" else 0
            flops += 2 * 9 * channels * width * side * side
            channels = width
        return flops, side

    for level, width in enumerate(config.widths):
        flops, side = convolve(channels, width, side)
        total, channels = total + flops, width
        side //= 2 if level < config.depth else 1
    for width in reversed(config.widths[:-1]):
        pixels = side * side * (4 if config.upsampling == "transpose" else 1)
        total += 2 * 2 * width * width * pixels
        flops, side = convolve(2 * width, width, 2 * side)
        total += flops
    return total + 2 * config.base_width * config.classes * side * side
