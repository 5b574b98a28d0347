"""Pictures of a training: its learning curve, and predictions for a few windows."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_unet.atomic_files import replace_file
from wsi_unet.colour import parse_colour
from wsi_unet.geometry import Box, Shape
from wsi_unet.models.spec import ModelSpec
from wsi_unet.training.fields import IGNORED, TrainingField

NO_MATPLOTLIB = (
    "no learning curve is drawn, since matplotlib isn't installed: pip install 'wsi-unet[train]'"
)

EXAMPLES = 6
"""Number of windows shown."""

SIDE = 256
"""Side of a window, px."""

GAP = 8
"""Gap between pictures, px."""

SMOOTH = 0.03
"""Time constant of the smoothed loss, as a share of all iterations."""

GREY = (128, 128, 128)
"""Colour of ignored pixels."""

BLACK = (0, 0, 0)
"""Colour of pixels of no class."""

Rgb = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LabelledWindow:
    """A window of a field with its predicted labels.

    Attributes:
        number: number of the box that it was cut from.
        area: where it lies in that box, px from the box's corner.
        image: (h, w, 3) RGB.
        truth: (h, w), see `FieldWindow.labels`.
        labels: (label images, h, w), predicted label values.
    """

    number: int
    area: Box
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
    """Plot loss, Dice and rate over the iterations as a PNG.

    Args:
        columns: the journal's columns by name.
        path: path of the picture.

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
    replace_file(path, content.getbuffer())


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exponential moving average, without bias at its beginning."""
    past = math.exp(-1 / max(1.0, SMOOTH * len(values)))
    result, total, weight = np.empty(len(values)), 0.0, 0.0
    for index, value in enumerate(values):
        total, weight = past * total + value, past * weight + 1
        result[index] = total / weight
    return result


def choose_examples(
    fields: Sequence[TrainingField], classes: int, seed: int
) -> list[tuple[TrainingField, Box]]:
    """Return a few random boxes of fields, around pixels of each class in turn.

    Args:
        fields: fields to choose from.
        classes: number of classes.
        seed: seed of the choice.
    """
    rng = np.random.default_rng([seed, EXAMPLES])
    examples: list[tuple[TrainingField, Box]] = []
    for number in range(EXAMPLES if fields else 0):
        index = number % classes
        suitable = [field for field in fields if field.amounts.get(index, 0) > 0]
        candidates = suitable or fields
        field = candidates[int(rng.integers(len(candidates)))]
        y, x = field.point(index if suitable else None, rng)
        example = field, _box_around(y, x, field.shape)
        if example not in examples:  # a field no larger than a box gives the same one again
            examples.append(example)
    return examples


def _box_around(y: int, x: int, shape: Shape) -> Box:
    """Return a box around a pixel, moved so that it lies inside a field of this shape."""
    rows, columns = (min(SIDE, side) for side in shape)
    top = min(max(0, y - rows // 2), shape[0] - rows)
    left = min(max(0, x - columns // 2), shape[1] - columns)
    return Box(top, left, top + rows, left + columns)


def draw_examples(windows: Sequence[LabelledWindow], spec: ModelSpec, path: Path) -> None:
    """Draw windows as a PNG, one in each row: the image, the truth, the prediction.

    Raises:
        OutputError: if it can't be written.
    """
    rows = [
        (window.image, paint_truth(window.truth, spec), paint_labels(window.labels, spec))
        for window in windows
    ]
    height, width = np.max([window.truth.shape for window in windows], axis=0).tolist()
    canvas = np.full((_length(len(rows), height), _length(3, width), 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            y, x = GAP + i * (height + GAP), GAP + j * (width + GAP)
            canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    content = io.BytesIO()
    Image.fromarray(canvas).save(content, "PNG")
    replace_file(path, content.getbuffer())


def paint_truth(truth: NDArray[np.uint8], spec: ModelSpec) -> Rgb:
    """Return (h, w, 3): classes in their colours, ignored pixels grey, pixels of no class black."""
    table = np.full((256, 3), BLACK, np.uint8)
    table[: len(spec.classes)] = [parse_colour(model_class.color) for model_class in spec.classes]
    table[IGNORED] = GREY
    return np.asarray(table[truth])


def paint_labels(labels: NDArray[np.uint8], spec: ModelSpec) -> Rgb:
    """Return label images as (h, w, 3); where classes overlap, the last one is painted on top."""
    painted = np.full((*labels.shape[1:], 3), BLACK, np.uint8)
    if len(labels) == 1:
        masks = [labels[0] == value for value in spec.label_values]
    else:
        masks = [image == 1 for image in labels]
    for mask, model_class in zip(masks, spec.classes, strict=True):
        painted[mask] = parse_colour(model_class.color)
    return painted


def _length(count: int, side: int) -> int:
    return GAP + count * (side + GAP)
