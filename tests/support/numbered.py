"""Samples that show their number, or fail at one; other processes can make them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Literal

import torch

from wsi_unet.errors import SlideError
from wsi_unet.training.augmentation.samples import Sample, SampleSides
from wsi_unet.training.loop.batches import Batch

Mishap = Literal["none", "slide", "bug", "odd bug", "exit", "death", "nan"]


class OddError(Exception):
    """An error that can be pickled but not unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"odd: {one} and {other}")


@dataclass(frozen=True)
class Numbered:
    """Samples whose pixels are their number.

    Attributes:
        mishap: what goes wrong when the sample `at` is requested.
        at: number of that sample.
        side: side of a sample, px.
        seconds: time that each sample takes.
        channels: channels of the images.
    """

    mishap: Mishap = "none"
    at: int = -1
    side: int = 4
    seconds: float = 0.0
    channels: int = 3

    @property
    def sides(self) -> SampleSides:
        """Sides of images and labels, px."""
        return SampleSides(self.side, self.side)

    def __getitem__(self, number: int) -> Sample:
        value = float(number)
        time.sleep(self.seconds)
        if number == self.at:
            if self.mishap == "slide":
                raise SlideError("a.svs: tile 7 is damaged")
            if self.mishap == "bug":
                raise KeyError("bug")
            if self.mishap == "odd bug":
                raise OddError("a", "b")
            if self.mishap == "exit":
                raise SystemExit(3)
            if self.mishap == "death":
                os._exit(9)
            value = float("nan") if self.mishap == "nan" else value
        labels = torch.full((self.side, self.side), number % 2, dtype=torch.uint8)
        labels[0, 0] = 255
        shape = (self.channels, self.side, self.side)
        return Sample(
            image=torch.full(shape, value) + torch.arange(float(self.channels))[:, None, None] / 4,
            labels=labels,
            weights=torch.full((self.side, self.side), value),
            where=f"{number} of process {os.getpid()}",
        )


def put_together(samples: list[Sample]) -> Batch:
    """Return a batch of samples, on the CPU."""
    images = torch.stack([sample.image for sample in samples])
    return Batch(
        images=images.contiguous(memory_format=torch.channels_last),
        labels=torch.stack([sample.labels.long() for sample in samples]),
        weights=torch.stack([sample.weights for sample in samples]),
        where=tuple(sample.where for sample in samples),
    )
