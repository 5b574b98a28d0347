"""Pictures of a training: its learning curve, and what the network makes of a few places."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box, Shape
from wsi_unet.models.spec import ModelSpec
from wsi_unet.training.fields import IGNORED, Field

NO_MATPLOTLIB = (
    "no learning curve is drawn, since matplotlib isn't installed: pip install 'wsi-unet[train]'"
)

PLACES = 6
"""How many places are shown."""

SIDE = 256
"""Of a place, px."""

GAP = 8
"""Between pictures, px."""

SMOOTH = 0.03
"""Of all iterations, the share that the drawn mean of the loss reaches back."""

GREY = (128, 128, 128)
"""Of pixels that count for nothing."""

BLACK = (0, 0, 0)
"""Of pixels of no class."""

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LabelledPiece:
    """A piece of a field, as it is and as it was labelled.

    Attributes:
        number: of the box that it is of.
        place: what it is of that box, px in its frame.
        image: (h, w, 3) RGB.
        truth: (h, w), see `Piece.labels`.
        labels: (label images, h, w), label values.
    """

    number: int
    place: Box
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def can_draw_curves() -> bool:
    """Return whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def draw_curve(columns: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw loss, Dice and rate over the iterations as a PNG.

    Args:
        columns: of the journal.
        path: of the picture.

    Raises:
        OutputError: if it can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    iterations = np.array(columns["iteration"])
    loss = np.array(columns["loss"])
    upper.plot(iterations, loss, color="0.8", linewidth=0.7)
    upper.plot(iterations, smoothed(loss), color="C0", label="loss")
    upper.set_ylabel("loss")
    if (loss > 0).all():
        upper.set_yscale("log")
    measured = ~np.isnan(np.array(columns["mean_dice"]))
    for name in (name for name in columns if name.startswith("dice ") or name == "mean_dice"):
        mean = name == "mean_dice"
        middle.plot(
            iterations[measured],
            np.array(columns[name])[measured],
            marker=".",
            color="black" if mean else None,
            linewidth=2 if mean else 1,
            label="mean Dice" if mean else name.removeprefix("dice "),
        )
    middle.set_ylabel("Dice, held out")
    if measured.any():
        middle.legend(loc="lower right")
    lower.plot(iterations, columns["rate"], color="C1")
    lower.set_ylabel("rate")
    lower.set_xlabel("iteration")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    _put(content.getvalue(), path)


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an exponential mean, unbiased at its beginning."""
    past = math.exp(-1 / max(1.0, SMOOTH * len(values)))
    result, total, weight = np.empty(len(values)), 0.0, 0.0
    for index, value in enumerate(values):
        total, weight = past * total + value, past * weight + 1
        result[index] = total / weight
    return result


def choose_places(fields: Sequence[Field], classes: int, seed: int) -> list[tuple[Field, Box]]:
    """Return a few places of fields, each around a pixel of one class or another."""
    rng = np.random.default_rng([seed, PLACES])
    places: list[tuple[Field, Box]] = []
    for number in range(PLACES if fields else 0):
        index = number % classes
        able = [field for field in fields if field.amounts.get(index, 0) > 0]
        field = (able or fields)[int(rng.integers(len(able or fields)))]
        y, x = field.point(index if able else None, rng)
        place = field, _around(y, x, field.shape)
        if place not in places:  # of fields no larger than a place
            places.append(place)
    return places


def _around(y: int, x: int, shape: Shape) -> Box:
    rows, columns = (min(SIDE, side) for side in shape)
    top = min(max(0, y - rows // 2), shape[0] - rows)
    left = min(max(0, x - columns // 2), shape[1] - columns)
    return Box(top, left, top + rows, left + columns)


def draw_examples(places: Sequence[LabelledPiece], spec: ModelSpec, path: Path) -> None:
    """Draw places as a PNG, a row each: the image, its truth, what the network says.

    Raises:
        OutputError: if it can't be written.
    """
    rows = [
        (place.image, paint_truth(place.truth, spec), paint_labels(place.labels, spec))
        for place in places
    ]
    height, width = np.max([place.truth.shape for place in places], axis=0).tolist()
    canvas = np.full((_length(len(rows), height), _length(3, width), 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            y, x = GAP + i * (height + GAP), GAP + j * (width + GAP)
            canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    content = io.BytesIO()
    Image.fromarray(canvas).save(content, "PNG")
    _put(content.getvalue(), path)


def paint_truth(truth: NDArray[np.uint8], spec: ModelSpec) -> Rgb:
    """Return (h, w, 3): each class in its colour, what is ignored grey, no class black."""
    table = np.full((256, 3), BLACK, np.uint8)
    table[: len(spec.classes)] = [_rgb(one.color) for one in spec.classes]
    table[IGNORED] = GREY
    return np.asarray(table[truth])


def paint_labels(labels: NDArray[np.uint8], spec: ModelSpec) -> Rgb:
    """Return (h, w, 3) of label images; of classes that overlap, the last is seen."""
    painted = np.full((*labels.shape[1:], 3), BLACK, np.uint8)
    if len(labels) == 1:
        pairs = [(labels[0] == v, c) for v, c in zip(spec.label_values, spec.classes, strict=True)]
    else:
        pairs = [(image == 1, c) for image, c in zip(labels, spec.classes, strict=True)]
    for where, one in pairs:
        painted[where] = _rgb(one.color)
    return painted


def _length(count: int, side: int) -> int:
    return GAP + count * (side + GAP)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _put(content: bytes, path: Path) -> None:
    """Replace a file at one blow: somebody may be looking at it."""
    new = path.with_name(f".{path.name}.partial")
    try:
        new.write_bytes(content)
        new.replace(path)
    except OSError as error:
        raise OutputError(f"can't write {path}: {error.strerror or error}") from error
