"""User hints for importing a checkpoint or a program: what the file itself doesn't say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from wsi_unet.errors import OptionError
from wsi_unet.models.importing.families import ShapeHints

NO_BACKGROUND = "none"
"""What `ImportHints.background` says where no class is background."""

TORCH_LEAKY_SLOPE = 0.01
"""Torch's own negative slope of a leaky ReLU."""


@dataclass(frozen=True)
class ImportHints:
    """What the user says about a checkpoint or program; None where nothing was said.

    >>> ImportHints(classes=("background", "nuclei"), mpp=0.5, scale="imagenet").family
    'auto'

    Attributes:
        family: name of the checkpoint's family, or "auto".
        entry: where in the checkpoint the network lies, if there are several: the keys that lead
            there, joined by dots ("ema.model"); "." for the whole file.
        padding: "valid" or "same".
        norm: the normalisation, where it has no running statistics: "none", "instance", "batch"
            (without running statistics: by those of each window) or "group:G" (G groups).
        activation: "relu", "leaky-relu", or "leaky-relu=SLOPE".
        mpp: µm per pixel that the network was trained at.
        classes: the names of its outputs, in order.
        background: the name of the class that is background; "none" where there is none.
        scale: how intensities become its input: "0..1", "-1..1", "0..255", "imagenet", "slide"
            (zero mean and unit variance of each slide), or "MEAN,…/STD,…" of intensities up to 1.
        channels: order of its input channels: "rgb", "bgr" or "gray".
        head: "softmax" or "sigmoid".
        thresholds: with a sigmoid head, the probability above which a pixel belongs to a class,
            one per class.
        window: side of the only window that it runs on, px.
        interpolation: for networks with aligned corners: "fixed-tile" (as in windows of one size)
            or "global" (as over the whole slide, exact).
        license: the weights' license.
        name: the model's name.
    """

    family: str = "auto"
    entry: str | None = None
    padding: Literal["valid", "same"] | None = None
    norm: str | None = None
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
    def shape_hints(self) -> ShapeHints:
        """The hints that decide the network's architecture.

        Raises:
            OptionError: the activation or norm is none of those that are known.
        """
        slope = None if self.activation is None else _negative_slope(self.activation)
        norm = None if self.norm is None else _parse_norm(self.norm)
        return ShapeHints(self.padding, slope, norm)


def _negative_slope(activation: str) -> float:
    match = re.fullmatch(r"relu|leaky-relu(?:=(0?\.[0-9]+))?", activation)
    if match is None:
        raise OptionError(
            f"`activation`: {activation!r} is none of relu, leaky-relu, leaky-relu=SLOPE",
            option="activation",
        )
    return 0.0 if activation == "relu" else float(match[1] or TORCH_LEAKY_SLOPE)


def _parse_norm(norm: str) -> str:
    """Return a norm as architectures write it."""
    match = re.fullmatch(r"none|instance|batch|group[:=]([1-9][0-9]{0,4})", norm)
    if match is None:
        raise OptionError(
            f"`norm`: {norm!r} is none of none, instance, batch, group:G (G is the number of "
            "groups)",
            option="norm",
        )
    return f"group:{match[1]}" if match[1] else norm
