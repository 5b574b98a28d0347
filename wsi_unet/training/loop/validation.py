"""Measuring a network on fields, with the same code that `segment` labels slides with.

Windows have the network's border, are mirrored at the field's edges, and go through the same
`Predictor`, so the scores are those of the model in use. A field may be a slide: it is read tile by
tile, and only counts are kept.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsi_unet.errors import ModelError
from wsi_unet.geometry import Border, Box, Shape, round_up
from wsi_unet.models.inference.predictor import Prediction, Predictor
from wsi_unet.models.model import Model
from wsi_unet.models.spec import ModelSpec
from wsi_unet.models.stored_network import StoredModule
from wsi_unet.training.artifacts.pictures import LabelledWindow
from wsi_unet.training.fields import TrainingField
from wsi_unet.training.loop.learner import DivergedError
from wsi_unet.training.loop.scores import PixelCounts, Scores

TILE = 512
"""Side of a tile's core, px; rounded up to the period."""

AHEAD = 2
"""Tiles that are read or waiting for each tile that is computed."""

Labels = NDArray[np.uint8]
T = TypeVar("T")


def network_as_model(network: nn.Module, spec: ModelSpec) -> Model:
    """Return a model with a copy of a network in training."""
    copied = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    return Model(spec, Path("the network in training"), "", StoredModule(copied))


class FieldLabeller:
    """A model on a device, which labels fields.

    Args:
        model: the model.
        device: "cpu" or "cuda:i".
        precision: number type of the network.
        threads: threads to use on the CPU.
    """

    def __init__(self, model: Model, *, device: str, precision: str, threads: int) -> None:
        self.spec = model.spec
        self._predictor = Predictor(model, device=device, precision=precision, threads=threads)

    def measure(self, fields: Sequence[TrainingField], tiles: int = 0) -> Scores:
        """Return the model's scores over all pixels with known labels.

        Args:
            fields: fields to measure together.
            tiles: most tiles to measure, always the same ones; 0: all.

        Raises:
            DivergedError: if the model computes NaN or infinite numbers.
            SlideError: if a field can't be read.
        """
        counts = PixelCounts(self.spec)
        boxes = [
            (field, core.intersection(area))
            for field in fields
            for area in field.areas
            for core in tile_cores(self._predictor.border, area, field.shape)
        ]
        for labelled in self.label(pick_evenly(boxes, tiles or len(boxes))):
            counts.add(labelled.truth, labelled.labels)
        return Scores.from_counts(counts, self.spec, len(fields))

    def label(self, boxes: Iterable[tuple[TrainingField, Box]]) -> Iterator[LabelledWindow]:
        """Label boxes of fields, and yield them tile by tile, in order.

        Args:
            boxes: fields, each with a box inside it, px of the field.

        Raises:
            DivergedError: if the model computes NaN or infinite numbers.
            SlideError: if a field can't be read.
        """
        slots = self._predictor.slots
        waiting: deque[_Pending] = deque()
        with ThreadPoolExecutor(slots, "validation") as pool:
            for number, (field, box) in enumerate(boxes):
                for core in tile_cores(self._predictor.border, box, field.shape):
                    waiting.append(self._submit(pool, number, field, core, box))
                    if len(waiting) > AHEAD * slots:
                        yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def label_whole(self, boxes: Sequence[tuple[TrainingField, Box]]) -> list[LabelledWindow]:
        """Label boxes of fields, and return each as a whole; they should be small.

        Raises:
            DivergedError: if the model computes NaN or infinite numbers.
            SlideError: if a field can't be read.
        """
        wholes = [_blank(number, box, self._predictor) for number, (_, box) in enumerate(boxes)]
        for tile in self.label(boxes):
            whole, area = wholes[tile.number], tile.area.slices()
            whole.image[area] = tile.image
            whole.truth[area] = tile.truth
            whole.labels[:, *area] = tile.labels
        return wholes

    def _submit(
        self, pool: ThreadPoolExecutor, number: int, field: TrainingField, core: Box, box: Box
    ) -> _Pending:
        window = self._predictor.border.window(core, field.shape)
        read = field.read(window)
        wanted = core.intersection(box)
        inner = wanted.relative_to(window).slices()
        future = pool.submit(self._predictor.predict, read.image, window, core, field.shape)
        return _Pending(
            field.name,
            number,
            wanted.relative_to(box),
            read.image[inner],
            read.labels[inner],
            future,
            wanted.relative_to(core).slices(),
        )


@dataclass(frozen=True, eq=False)
class _Pending:
    """A tile that is being labelled; `wanted` is where the box lies in the tile's core."""

    name: str
    number: int
    area: Box
    image: Labels
    truth: Labels
    future: Future[Prediction]
    wanted: tuple[slice, slice]

    def result(self) -> LabelledWindow:
        try:
            labels = self.future.result().labels
        except ModelError as error:
            raise DivergedError(
                f"the network computes NaN or infinite numbers where {self.name} is measured; "
                "start over with a lower optimiser.rate, or with optimiser.clip (the last good "
                "model is kept)"
            ) from error
        wanted = labels[:, *self.wanted]
        return LabelledWindow(self.number, self.area, self.image, self.truth, wanted)


def pick_evenly(items: Sequence[T], most: int) -> list[T]:
    """Return at most `most` items, evenly spaced in the sequence."""
    if len(items) <= most:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * most)] for i in range(most)]


def _blank(number: int, box: Box, predictor: Predictor) -> LabelledWindow:
    """Return a window without content, to be filled tile by tile."""
    whole = Box.from_shape(box.shape)
    image, truth = np.zeros((*box.shape, 3), np.uint8), np.zeros(box.shape, np.uint8)
    labels = np.zeros((predictor.label_images, *box.shape), np.uint8)
    return LabelledWindow(number, whole, image, truth, labels)


def tile_cores(border: Border, box: Box, shape: Shape) -> Iterator[Box]:
    """Yield the cores of tiles that cover a box.

    They are aligned to the network's period, or to its only tile size if it has one.

    Args:
        border: border of the network.
        box: box inside the field, px of the field.
        shape: (rows, columns) of the field, px.
    """
    unit = border.tile or border.period
    side = border.tile or round_up(TILE, border.period)
    last = (min(round_up(box.y1, unit), shape[0]), min(round_up(box.x1, unit), shape[1]))
    for tile in Box(box.y0 // unit * unit, box.x0 // unit * unit, *last).tiles(side):
        yield border.core(tile)
