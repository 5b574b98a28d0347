"""Measuring a network on fields, with the very arithmetic that `segment` labels slides with.

Windows have the network's border, are mirrored at the field's edges, and go through the same
`Predictor`; so what is measured is what the model gives. A field may be a slide: it is read tile by
tile, and nothing but counts is kept.
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
from wsi_unet.models.checkpoint import Model
from wsi_unet.models.inference.predictor import Prediction, Predictor
from wsi_unet.models.spec import ModelSpec
from wsi_unet.models.weights_source import StoredModule
from wsi_unet.training.artifacts.pictures import LabelledPiece
from wsi_unet.training.fields import Field
from wsi_unet.training.loop.learner import DivergedError
from wsi_unet.training.loop.scores import PixelCounts, Scores

TILE = 512
"""Side of a tile's core, px, rounded up to the period."""

AHEAD = 2
"""Tiles that are read for each that is computed."""

Labels = NDArray[np.uint8]
T = TypeVar("T")


def model_of(network: nn.Module, spec: ModelSpec) -> Model:
    """Return a network in training as a model, as it is now."""
    own = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    return Model(spec, Path("the network in training"), "", StoredModule(own))


class FieldLabeller:
    """A model on a device, to label fields with.

    Args:
        model: what to measure.
        device: "cpu" or "cuda:i".
        precision: number type of the network.
        threads: cores to use on the CPU.
    """

    def __init__(self, model: Model, *, device: str, precision: str, threads: int) -> None:
        self.spec = model.spec
        self._predictor = Predictor(model, device=device, precision=precision, threads=threads)

    def measure(self, fields: Sequence[Field], tiles: int = 0) -> Scores:
        """Return how well the model labels what is known of fields.

        Args:
            fields: to be measured together.
            tiles: how many are measured at most, always the same; 0: all.

        Raises:
            DivergedError: if it computes something that isn't a number.
            SlideError: if a field can't be read.
        """
        counts = PixelCounts(self.spec)
        wanted = [
            (field, core.intersection(area))
            for field in fields
            for area in field.areas
            for core in cores_of(self._predictor.border, area, field.shape)
        ]
        for labelled in self.label(thinned(wanted, tiles or len(wanted))):
            counts.add(labelled.truth, labelled.labels)
        return Scores.of(counts, self.spec, len(fields))

    def label(self, boxes: Iterable[tuple[Field, Box]]) -> Iterator[LabelledPiece]:
        """Label boxes of fields, tile by tile, in order.

        Args:
            boxes: each inside its field, px of the field.

        Raises:
            DivergedError: if the model computes something that isn't a number.
            SlideError: if a field can't be read.
        """
        slots = self._predictor.slots
        waiting: deque[_Pending] = deque()
        with ThreadPoolExecutor(slots, "validation") as pool:
            for number, (field, box) in enumerate(boxes):
                for core in cores_of(self._predictor.border, box, field.shape):
                    waiting.append(self._submit(pool, number, field, core, box))
                    if len(waiting) > AHEAD * slots:
                        yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def label_whole(self, boxes: Sequence[tuple[Field, Box]]) -> list[LabelledPiece]:
        """Label boxes of fields, each as a whole; they should be small.

        Raises:
            DivergedError: if the model computes something that isn't a number.
            SlideError: if a field can't be read.
        """
        wholes = [_blank(number, box, self._predictor) for number, (_, box) in enumerate(boxes)]
        for part in self.label(boxes):
            whole, place = wholes[part.number], part.place.slices()
            whole.image[place] = part.image
            whole.truth[place] = part.truth
            whole.labels[:, *place] = part.labels
        return wholes

    def _submit(
        self, pool: ThreadPoolExecutor, number: int, field: Field, core: Box, box: Box
    ) -> _Pending:
        window = self._predictor.border.window(core, field.shape)
        piece = field.read(window)
        wanted = core.intersection(box)
        part = wanted.relative_to(window).slices()
        future = pool.submit(self._predictor.predict, piece.image, window, core, field.shape)
        return _Pending(
            field.name,
            number,
            wanted.relative_to(box),
            piece.image[part],
            piece.labels[part],
            future,
            wanted.relative_to(core).slices(),
        )


@dataclass(frozen=True, eq=False)
class _Pending:
    """A tile that is being labelled; `part` of its core is wanted."""

    name: str
    number: int
    place: Box
    image: Labels
    truth: Labels
    future: Future[Prediction]
    part: tuple[slice, slice]

    def result(self) -> LabelledPiece:
        try:
            labels = self.future.result().labels
        except ModelError as error:
            raise DivergedError(
                f"the network computes NaN or infinite numbers where {self.name} is measured; "
                "begin anew with a lower optimiser.rate, or with optimiser.clip (the last good "
                "model is kept)"
            ) from error
        wanted = labels[:, *self.part]
        return LabelledPiece(self.number, self.place, self.image, self.truth, wanted)


def thinned(tiles: Sequence[T], most: int) -> list[T]:
    """Return all, or as many as wanted, evenly out of the whole sequence."""
    if len(tiles) <= most:
        return list(tiles)
    return [tiles[(2 * i + 1) * len(tiles) // (2 * most)] for i in range(most)]


def _blank(number: int, box: Box, predictor: Predictor) -> LabelledPiece:
    whole = Box.of_shape(box.shape)
    image, truth = np.zeros((*box.shape, 3), np.uint8), np.zeros(box.shape, np.uint8)
    labels = np.zeros((predictor.label_images, *box.shape), np.uint8)
    return LabelledPiece(number, whole, image, truth, labels)


def cores_of(border: Border, box: Box, shape: Shape) -> Iterator[Box]:
    """Yield the cores of tiles that cover a box: aligned to the period, or to the only tile.

    Args:
        border: of the network.
        box: inside the field, px of it.
        shape: (rows, columns) of the field, px.
    """
    unit = border.tile or border.period
    side = border.tile or round_up(TILE, border.period)
    last = (min(round_up(box.y1, unit), shape[0]), min(round_up(box.x1, unit), shape[1]))
    for tile in Box(box.y0 // unit * unit, box.x0 // unit * unit, *last).tiles(side):
        yield border.core(tile)
