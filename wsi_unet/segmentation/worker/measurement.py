"""What the planning of a run asks a worker, and what the worker answers."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from wsi_unet.geometry import round_up
from wsi_unet.models.inference.augmentation import Tta
from wsi_unet.models.inference.ensemble import IntensityStatistics
from wsi_unet.models.inference.tiles import TileChoice
from wsi_unet.models.number_types import Precision
from wsi_unet.segmentation.references import ModelReference, SlideReference
from wsi_unet.slides.resample import Resampling
from wsi_unet.slides.tissue.mask import TissueMask


@dataclass(frozen=True)
class ProbeRequest:
    """The open questions about a run that only a worker can answer.

    Attributes:
        slide: the slide, as workers find it.
        resampling: how the model's pixel grid is read from it.
        model: the model, as workers find it.
        tta: which views of a window are averaged.
        statistics: how the models' intensities are normalised; () for their own constants.
        device: "auto", "cpu", "cuda" or "cuda:<index>".
        precision: "auto", "float32", "bfloat16" or "float16".
        compares: whether the labels in the chosen precision are to be compared with float32's.
        precisions: number types that the model can run in.
        tile: side of a tile's core, px; None lets the worker choose.
        block: side of a block, px.
        mask: tissue, stretched over the slide; None predicts everywhere.
        probabilities: whether class probabilities are wanted too.
        agreement: the agreement that an earlier run measured; None if none did.
        pixels: about how many pixels the run will predict, px of the model's grid.
        processes: worker processes that share them.
        processes_per_host: worker processes that share a host's memory.
        processes_per_core: worker processes that share a core.
    """

    slide: SlideReference
    resampling: Resampling
    model: ModelReference
    tta: Tta
    statistics: tuple[IntensityStatistics, ...]
    device: str
    precision: str
    precisions: tuple[Precision, ...]
    tile: int | None
    block: int
    mask: TissueMask | None = field(repr=False)
    probabilities: bool
    agreement: float | None
    processes_per_host: int
    processes_per_core: int
    compares: bool = True
    pixels: int = 0
    processes: int = 1

    def speed_key(self) -> tuple[Hashable, ...]:
        """Return everything but the model that the measured speed and memory depend on.

        Only the slide's size matters, rounded up to a power of two, if it is less than a block.
        """
        side = min(self.block, 1 << (max(self.resampling.shape) - 1).bit_length())
        chosen = self.tta, self.device, self.precision, self.tile, self.block
        shared = self.processes_per_host, self.processes_per_core
        return *chosen, side, self.probabilities, *shared


@dataclass(frozen=True)
class WorkerMeasurement:
    """A worker's answers to a `ProbeRequest`.

    Attributes:
        host: the worker's host name.
        device: the kind of device, "cpu" or "cuda", or the requested one, "cuda:<index>".
        precision: the number type to compute in.
        tile: side of a tile's core, px.
        mpx_per_s: millions of core pixels per second of one process; None if not measured.
        tile_memory: peak memory of the network on the tiles that it computes at once, bytes.
        base_memory: memory that the process holds already, bytes.
        host_memory: bytes available on the host.
        device_memory: bytes available on the device; None if it uses the host's memory.
        period: the network's period, px; tiles are multiples of it.
        choice: what led to the tile.
        search_pixels: pixels of a run from which trying other tiles takes little of it; inf where
            there is nothing to try.
        comparison_pixels: the same of comparing with float32; inf in float32.
        agreement: share of labels equal to float32's on windows of the slide that the measurement
            was adapted to; None in float32, and where it wasn't compared.
        compared_seconds: how long comparing took.
    """

    host: str
    device: str
    precision: Precision
    tile: int
    mpx_per_s: float | None
    tile_memory: int
    base_memory: int
    host_memory: int
    device_memory: int | None
    period: int
    choice: TileChoice
    search_pixels: float = math.inf
    comparison_pixels: float = math.inf
    agreement: float | None = None
    compared_seconds: float = 0.0

    def adapt_to(self, request: ProbeRequest) -> WorkerMeasurement:
        """Return the measurement for another slide, with a tile no larger than the slide needs.

        A tile that the request names is kept. So is the agreement: it is the slide's own.
        """
        tile = self.tile
        if request.tile is None:
            tile = min(tile, round_up(max(request.resampling.shape), self.period))
        agreement = None if self.precision == "float32" else request.agreement
        return replace(self, tile=tile, agreement=agreement)

    def describe_search(self) -> dict[str, Any]:
        """Return what choosing took, as JSON-able values."""
        return {
            "tile_source": self.choice.source,
            "tried": {str(side): round(speed, 3) for side, speed in self.choice.speeds.items()},
            "seconds": round(self.choice.seconds, 3),
            "compared_seconds": round(self.compared_seconds, 3),
        }


@dataclass(frozen=True)
class PrecisionComparison:
    """How many labels are as in float32.

    Attributes:
        agreement: their share, 0 to 1; None where there was nothing to compare.
        seconds: how long comparing took.
    """

    agreement: float | None
    seconds: float
