"""The sections of a recipe: its tables, one class each.

See `wsi_unet.training.recipe` for the whole.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from wsi_unet.models.spec import ModelClass

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _ordered(factors: tuple[float, float]) -> tuple[float, float]:
    if factors[0] > factors[1]:
        raise ValueError(f"(least, most), but {factors[0]:g} is more than {factors[1]:g}")
    return factors


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
"""(least, most) factor, drawn on a logarithmic scale."""

Zoom = Annotated[float, Field(ge=0.1, le=10)]
ZoomRange = Annotated[tuple[Zoom, Zoom], AfterValidator(_ordered)]
"""A `Range` of sizes; bounded, since the window to read grows with its square."""


class RecipeSection(BaseModel):
    """A section of a recipe: immutable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RecipeClass(RecipeSection):
    """A class to learn.

    Attributes:
        name: name of the class.
        color: colour of its labels, "#rrggbb".
        values: its pixel values in label images; None: all values that no other class has (in
            instance labels, every number above 0).
        annotations: its class names in annotations; empty: its own name.
    """

    name: str
    color: str
    values: tuple[int, ...] | None = None
    annotations: tuple[str, ...] = ()

    def to_class(self) -> ModelClass:
        """Return the class for a model's spec."""
        return ModelClass(name=self.name, color=self.color)


