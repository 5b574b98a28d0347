"""Computing one block of labels: read, predict, crop, write its shard and its pyramid levels.

This is all that a worker does for a label group. Nothing here knows of Dask.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from threading import Event

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from wsi_unet.errors import BlockError, OutputError
from wsi_unet.geometry import BlockIndex, Border, Box
from wsi_unet.labels.progress import BlockMarker, MarkedBoxes, Progress, RunRecord, ShardRecord
from wsi_unet.labels.pyramid import Pixels, Reduce, reduce_mean, reduce_mode
from wsi_unet.labels.writer import write_block
from wsi_unet.models.inference.ensemble import IntensityStatistics
from wsi_unet.models.inference.predictor import Prediction, Predictor
from wsi_unet.predicted_area import PredictedArea
from wsi_unet.segmentation.parameters import LabelParameters, parse_parameters
from wsi_unet.segmentation.worker.run_once import (
    BlockRunner,
    Stopwatch,
    WrittenBlock,
    check_current,
    run_once,
)
from wsi_unet.slides.resample import Raster, read_mirrored
from wsi_unet.slides.slide import Slide
from wsi_unet.storage.store import ByteStore


@dataclass(frozen=True)
class BlockPixels:
    """The computed pixels of a block.

    Attributes:
        labels: label values, uint8 (label images, rows, columns).
        probabilities: round(255 · probability), uint8 (classes, rows, columns); None unless wanted.
        predicted: number of pixels of the predicted area.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None
    predicted: int


@dataclass(frozen=True)
class LabelBlockRunner(BlockRunner):
    """What a process holds open to compute the blocks of one label group.

    Attributes:
        record: the run's record.
        parameters: the run's parameters, which the record holds.
        slide: the open slide behind `raster`.
        raster: the slide on the model's pixel grid.
        area: the pixels that are predicted.
        predictor: the model on its device.
        store: the output store.
        progress: the label group's progress files.
        stop: set when the run is over; blocks being computed then end at their next tile.
    """

    record: RunRecord
    parameters: LabelParameters
    slide: Slide
    raster: Raster
    area: PredictedArea
    predictor: Predictor
    store: ByteStore
    progress: Progress
    stop: Event = field(default_factory=Event)

    @override
    def run(self, index: BlockIndex, attempt: int) -> BlockMarker:
        signature, boxes = self.parameters.signature(), self.parameters.marked_boxes(index)

        def work(clock: Stopwatch) -> WrittenBlock:
            pixels = self.compute(index, clock)
            with clock.measure("write"):
                record = check_current(self.progress, signature)
                if self._find_marked_boxes(record, index) != boxes:
                    raise OutputError(f"another run of {record.name!r} has grown its regions")
                values = self.predictor.label_count
                counts = tuple(n for image in pixels.labels for n in count_labels(image, values))
                return WrittenBlock(self._write(index, pixels), counts, pixels.predicted)

        name = self.parameters.slide.name
        return run_once(self.progress, signature, index, attempt, name, work, boxes)

    def _find_marked_boxes(self, record: RunRecord, index: BlockIndex) -> MarkedBoxes:
        """Return what of a block the present record of the run wants."""
        unchanged = record.parameters == self.record.parameters
        present = self.parameters if unchanged else parse_parameters(record, LabelParameters)
        return present.marked_boxes(index)

    def compute(self, index: BlockIndex, clock: Stopwatch) -> BlockPixels:
        """Read and predict one block, without writing anything."""
        return predict_box(
            self.raster,
            self.parameters.grid.core(index),
            self.predictor,
            tile=self.parameters.tile,
            area=self.area,
            probabilities=self.parameters.probabilities,
            statistics=self.parameters.statistics,
            clock=clock,
            stop=self.stop,
        )

    def _write(self, index: BlockIndex, pixels: BlockPixels) -> dict[str, ShardRecord]:
        pyramid = self.parameters.pyramid
        groups: list[tuple[str, Pixels, Reduce[np.uint8]]] = [
            (f"labels/{name}", image, reduce_mode)
            for name, image in zip(self.parameters.label_groups, pixels.labels, strict=True)
        ]
        if pixels.probabilities is not None:
            group = f"probability/{self.parameters.label}"
            groups.append((group, pixels.probabilities, reduce_mean))
        shards: dict[str, ShardRecord] = {}
        for group, data, reduction in groups:
            shards |= write_block(self.store, group, pyramid, index, data, reduction)
        return shards

    @override
    def close(self) -> None:
        """End blocks that are being computed at their next tile, then close the slide."""
        self.stop.set()
        self.slide.close()


