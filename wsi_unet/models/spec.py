"""A model's spec: everything about it but its weights, as JSON beside or inside their file.

{"format_version": 1, "name": "nuclei-he",
 "architecture": {"family": "unet", "padding": "valid", "depth": 3, ...},
 "classes": [{"name": "tissue", "color": "#ffffff"}, {"name": "nucleus", "color": "#2a6fdb"}],
 "background": "tissue", "mpp": 0.5, "channel_order": "rgb",
 "scaling": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
 "license": "CC0-1.0", "description": "...", "training_data": "...", "metrics": {"dice": 0.8}}
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from wsi_unet.colour import Colour, parse_colour
from wsi_unet.geometry import Border
from wsi_unet.models.appearance_range import AppearanceRange
from wsi_unet.models.architectures.border import fix_border
from wsi_unet.models.architectures.costs import ForwardCost
from wsi_unet.models.architectures.exactness import explain_inexactness
from wsi_unet.models.architectures.program import ProgramConfig
from wsi_unet.models.architectures.residual_unet import ResidualUNetConfig
from wsi_unet.models.architectures.resnet_unet import ResNetUNetConfig
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.number_types import Precision
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.wording import count

FORMAT_VERSION = 1
BACKGROUND_NAME = "background"

Architecture = Annotated[
    UNetConfig | ResNetUNetConfig | ResidualUNetConfig | ProgramConfig,
    Field(discriminator="family"),
]
"""Every kind of network that can be run."""

Exactness = Literal["exact", "approximate"]
"""Whether tiling can change a label."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_FinitePositive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


class ModelClass(_Frozen):
    """One class of a model.

    Attributes:
        name: its name, unique within the model.
        color: "#rrggbb", for viewers and overlays.
    """

    name: str = Field(min_length=1, max_length=100)
    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")


class LabelClass(_Frozen):
    """What one value in a label image means.

    Attributes:
        value: the pixel value, 0 to 255; 0 is background.
        name: the class's name.
        color: "#rrggbb".
    """

    value: int
    name: str
    color: str

    @property
    def rgb(self) -> Colour:
        """The colour as (red, green, blue), each 0 to 255."""
        return parse_colour(self.color)


class Normalisation(_Frozen):
    """How intensities become the network's input: (intensity / 255 − mean) / std.

    Attributes:
        mean: one number per channel of the network, in the network's channel order, 0 to 1.
        std: standard deviation per channel, in the same order, above 0.
        statistics: whose mean and deviation are used: these ("model"), or those of the slide's
            tissue ("slide"), computed once per slide and stored with the run. With "slide", these
            are used for slides without tissue.
    """

    mean: tuple[_Finite, ...]
    std: tuple[_FinitePositive, ...]
    statistics: Literal["model", "slide"] = "model"


