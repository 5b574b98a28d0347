"""What a checkpoint from elsewhere can't tell, as the user tells it, and the spec made of it."""

from __future__ import annotations

import colorsys
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from wsi_unet.errors import OptionError
from wsi_unet.models.importing.families.layout import ShapeHints
from wsi_unet.models.spec import BACKGROUND_NAME, ModelClass, ModelSpec, Normalisation
from wsi_unet.models.validation_errors import first_problem

if TYPE_CHECKING:
    from wsi_unet.models.spec import Architecture

USUAL_WINDOW = 512
"""Side of the windows for networks whose result depends on it, unless told, px."""

NO_BACKGROUND = "none"

SCALES = {
    "0..1": (0.0, 1.0),
    "-1..1": (0.5, 0.5),
    "0..255": (0.0, 1 / 255),
}
"""Mean and deviation that bring intensities, of which 1 is the largest, into these ranges."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of R, G, B


@dataclass(frozen=True)
class ImportHints:
    """What the user says of a checkpoint; None where nothing was said.

    Attributes:
        family: its family's name, or "auto".
        padding: "valid" or "same".
        norm: which normalisation there is that has no weights: "none" or "instance".
        activation: "relu", "leaky-relu", or "leaky-relu=SLOPE".
        mpp: µm per pixel that it was trained at.
        classes: the names of its outputs.
        background: the name of the class that is background; "none" where there is none.
        scale: how intensities become its input: a name in `SCALES`, "imagenet", "slide", or
            numbers, "MEAN,…/STD,…".
        channels: "rgb", "bgr" or "gray".
        head: "softmax" or "sigmoid".
        thresholds: of a sigmoid head, one per class.
        window: side of the only window that it is run on, px.
        interpolation: of networks with aligned corners: "fixed-tile" or "global".
        license: of the weights.
        name: of the model.
    """

    family: str = "auto"
    padding: Literal["valid", "same"] | None = None
    norm: Literal["none", "instance"] | None = None
    activation: str | None = None
    mpp: float | None = None
    classes: tuple[str, ...] | None = None
    background: str | None = None
    scale: str | None = None
    channels: Literal["rgb", "bgr", "gray"] | None = None
    head: Literal["softmax", "sigmoid"] | None = None
    thresholds: tuple[float, ...] | None = None
    window: int | None = None
    interpolation: Literal["fixed-tile", "global"] | None = None
    license: str = ""
    name: str | None = None

    @property
    def answers(self) -> ShapeHints:
        """Return what decides the network's shape.

        Raises:
            OptionError: if the activation is none of those that are known.
        """
        negative_slope = None if self.activation is None else _negative_slope(self.activation)
        return ShapeHints(self.padding, negative_slope, self.norm)


@dataclass(frozen=True)
class FileFacts:
    """What an imported network is known to be, whatever the user says.

    Attributes:
        title: what it is, for people.
        head: of its output, where it is known.
        activated: whether the head is part of the network.
        assumed: what else it is taken to be, which nothing tells.
    """

    title: str
    head: Literal["softmax", "sigmoid"] | None
    activated: bool = False
    assumed: tuple[str, ...] = ()


def make_spec(
    path: Path, origin: FileFacts, architecture: Architecture, told: ImportHints
) -> ModelSpec:
    """Make the spec of an imported model.

    Args:
        path: of the checkpoint, after which the model is called unless told.
        origin: whose it is.
        architecture: what was inferred.
        told: the rest.

    Raises:
        OptionError: if what was told contradicts itself or the network.
    """
    head = told.head or origin.head or ("softmax" if architecture.classes > 1 else "sigmoid")
    order = told.channels or _usual_order(path, architecture)
    classes = _classes(architecture.classes, told.classes)
    try:
        return ModelSpec(
            name=told.name or model_name(path),
            architecture=architecture,
            head=head,
            activated=origin.activated,
            thresholds=told.thresholds,
            window=_window(path, architecture, told),
            classes=classes,
            background=_background(head, classes, told.background),
            mpp=told.mpp,
            channel_order=order,
            normalisation=_scaling(told.scale or "0..1", order),
            license=told.license,
            description=f"imported from {path.name} ({origin.title})",
            assumed=origin.assumed,
        )
    except ValidationError as error:
        raise OptionError(f"{path}: {first_problem(error)}") from error


def distinct_colors(count: int) -> tuple[str, ...]:
    """Return so many colours, "#rrggbb", no two of them alike.

    Neighbours in the list differ in hue by the golden section; each turn of the circle is darker.
    """
    colors: dict[str, None] = {}
    index = 0
    while len(colors) < count:
        hue, turn = (index * 0.618034) % 1, index // 12
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 - 0.25 * (turn % 3), 1 - 0.08 * (turn % 8))
        colors[f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"] = None
        index += 1
    return tuple(colors)


def _classes(count: int, names: tuple[str, ...] | None) -> tuple[ModelClass, ...]:
    if names is None:
        names = tuple(f"class-{index}" for index in range(count))
    if len(names) != count:
        raise OptionError(
            f"--classes: {len(names)} names for a network with {count} outputs; name each, in order"
        )
    return tuple(
        ModelClass(name=name, color=color)
        for name, color in zip(names, distinct_colors(count), strict=True)
    )


def _background(head: str, classes: tuple[ModelClass, ...], told: str | None) -> str | None:
    """Return the class that is background: as told, the one called so, or else the first."""
    names = [item.name for item in classes]
    if head == "sigmoid" and told not in (None, NO_BACKGROUND):
        raise OptionError(
            f"--background {told}: with a sigmoid head, background is where no class is above its "
            "threshold; leave it out (--background none)"
        )
    if told == NO_BACKGROUND or (told is None and head == "sigmoid"):
        if BACKGROUND_NAME in names:
            other = "" if head == "sigmoid" else f", or give --background {BACKGROUND_NAME}"
            raise OptionError(
                f"--classes: one is called {BACKGROUND_NAME!r}, but the model has no background "
                f"(--background none); name it otherwise{other}"
            )
        return None
    if told is None:
        return BACKGROUND_NAME if BACKGROUND_NAME in names else names[0]
    return told


def _usual_order(path: Path, architecture: Architecture) -> Literal["rgb", "gray"]:
    orders: dict[int, Literal["rgb", "gray"]] = {1: "gray", 3: "rgb"}
    if architecture.in_channels not in orders:
        raise OptionError(
            f"{path} takes images of {architecture.in_channels} channels; slides have red, green "
            "and blue, so networks with 1 or 3 are imported"
        )
    return orders[architecture.in_channels]


def _window(path: Path, architecture: Architecture, told: ImportHints) -> int | None:
    """Return the side of the only window, px; None where any will do."""
    interpolated = architecture.local and architecture.depends_on_size
    if told.interpolation is not None and not interpolated:
        raise OptionError(f"--interpolation: {path} has no interpolation with aligned corners")
    if told.interpolation == "global" and told.window is not None:
        raise OptionError("--interpolation global takes windows of any size: leave out --window")
    border = architecture.border()
    if told.window is not None and border.edge == "clip" and told.window % border.period:
        raise OptionError(
            f"--window {told.window}: {path} takes windows of multiples of {border.period} px"
        )
    if (
        told.window is not None
        or told.interpolation == "global"
        or not architecture.depends_on_size
    ):
        return told.window
    return USUAL_WINDOW


def _scaling(scale: str, order: str) -> Normalisation:
    count = 1 if order == "gray" else 3
    if scale == "slide":
        # The numbers are for a slide without tissue.
        return Normalisation(mean=(0.5,) * count, std=(0.25,) * count, statistics="slide")
    if scale in SCALES:
        mean, std = SCALES[scale]
        return Normalisation(mean=(mean,) * count, std=(std,) * count)
    if scale == "imagenet" and count == 3:
        step = -1 if order == "bgr" else 1
        return Normalisation(mean=_IMAGENET[0][::step], std=_IMAGENET[1][::step])
    try:
        means, stds = (tuple(map(float, part.split(","))) for part in scale.split("/"))
        return Normalisation(mean=means, std=stds)
    except ValueError as error:
        raise OptionError(
            f"--scale: {scale!r} is none of {', '.join(SCALES)}, imagenet (of 3 channels), slide "
            "or numbers MEAN,…/STD,…"
        ) from error


def _negative_slope(activation: str) -> float:
    match = re.fullmatch(r"relu|leaky-relu(?:=(0?\.[0-9]+))?", activation)
    if match is None:
        raise OptionError(f"--activation: {activation!r} is none of relu, leaky-relu[=SLOPE]")
    return 0.0 if activation == "relu" else float(match[1] or 0.01)  # torch's own slope


def model_name(path: Path) -> str:
    """Return what a model is called that is made of a file."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:64]
    return name or "imported"