def predict_box(
    raster: Raster,
    box: Box,
    predictor: Predictor,
    *,
    tile: int,
    area: PredictedArea | None,
    probabilities: bool,
    statistics: tuple[IntensityStatistics, ...] = (),
    clock: Stopwatch,
    stop: Event | None = None,
) -> BlockPixels:
    """Return the labels of `box`, which are those of one forward pass over the whole raster.

    Args:
        raster: the slide on the model's pixel grid; only the window of `box` is read.
        box: px of that grid, inside the raster; starts at multiples of the network's period.
        predictor: the model on its device.
        tile: side of a tile's core, px, a multiple of the period.
        area: the raster's pixels to predict; labels outside are 0. None predicts all.
        probabilities: whether class probabilities are wanted too.
        statistics: how the models' intensities are normalised; () for their own constants.
        clock: gets the seconds spent on "read", "wait" and "predict".
        stop: checked before each tile; None for never.

    Raises:
        BlockError: `stop` was set.
    """
    border, shape = predictor.border, raster.shape
    area = None if area is None else area.near(box)
    labels = np.zeros((predictor.label_images, *box.shape), np.uint8)
    classes = np.zeros((predictor.classes, *box.shape), np.uint8) if probabilities else None
    cores = cut_tiles(box, border, tile, area)
    if not cores:
        return BlockPixels(labels, classes, 0)
    windows = [border.window(core, shape) for core in cores]
    extent = reduce(Box.union, windows)
    with clock.measure("read"):
        pixels = read_mirrored(raster, extent)

    def predict(core: Box, window: Box) -> Prediction:
        if stop is not None and stop.is_set():
            raise BlockError("the run was stopped")
        part = pixels[window.relative_to(extent).slices()]
        return predictor.predict(
            part, window, core, shape, probabilities=probabilities, statistics=statistics
        )

    # As many tiles at once as the device takes, so that the last block keeps all of it busy too.
    with ThreadPoolExecutor(predictor.slots) as pool:
        for core, prediction in zip(cores, pool.map(predict, cores, windows), strict=True):
            clock.add("wait", prediction.seconds_waited / predictor.slots)
            clock.add("predict", prediction.seconds_busy)
            inside = core.intersection(box)
            in_box, in_core = inside.relative_to(box).slices(), inside.relative_to(core).slices()
            labels[:, *in_box] = prediction.labels[:, *in_core]
            if classes is not None and prediction.probabilities is not None:
                classes[:, *in_box] = prediction.probabilities[:, *in_core]
    return _clear_outside(BlockPixels(labels, classes, box.area), box, area)


def _clear_outside(block: BlockPixels, box: Box, area: PredictedArea | None) -> BlockPixels:
    """Set everything outside the predicted area to 0."""
    if area is None:
        return block
    inside = area.read(box)
    predicted = int(np.count_nonzero(inside))
    if predicted < box.area:
        np.multiply(block.labels, inside, out=block.labels)
        if block.probabilities is not None:
            np.multiply(block.probabilities, inside, out=block.probabilities)
    return replace(block, predicted=predicted)


def cut_tiles(box: Box, border: Border, side: int, area: PredictedArea | None) -> list[Box]:
    """Return the cores of a block's tiles, without those that need no prediction.

    Args:
        box: the block, px of the model's grid.
        border: the network's border; its period is where cores may start.
        side: side of a tile's core, px, a multiple of the period.
        area: the pixels to predict, of the whole model grid; None keeps all tiles.
    """
    tiles = border.core(box).tiles(side)
    return [tile for tile in tiles if area is None or area.touches(tile.intersection(box))]


def count_labels(labels: NDArray[np.uint8], values: int) -> tuple[int, ...]:
    """Return the number of pixels of each label value from 0 to values − 1.

    Counting value by value is several times faster than `np.bincount`, which widens every pixel
    to 8 bytes first.
    """
    counts = [int(np.count_nonzero(labels == value)) for value in range(1, values)]
    return (labels.size - sum(counts), *counts)