class ModelSpec(_Frozen):
    """Everything about a model but its weights.

    Attributes:
        format_version: version of this description; 1.
        name: a word that can name a file and a label group, like "nuclei-he".
        architecture: the network's architecture.
        head: how the output becomes probabilities: "softmax" over the classes, or "sigmoid" for
            each class by itself, so that a pixel may belong to several classes or to none.
        activated: whether the output already is probabilities: the network includes its head.
        thresholds: the probability above which a pixel belongs to a class, one number per class;
            None: 0.5. Only with a sigmoid head.
        window: side of the only window that the network runs on, px; None: any. Needed where the
            output depends on the window's size; best the side that the network was trained on.
        classes: the meaning of the network's output channels, in order.
        background: name of the class stored as label 0; None where there is none. Then the classes
            are stored as 1, 2, …, and label 0 means "not predicted" or "none of the classes".
        mpp: µm per pixel that the model was trained at; None where it doesn't matter.
        channel_order: the order of the network's input channels: "rgb", "bgr", or "gray" (Rec. 601
            luma, 0.299 R + 0.587 G + 0.114 B).
        normalisation: how intensities become the input. Called `scaling` in model.json.
        license: the weights' license, as an SPDX expression where there is one.
        description: what the model is for.
        training_data: what it was trained on.
        assumed: what an import assumed about the network, since neither file nor user said it.
        objects: how the pixels of its classes become objects, by class; None: no class is split. It
            doesn't decide labels, so it isn't part of the model's identity.
        appearance: what the images looked like that it was trained on; None: not known. It doesn't
            decide labels either.
        metrics: what was measured, by name.
        training: how wsi-unet trained it: recipe, seed, iterations, environment; {} if it didn't.
    """

    format_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    architecture: Architecture
    head: Literal["softmax", "sigmoid"] = "softmax"
    activated: bool = False
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = None
    window: int | None = Field(default=None, ge=16, le=16384)
    classes: tuple[ModelClass, ...] = Field(min_length=1, max_length=255)
    background: str | None
    mpp: float | None = Field(ge=0.02, le=100, allow_inf_nan=False)
    channel_order: Literal["rgb", "bgr", "gray"] = "rgb"
    normalisation: Normalisation = Field(
        validation_alias=AliasChoices("scaling", "normalisation"), serialization_alias="scaling"
    )
    license: str = ""
    description: str = ""
    training_data: str = ""
    assumed: tuple[str, ...] = ()
    objects: ObjectRule | None = None
    appearance: AppearanceRange | None = None
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    training: dict[str, JsonValue] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what isn't known and earlier versions don't know."""
        fields: dict[str, Any] = serialise(self)
        for name in ("objects", "appearance"):
            if getattr(self, name) is None:
                fields.pop(name, None)
        return fields

    @field_validator("format_version", mode="before")
    @classmethod
    def _known_version(cls, value: Any) -> Any:
        if value != FORMAT_VERSION:
            raise ValueError(
                f"{value!r} is not a version this wsi-unet knows (it knows {FORMAT_VERSION}); "
                "a newer wsi-unet may"
            )
        return value

    @field_validator("architecture", mode="before")
    @classmethod
    def _family(cls, value: Any) -> Any:
        """Read an architecture without a family as a U-Net."""
        return {"family": "unet", **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [item.name for item in self.classes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"classes: {name!r} is there {names.count(name)} times")
        if self.background is not None and self.background not in names:
            raise ValueError(f"background: {self.background!r} is none of the classes {names}")
        if self.background is None and BACKGROUND_NAME in names:
            raise ValueError(
                f"background: null, but a class is called {BACKGROUND_NAME!r}; "
                f"give {BACKGROUND_NAME!r} here or rename the class"
            )
        if len(names) != self.architecture.classes:
            raise ValueError(
                f"classes: {count(len(names), 'name')} for a network with "
                f"{count(self.architecture.classes, 'output')}"
            )
        self._check_objects(names)
        self._check_head()
        self._check_window()
        channels = 1 if self.channel_order == "gray" else 3
        if self.architecture.in_channels != channels:
            raise ValueError(
                f"architecture.in_channels: {self.architecture.in_channels}, "
                f"but channel order {self.channel_order!r} has {channels}"
            )
        for key, numbers in (("mean", self.normalisation.mean), ("std", self.normalisation.std)):
            if len(numbers) != channels:
                raise ValueError(
                    f"scaling.{key}: {count(len(numbers), 'number')} for "
                    f"{count(channels, 'channel')}"
                )
        return self

    def _check_objects(self, names: list[str]) -> None:
        for name, rule in (self.objects or ObjectRule({})).root.items():
            for each in (name, rule.boundary or name):
                if each not in names or each == self.background:
                    raise ValueError(f"objects: {each!r} is none of the classes that have objects")
            if rule.boundary is not None and self.head == "sigmoid":
                raise ValueError(
                    f"objects: {name!r} can't grow into {rule.boundary!r}: with a sigmoid head "
                    "each class has labels of its own"
                )

    def _check_head(self) -> None:
        if self.head == "softmax":
            if len(self.classes) < 2:
                raise ValueError("classes: softmax over one class is always 1; is it a sigmoid?")
            if self.thresholds is not None:
                raise ValueError("thresholds: only a sigmoid head has them")
        elif self.background is not None:
            raise ValueError("background: with a sigmoid head it must be null (none)")
        elif self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise ValueError(
                f"thresholds: {count(len(self.thresholds), 'number')} for "
                f"{count(len(self.classes), 'class', 'classes')}"
            )

    def _check_window(self) -> None:
        if isinstance(self.architecture, ProgramConfig):
            side = self.architecture.input_side
            if side not in (None, self.window):
                raise ValueError(f"window: the program takes images of {side} px only")
        if self.window is None:
            if not self.architecture.local:
                raise ValueError(
                    "window: the network's result depends on all of the image, so it needs the "
                    "side of the windows that it was trained on"
                )
            return
        try:
            fix_border(self.architecture.border(), self.window, exact=self.exactness == "exact")
        except ValueError as error:
            raise ValueError(f"window: {error}") from error

    @property
    def in_channels(self) -> int:
        """Channels of the network's input."""
        return self.architecture.in_channels

    @property
    def classes_out(self) -> int:
        """Channels of the network's output."""
        return self.architecture.classes

    @property
    def multi_label(self) -> bool:
        """Whether a pixel may belong to several classes; each class has labels of its own then."""
        return self.head == "sigmoid" and len(self.classes) > 1

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Number types that the network can run in."""
        if isinstance(self.architecture, ProgramConfig):
            return self.architecture.precisions
        return get_args(Precision)

    @property
    def exactness(self) -> Exactness:
        """Whether tiling can change a label."""
        return "approximate" if self.inexact_because else "exact"

    @property
    def inexact_because(self) -> str:
        """Why tiling can change a label; empty where it can't."""
        return explain_inexactness(self.architecture, self.architecture.border(), self.window)

    def border(self) -> Border:
        """Return the context that a core needs, and how windows continue at the slide's edge."""
        return self._border

    @property
    def tile(self) -> int | None:
        """Side of a tile's core, px, where `window` leaves no choice; else None."""
        return self._border.tile

    @cached_property
    def _border(self) -> Border:
        border = self.architecture.border()
        if self.window is None:
            return border
        return fix_border(border, self.window, exact=self.exactness == "exact")

    def forward_cost(self, side: int, item_bytes: int) -> ForwardCost:
        """Return the cost of a forward pass on `side` × `side` px, with `item_bytes` per number."""
        return self.architecture.forward_cost(side, item_bytes)

    @property
    def label_values(self) -> tuple[int, ...]:
        """The label value of each class index: background 0, the others 1, 2, … in order."""
        if self.background is None:
            return tuple(range(1, len(self.classes) + 1))
        others = iter(range(1, len(self.classes)))
        return tuple(0 if item.name == self.background else next(others) for item in self.classes)

    @property
    def labels(self) -> tuple[LabelClass, ...]:
        """Every label value with its name and colour, by value, background (0) first."""
        labels = [
            LabelClass(value=value, name=item.name, color=item.color)
            for value, item in zip(self.label_values, self.classes, strict=True)
        ]
        if self.background is None:
            labels.append(LabelClass(value=0, name=BACKGROUND_NAME, color="#000000"))
        return tuple(sorted(labels, key=lambda label: label.value))

    def pixel_fields(self) -> dict[str, Any]:
        """Return the fields that, with the weights, decide the labels.

        Names, colours and descriptions don't decide them; neither do dropout, which is off in use,
        and the costs of a program.
        """
        unused = {"dropout", "parameters", "flops_per_pixel", "bytes_per_pixel"}
        architecture = self.architecture.model_dump(mode="json", exclude=unused)
        if not architecture.get("activated_upsampling"):
            # Models that were made before there was this field keep their identity.
            architecture.pop("activated_upsampling", None)
        return {
            "architecture": architecture,
            "label_values": list(self.label_values),
            "mpp": self.mpp,
            "channel_order": self.channel_order,
            "head": self.head,
            "activated": self.activated,
            "thresholds": self.thresholds,
            "window": self.window,
            "scaling": self.normalisation.model_dump(mode="json"),
        }

    def to_text(self) -> str:
        """Return the spec as the text of model.json."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False)
