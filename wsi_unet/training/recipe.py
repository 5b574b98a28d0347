"""What a training is to do, as data: read from TOML, checked, written beside the model.

A recipe may start from a shipped one (`base = "paper"` or `base = "modern"`) and says then only
what differs, and in any case its classes and its data.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.spec import ModelClass

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _ordered(factors: tuple[float, float]) -> tuple[float, float]:
    if factors[0] > factors[1]:
        raise ValueError(f"(least, most), but {factors[0]:g} is more than {factors[1]:g}")
    return factors


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
"""(least, most) factor; drawn on a logarithmic scale."""

Zoom = Annotated[float, Field(ge=0.1, le=10)]
ZoomRange = Annotated[tuple[Zoom, Zoom], AfterValidator(_ordered)]
"""A `Range` of sizes; bounded, since the window that is read grows with the square."""

FOR_HEADS = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}
"""Losses that only one kind of head can be trained with."""

FOR_RGB = ("counterstain", "stain", "stain_hue", "ground", "made_up")
"""What of `Colouring` needs the colours of dyes."""


class RecipeSection(BaseModel):
    """A part of a recipe: what isn't known in it is refused, and it is never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RecipeClass(RecipeSection):
    """A class to be learnt.

    Attributes:
        name: of the class.
        color: "#rrggbb", of its labels.
        values: the pixel values that mean it in label images; None: all that no other class has
            (of instance labels, every number above 0).
        annotations: the annotations' class names that mean it; none: its own name.
    """

    name: str
    color: str
    values: tuple[int, ...] | None = None
    annotations: tuple[str, ...] = ()

    def to_class(self) -> ModelClass:
        """Return it as a model's spec has it."""
        return ModelClass(name=self.name, color=self.color)


class DataSource(RecipeSection):
    """Images, or slides, with what is true of them.

    Attributes:
        images: a folder, file or glob pattern of images or slides; relative to the data folder.
        labels: the truth: a folder with a file of the same stem for each image (PNG or TIFF;
            GeoJSON or ASAP XML; a label OME-Zarr `<stem>.ome.zarr`), or one such file.
        kind: what the values of label images are: "classes", or "instances" (a number per
            object, 0 elsewhere, of one class).
        label: of label OME-Zarrs with several label groups, the group.
        mpp: µm per pixel of images that don't say, or say it wrong.
        object_diameter: where it isn't known at all, what the median object of an image has
            (µm): its magnification is told from that.
        group: a regular expression whose first group, matched on the file's stem, names the
            patient; None: every file is a patient. What is of one patient is never parted.
        within: annotations outside of which nothing is known, given like `labels`.
        ignore: annotation names, or values, whose pixels count for nothing.
        share: how often it is drawn from, relative to the other sources.
        license: of the data.
        citation: whom to name.
    """

    images: str
    labels: str
    kind: Literal["classes", "instances"] = "classes"
    label: str | None = None
    mpp: Positive | None = None
    object_diameter: Positive | None = None
    group: str | None = None
    within: str | None = None
    ignore: tuple[str | int, ...] = ()
    share: Positive = 1.0
    license: str = ""
    citation: str = ""


class Split(RecipeSection):
    """Which patients are trained on and which only measured.

    Attributes:
        folds: into how many parts the patients are cut; 1: all are trained on.
        fold: the part that is held out, from 0.
        order: "contiguous" (as files are named), "interleaved" (every so manieth), or "random".
        hold_out: sources (by number, from 0) that are held out as a whole and measured apart.
    """

    folds: int = Field(default=5, ge=1, le=1000)
    fold: int = Field(default=0, ge=0)
    order: Literal["contiguous", "interleaved", "random"] = "random"
    hold_out: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold: {self.fold} of {self.folds} folds; the first is 0")
        return self


class Sampling(RecipeSection):
    """Where samples are taken from.

    Attributes:
        tile: px of output per side (rounded up to what the network can give).
        batch: samples per iteration.
        classes: how often a sample's centre is on each class, by name, relative to each other;
            empty: centres lie anywhere, all pixels alike.
        jitter: how far the centre is moved at most, px.
        empty: share of samples that show made-up ground in which there is nothing to find.
    """

    tile: int = Field(default=256, ge=1, le=8192)
    batch: int = Field(default=8, ge=1, le=1024)
    classes: dict[str, NotNegative] = Field(default_factory=dict)
    jitter: int = Field(default=0, ge=0, le=8192)
    empty: Share = 0.0


