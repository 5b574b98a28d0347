"""Making the spec of an imported model from its file and the user's hints."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from wsi_unet.errors import OptionError
from wsi_unet.models.importing.hints import NO_BACKGROUND, ImportHints
from wsi_unet.models.spec import BACKGROUND_NAME, ModelClass, ModelSpec, Normalisation
from wsi_unet.models.validation_errors import first_problem
from wsi_unet.wording import count

if TYPE_CHECKING:
    from wsi_unet.models.spec import Architecture

USUAL_WINDOW = 512
"""Side of the windows for networks whose output depends on it, unless the user says it, px."""

SCALES = {
    "0..1": (0.0, 1.0),
    "-1..1": (0.5, 0.5),
    "0..255": (0.0, 1 / 255),
}
"""Mean and deviation that bring intensities from 0…1 into these ranges."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of R, G, B over ImageNet."""


@dataclass(frozen=True)
class FileFacts:
    """What is known about an imported network without the user.

    Attributes:
        title: whose network or what kind of program it is, for messages.
        head: what its output goes through, where that is known.
        activated: whether the network includes its head.
        assumed: what is assumed about it, in words.
    """

    title: str
    head: Literal["softmax", "sigmoid"] | None
    activated: bool = False
    assumed: tuple[str, ...] = ()


def make_spec(
    path: Path, facts: FileFacts, architecture: Architecture, hints: ImportHints
) -> ModelSpec:
    """Make the spec of an imported model.

    Args:
        path: the checkpoint or program; the model is named after it unless `hints` name it.
        facts: what is known about its network.
        architecture: the network's architecture.
        hints: what the user says about it.

    Raises:
        OptionError: the hints contradict each other or the network.
    """
    head = hints.head or facts.head or ("softmax" if architecture.classes > 1 else "sigmoid")
    window = _choose_window(path, architecture, hints)
    order = hints.channels or _usual_order(path, architecture)
    classes = _make_classes(architecture.classes, hints.classes)
    background = _choose_background(head, classes, hints.background)
    assumed = (
        *facts.assumed,
        *_assumed_input(order, hints),
        *_assumed_output(head, background, facts, hints),
        *([f"windows of {window} px"] if window is not None and hints.window is None else []),
    )
    try:
        return ModelSpec(
            name=hints.name or model_name(path),
            architecture=architecture,
            head=head,
            activated=facts.activated,
            thresholds=hints.thresholds,
            window=window,
            classes=classes,
            background=background,
            mpp=hints.mpp,
            channel_order=order,
            normalisation=_parse_scale(hints.scale or "0..1", order),
            license=hints.license,
            description=f"imported from {path.name} ({facts.title})",
            assumed=assumed,
        )
    except ValidationError as error:
        raise OptionError(f"{path}: {first_problem(error)}") from error


def _assumed_input(order: str, hints: ImportHints) -> Iterator[str]:
    """Yield what is assumed about the image, since the user doesn't say it."""
    if hints.channels is None:
        yield "a grey image" if order == "gray" else "channels in the order red, green, blue"
    if hints.scale is None:
        yield "intensities from 0 to 1"
    if hints.mpp is None:
        yield "any pixel size: the slide's own"


def _assumed_output(
    head: str, background: str | None, facts: FileFacts, hints: ImportHints
) -> Iterator[str]:
    """Yield what is assumed about the classes, since neither user nor program says it."""
    if hints.head is None and not facts.activated:
        yield "softmax over the classes" if head == "softmax" else "a sigmoid for each class"
    if hints.classes is None:
        yield "classes by number"
    if hints.background is None and background is not None:
        yield f"{background} as background"
    if hints.thresholds is None and head == "sigmoid":
        yield "thresholds of 0.5"


def model_name(path: Path) -> str:
    """Return the name of a model that is made from a file.

    >>> model_name(Path("my best/U-Net (final).pth"))
    'U-Net-final'
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:64]
    return name or "imported"


def choose_colours(count: int) -> tuple[str, ...]:
    """Return `count` colours, "#rrggbb", no two of them alike.

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


def _make_classes(outputs: int, names: tuple[str, ...] | None) -> tuple[ModelClass, ...]:
    if names is None:
        names = tuple(f"class-{index}" for index in range(outputs))
    if len(names) != outputs:
        raise OptionError(
            f"`classes`: {count(len(names), 'name')} for a network with "
            f"{count(outputs, 'output')}; name each, in order",
            option="classes",
        )
    return tuple(
        ModelClass(name=name, color=color)
        for name, color in zip(names, choose_colours(outputs), strict=True)
    )


def _choose_background(head: str, classes: tuple[ModelClass, ...], hint: str | None) -> str | None:
    """Return the background class: the hint's, the one of that name, or else the first."""
    names = [item.name for item in classes]
    if head == "sigmoid" and hint not in (None, NO_BACKGROUND):
        raise OptionError(
            f"`background={hint}`: with a sigmoid head, background is where no class is above its "
            f"threshold; leave it out (`background={NO_BACKGROUND}`)",
            option="background",
        )
    if hint == NO_BACKGROUND or (hint is None and head == "sigmoid"):
        if BACKGROUND_NAME in names:
            other = "" if head == "sigmoid" else f", or give `background={BACKGROUND_NAME}`"
            raise OptionError(
                f"`classes`: one is called {BACKGROUND_NAME!r}, but the model has no background "
                f"(`background={NO_BACKGROUND}`); rename it{other}",
                option="classes",
            )
        return None
    if hint is None:
        return BACKGROUND_NAME if BACKGROUND_NAME in names else names[0]
    return hint


def _usual_order(path: Path, architecture: Architecture) -> Literal["rgb", "gray"]:
    orders: dict[int, Literal["rgb", "gray"]] = {1: "gray", 3: "rgb"}
    if architecture.in_channels not in orders:
        raise OptionError(
            f"{path} takes images of {architecture.in_channels} channels; slides have red, green "
            "and blue, so networks with 1 or 3 are imported"
        )
    return orders[architecture.in_channels]


def _choose_window(path: Path, architecture: Architecture, hints: ImportHints) -> int | None:
    """Return the side of the only window, px; None where any will do."""
    interpolates = architecture.local and architecture.depends_on_size
    if hints.interpolation is not None and not interpolates:
        raise OptionError(
            f"`interpolation`: {path} has no interpolation with aligned corners; leave it out",
            option="interpolation",
        )
    if hints.interpolation == "global" and hints.window is not None:
        raise OptionError(
            "`interpolation=global` takes windows of any size: leave out `window`", option="window"
        )
    border = architecture.border()
    if hints.window is not None and border.edge == "clip" and hints.window % border.period:
        raise OptionError(
            f"`window={hints.window}`: {path} takes windows of multiples of {border.period} px",
            option="window",
        )
    any_size = hints.interpolation == "global" or not architecture.depends_on_size
    if hints.window is not None or any_size:
        return hints.window
    return USUAL_WINDOW


def _parse_scale(scale: str, order: str) -> Normalisation:
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
        means, stds = (tuple(map(float, numbers.split(","))) for numbers in scale.split("/"))
        return Normalisation(mean=means, std=stds)
    except ValueError as error:
        raise OptionError(
            f"`scale`: {scale!r} is none of {', '.join(SCALES)}, imagenet (of 3 channels), slide "
            "or numbers MEAN,…/STD,…",
            option="scale",
        ) from error
