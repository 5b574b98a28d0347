"""Copying one block of the slide's own pixels beside the labels, so that viewers show both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from wsi_unet.geometry import BlockIndex
from wsi_unet.labels.progress import BlockMarker, Progress
from wsi_unet.labels.pyramid import reduce_mean
from wsi_unet.labels.writer import write_block
from wsi_unet.segmentation.parameters import ImageParameters
from wsi_unet.segmentation.worker.run_once import (
    BlockRunner,
    Stopwatch,
    WrittenBlock,
    check_current,
    run_once,
)
from wsi_unet.slides.resample import Raster
from wsi_unet.slides.slide import Slide
from wsi_unet.storage.store import ByteStore


@dataclass(frozen=True)
class ImageBlockRunner(BlockRunner):
    """What a process holds open to store the blocks of one slide's image.

    Attributes:
        parameters: the image's parameters.
        slide: the open slide behind `raster`.
        raster: the slide on the image's pixel grid.
        store: the output store.
        progress: the image's progress files.
    """

    parameters: ImageParameters
    slide: Slide
    raster: Raster
    store: ByteStore
    progress: Progress

    @override
    def run(self, index: BlockIndex, attempt: int) -> BlockMarker:
        signature = self.parameters.signature()

        def work(clock: Stopwatch) -> WrittenBlock:
            with clock.measure("read"):
                pixels = self.raster.read(self.parameters.grid.core(index))
            with clock.measure("write"):
                check_current(self.progress, signature)
                channels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
                pyramid = self.parameters.pyramid
                return WrittenBlock(
                    write_block(self.store, "", pyramid, index, channels, reduce_mean)
                )

        name = f"{self.parameters.slide.name} (image)"
        return run_once(self.progress, signature, index, attempt, name, work, None)

    @override
    def close(self) -> None:
        self.slide.close()