class Warping(RecipeSection):
    """How samples are moved, turned and bent; image, labels and weights alike.

    Attributes:
        flips: whether they are flipped and turned by right angles.
        rotation: share that is turned by any angle.
        shift: px that they are moved by at most.
        scale: (least, most) factor of size, 0.1 to 10, drawn on a logarithmic scale.
        scaled: share that is scaled.
        squeeze: logarithm of the largest change of aspect, of those that are scaled.
        elastic: deviation of the displacements of a coarse grid, px; 0: none (the paper: 10).
        elastic_grid: points of that grid per side (the paper: 3).
        elastic_share: share that is bent.
    """

    flips: bool = False
    rotation: Share = 0.0
    shift: float = Field(default=0.0, ge=0, le=8192)
    scale: ZoomRange = (1.0, 1.0)
    scaled: Share = 1.0
    squeeze: Share = 0.0
    elastic: float = Field(default=0.0, ge=0, le=1000)
    elastic_grid: int = Field(default=3, ge=2, le=32)
    elastic_share: Share = 1.0


class Colouring(RecipeSection):
    """How the intensities of samples are varied, in this order; shares are how often.

    Attributes:
        counterstain: share whose ground, all that is background, is dyed apart from the objects,
            in a tone from pink to purple with made-up cytoplasm.
        stain: of haematoxylin, eosin and DAB (Ruifrok and Johnston 2001): largest logarithm of
            the factor of each dye's amount, so 0.3 is 0.74 to 1.35; 0: none.
        stain_hue: deviation of the dyes' own colours.
        ground: share whose white balance is changed, toward or away from the glass's.
        made_up: share over which made-up tissue without nuclei is laid.
        brightness: largest change, of 0 to 1.
        contrast: (least, most) factor.
        gamma: (least, most) exponent.
        blur: share that is blurred or sharpened.
        noise: largest deviation of added noise, of 0 to 1.
        low_resolution: share that is made coarser and enlarged again.
        jpeg: share that goes through JPEG.
    """

    counterstain: Share = 0.0
    stain: NotNegative = 0.0
    stain_hue: NotNegative = 0.0
    ground: Share = 0.0
    made_up: Share = 0.0
    brightness: NotNegative = 0.0
    contrast: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)
    blur: Share = 0.0
    noise: NotNegative = 0.0
    low_resolution: Share = 0.0
    jpeg: Share = 0.0


class Weighting(RecipeSection):
    """What a pixel weighs in the cross entropies.

    Attributes:
        balance: whether classes weigh inversely to how often they are, w_c.
        separation: w0 of the paper's w0·exp(−(d1 + d2)²/2σ²), d1 and d2 being the distances to
            the nearest two objects; 0: none (the paper: 10).
        sigma: σ, px (the paper: 5).
        part: px by which touching objects are parted by background; 0: they may touch.
    """

    balance: bool = False
    separation: NotNegative = 0.0
    sigma: Positive = 5.0
    part: int = Field(default=0, ge=0, le=9)


class LossTerm(RecipeSection):
    """One addend of the loss.

    Attributes:
        name: "cross_entropy", "binary_cross_entropy" (each class by itself), "dice" (1 − soft
            Dice, mean over classes), "iou" (1 − soft IoU, likewise) or "focal" (Lin et al. 2017).
        weight: its factor.
        gamma: exponent of the focal loss.
        background: whether "dice" and "iou" take the background for a class, too.
    """

    name: Literal["cross_entropy", "binary_cross_entropy", "dice", "iou", "focal"]
    weight: Positive = 1.0
    gamma: NotNegative = 2.0
    background: bool = False

    @model_validator(mode="after")
    def _check_background(self) -> LossTerm:
        if self.background and self.name not in ("dice", "iou"):
            raise ValueError(f"background: {self.name!r} takes every class anyway; leave it out")
        return self


class Optimiser(RecipeSection):
    """How weights are changed.

    Attributes:
        name: "sgd", "adam" or "adamw".
        rate: the (largest) learning rate.
        momentum: of SGD.
        nesterov: whether SGD looks ahead.
        decay: of the weights.
        schedule: of the rate: "constant", "poly" ((1 − i/n)^0.9), "cosine" or "onecycle" (up for
            the first twentieth, then down along a cosine).
        clip: largest norm of the gradient; 0: any.
        average: share of the past in an exponential mean of the weights, which is what is
            measured and kept; 0: the weights themselves.
    """

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    rate: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    decay: NotNegative = 0.0
    schedule: Literal["constant", "poly", "cosine", "onecycle"] = "constant"
    clip: NotNegative = 0.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: looks ahead along the momentum, which is 0")
        return self