class DataSource(RecipeSection):
    """Images or slides with their ground truth.

    Attributes:
        images: a folder, file or glob pattern of images or slides; relative to the data folder.
        labels: ground truth: a folder with a file of the same stem for each image (PNG or TIFF;
            GeoJSON or ASAP XML; a label OME-Zarr `<stem>.ome.zarr`), or one such file.
        kind: what the values of label images are: "classes", or "instances" (a number for each
            object, 0 elsewhere; all objects are of one class).
        label: label group to use, if label OME-Zarrs have several.
        mpp: µm per pixel of images whose files have no pixel size, or a wrong one.
        object_diameter: diameter of an image's median object, µm, from which the magnification is
            found if the pixel size isn't known at all.
        group: regular expression whose first group, matched in the file's stem, names the patient;
            None: every file is a patient. All files of a patient are on one side of a split.
        within: annotations outside which labels are unknown; given like `labels`.
        ignore: names or values whose pixels are ignored.
        share: how often samples are drawn from this source, relative to the other sources.
        license: license of the data.
        citation: citation of the data.
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
    """Which patients are trained on, and which are held out.

    Attributes:
        folds: number of folds that the patients are divided into; 1: all are trained on.
        fold: the fold that is held out, from 0.
        order: how folds are assigned: "contiguous" (in the order of file names), "interleaved"
            (every n-th), or "random".
        hold_out: sources (by number, from 0) that are held out as a whole and measured at the end.
    """

    folds: int = Field(default=5, ge=1, le=1000)
    fold: int = Field(default=0, ge=0)
    order: Literal["contiguous", "interleaved", "random"] = "random"
    hold_out: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(
                f"fold: must be at most {self.folds - 1}, the last of {self.folds} folds from 0"
            )
        return self


class Sampling(RecipeSection):
    """Where samples are drawn.

    Attributes:
        tile: side of the network's output, px (rounded up to a size that the network can have).
        batch: samples per iteration.
        classes: how often samples are centred on each class, by name, relative to each other;
            empty: all pixels are equally likely.
        jitter: largest random shift of the centre, px.
        empty: share of samples that show synthetic background without objects.
    """

    tile: int = Field(default=256, ge=1, le=8192)
    batch: int = Field(default=8, ge=1, le=1024)
    classes: dict[str, NotNegative] = Field(default_factory=dict)
    jitter: int = Field(default=0, ge=0, le=8192)
    empty: Share = 0.0


class Warping(RecipeSection):
    """Geometric augmentation, of image, labels and weights alike.

    Attributes:
        flips: whether samples are flipped and rotated by right angles.
        rotation: share of samples that are rotated by any angle.
        shift: largest shift, px.
        scale: (least, most) scale factor, 0.1 to 10, drawn on a logarithmic scale.
        scaled: share of samples that are scaled.
        squeeze: logarithm of the largest change of aspect ratio of scaled samples.
        elastic: standard deviation of the displacements of a coarse grid, px; 0: none (the paper:
            10).
        elastic_grid: points of that grid per side (the paper: 3).
        elastic_share: share of samples that are deformed.
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
    """Colour augmentation, in this order. Shares are shares of all samples.

    Attributes:
        counterstain: share whose background gets a colour of its own, from pink to purple, with
            synthetic cytoplasm.
        stain: largest logarithm of the factor of each dye's amount (haematoxylin, eosin and DAB:
            Ruifrok and Johnston 2001); 0.3 is a factor of 0.74 to 1.35; 0: none.
        stain_hue: deviation of the dyes' colours.
        ground: share whose white balance is changed.
        made_up: share that synthetic tissue without nuclei is added to.
        brightness: largest change of brightness, of a range of 0 to 1.
        contrast: (least, most) factor of contrast.
        gamma: (least, most) exponent.
        blur: share that is blurred or sharpened.
        noise: largest standard deviation of added noise, of a range of 0 to 1.
        low_resolution: share that is downsampled and enlarged again.
        jpeg: share that is compressed as JPEG.
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
    """Weights of pixels in the cross entropies.

    Attributes:
        balance: whether classes are weighted inversely to their number of pixels, w_c.
        separation: w0 of the paper's w0·exp(−(d1 + d2)²/2σ²), where d1 and d2 are the distances to
            the nearest two objects; 0: none (the paper: 10).
        sigma: σ, px (the paper: 5).
        part: width of the background that is put between touching objects, px; 0: they may touch.
    """

    balance: bool = False
    separation: NotNegative = 0.0
    sigma: Positive = 5.0
    part: int = Field(default=0, ge=0, le=9)


class Boundary(RecipeSection):
    """A class that is made from the objects, so that a network learns where one ends.

    Widths are Chebyshev distances. Objects keep their other pixels, so the objects of a prediction
    are the components of their class, grown into this one (the object rule "interior").

    Attributes:
        name: name of the class, which no truth has.
        reach: pixels that are at most this far from two objects are of the class, px.
        rim: pixels of an object at most this far from its edge are of the class too, px; 0: none.
    """

    name: str
    reach: int = Field(default=1, ge=0, le=16)
    rim: int = Field(default=0, ge=0, le=16)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.reach and not self.rim:
            raise ValueError("reach: with neither reach nor rim there is no boundary; give one")
        return self

    @property
    def halo(self) -> int:
        """How far around a pixel decides whether it is of the class, px."""
        return max(self.reach, self.rim)


class LossTerm(RecipeSection):
    """A term of the loss.

    Attributes:
        name: "cross_entropy", "binary_cross_entropy" (of each class), "dice" (1 − soft Dice, mean
            over classes), "iou" (1 − soft IoU, mean over classes) or "focal" (Lin et al. 2017).
        weight: weight of the term.
        gamma: exponent of the focal loss.
        background: whether "dice" and "iou" include the background.
    """

    name: Literal["cross_entropy", "binary_cross_entropy", "dice", "iou", "focal"]
    weight: Positive = 1.0
    gamma: NotNegative = 2.0
    background: bool = False

    @model_validator(mode="after")
    def _check_background(self) -> LossTerm:
        if self.background and self.name not in ("dice", "iou"):
            raise ValueError(f"background: {self.name!r} includes every class anyway; leave it out")
        return self


class Optimiser(RecipeSection):
    """The optimiser and its learning rate.

    Attributes:
        name: "sgd", "adam" or "adamw".
        rate: the (largest) learning rate.
        momentum: momentum of SGD.
        nesterov: whether SGD uses Nesterov momentum.
        decay: weight decay.
        schedule: schedule of the rate: "constant", "poly" ((1 − i/n)^0.9), "cosine" or "onecycle"
            (up for the first twentieth, then down along a cosine).
        clip: largest norm of the gradient; 0: no limit.
        average: decay of an exponential moving average of the weights, which is measured and kept;
            0: the weights themselves are.
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
            raise ValueError("nesterov: needs a momentum above 0")
        return self


class Running(RecipeSection):
    """How long a training runs, and how it is measured.

    Attributes:
        iterations: steps of the optimiser.
        seed: seed of all random numbers.
        precision: number type of the network's convolutions; "auto": bfloat16 if it is faster.
        validate_every: iterations between two measurements of the held-out fold.
        validate_tiles: most tiles of up to 512² px to measure, evenly spaced among all; 0: all,
            however large the slides are.
        patience: measurements without improvement after which the training stops early; 0: never.
        best_by: network to keep: "dice" for the largest mean Dice on the held-out fold, or "last".
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
        mean: mean of each channel, 0 to 1; None: measured on samples.
        std: standard deviation of each channel, 0 to 1; None: measured on samples.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