class Running(RecipeSection):
    """How long, and how it is watched.

    Attributes:
        iterations: steps of the optimiser.
        seed: of everything that is left to chance.
        precision: number type of the network's convolutions; "auto": bfloat16 where it pays.
        validate_every: iterations between two measurements of the held-out fold.
        validate_tiles: tiles of up to 512² px that are measured at most, taken evenly out of all;
            0: all, however large the slides are.
        patience: measurements without a better one after which it ends early; 0: never.
        best_by: what the best network is chosen by: mean Dice of the held-out fold, or "last".
    """

    iterations: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    validate_every: int = Field(default=100, ge=1)
    validate_tiles: int = Field(default=1000, ge=0)
    patience: int = Field(default=0, ge=0)
    best_by: Literal["dice", "last"] = "dice"


class InputNormalisation(RecipeSection):
    """How intensities become the network's input: (intensity / 255 − mean) / std.

    Attributes:
        mean: per channel, 0 to 1; None: measured on the samples.
        std: likewise.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None


class Recipe(RecipeSection):
    """A training, from data to model.

    Attributes:
        name: of the model.
        description: what the model is for.
        license: of its weights, an SPDX expression where there is one.
        classes: in the order of the network's outputs.
        background: the class stored as label 0; None where there is none.
        mpp: µm per pixel to train at; None: pixels as they are.
        channel_order: "rgb" or "gray".
        head: "softmax", or "sigmoid" where each class is decided by itself.
        data: where images and truths are.
        network: the network's shape; its channels and classes follow from the above.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    license: str = ""
    classes: tuple[RecipeClass, ...] = Field(min_length=1, max_length=253)
    background: str | None = None
    mpp: Positive | None = None
    channel_order: Literal["rgb", "gray"] = "rgb"
    head: Literal["softmax", "sigmoid"] = "softmax"
    data: tuple[DataSource, ...] = Field(min_length=1)
    split: Split = Split()
    sampling: Sampling = Sampling()
    warping: Warping = Warping()
    colouring: Colouring = Colouring()
    weighting: Weighting = Weighting()
    loss: tuple[LossTerm, ...] = Field(default=(LossTerm(name="cross_entropy"),), min_length=1)
    optimiser: Optimiser = Optimiser()
    running: Running = Running()
    scaling: InputNormalisation = InputNormalisation()
    network: UNetConfig

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [one.name for one in self.classes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"classes: {name!r} is there {names.count(name)} times")
        if self.head == "softmax" and len(names) < 2:
            raise ValueError("classes: a softmax head needs two classes or more")
        if self.background is not None and self.background not in names:
            raise ValueError(f"background: {self.background!r} is none of the classes {names}")
        for name in self.sampling.classes:
            if name not in names:
                raise ValueError(f"sampling.classes: {name!r} is none of the classes {names}")
        if self.sampling.classes and not any(self.sampling.classes.values()):
            raise ValueError("sampling.classes: all are 0; leave it out for centres anywhere")
        for number in self.split.hold_out:
            if number >= len(self.data):
                raise ValueError(
                    f"split.hold_out: there is no source {number}, the last is {len(self.data) - 1}"
                )
        return self

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.head == "sigmoid" and self.background is not None:
            raise ValueError("background: a sigmoid head has none; leave it out")
        if self.sampling.empty and self.background is None and self.head == "softmax":
            raise ValueError(
                "sampling.empty: a softmax head without a background class must find something "
                "everywhere; set it to 0"
            )
        for term in self.loss:
            head = FOR_HEADS.get(term.name, self.head)
            if head != self.head:
                raise ValueError(
                    f"loss: {term.name!r} is for {head} heads, this one is {self.head}"
                )
        for name in FOR_RGB:
            if self.channel_order == "gray" and getattr(self.colouring, name):
                raise ValueError(f"colouring.{name}: gray images show no dyes; set it to 0")
        return self

    @property
    def background_index(self) -> int | None:
        """The background's number among the classes; None where there is none."""
        return None if self.background is None else self.class_index(self.background)

    def class_index(self, name: str) -> int:
        """Return the number of a class, the index of its output."""
        return [one.name for one in self.classes].index(name)
