"""What a model is, apart from its weights: the JSON beside (or inside) the weights' file.

{"format_version": 1, "name": "nuclei-he",
 "architecture": {"family": "unet", "padding": "valid", "depth": 3, ...},
 "classes": [{"name": "tissue", "color": "#ffffff"}, {"name": "nucleus", "color": "#2a6fdb"}],
 "background": "tissue", "mpp": 0.5, "channel_order": "rgb",
 "scaling": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
 "license": "CC0-1.0", "description": "...", "training_data": "...", "metrics": {"dice": 0.8}}
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from wsi_unet.models.config import UNetConfig

FORMAT_VERSION = 1
BACKGROUND_NAME = "background"

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelClass(_Frozen):
    """One class that a model tells apart.

    Attributes:
        name: unique within the model.
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
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three numbers, 0 to 255."""
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


class Scaling(_Frozen):
    """How intensities become the network's input: (intensity / 255 − mean) / std.

    Attributes:
        mean: one number per channel of the network, in the network's channel order, 0 to 1.
        std: likewise, above 0.
    """

    mean: tuple[Finite, ...]
    std: tuple[Positive, ...]


class ModelSpec(_Frozen):
    """Everything about a model but its weights.

    Attributes:
        format_version: version of this description; 1.
        name: a word that can name a file and a label group, like "nuclei-he".
        architecture: the network's shape.
        classes: the meaning of the network's output channels, in order.
        background: name of the class stored as label 0; None where there is none (then label 0
            means "not predicted" and the classes are stored as 1, 2, …).
        mpp: µm per pixel that the model was trained at; None where it doesn't matter.
        channel_order: what the network's channels are: "rgb", "bgr", or "gray" (Rec. 601 luma,
            0.299 R + 0.587 G + 0.114 B).
        scaling: of intensities, per channel of the network.
        license: of the weights, as an SPDX expression where there is one.
        description: what the model is for.
        training_data: what it was trained on.
        metrics: what was measured, by name.
    """

    format_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    architecture: UNetConfig
    classes: tuple[ModelClass, ...] = Field(min_length=2, max_length=255)
    background: str | None
    mpp: float | None = Field(ge=0.02, le=100, allow_inf_nan=False)
    channel_order: Literal["rgb", "bgr", "gray"] = "rgb"
    scaling: Scaling
    license: str = ""
    description: str = ""
    training_data: str = ""
    metrics: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("format_version", mode="before")
    @classmethod
    def _known_version(cls, value: Any) -> Any:
        if value != FORMAT_VERSION:
            raise ValueError(
                f"{value!r} is not a version this wsi-unet knows (it knows {FORMAT_VERSION}); "
                "a newer wsi-unet may"
            )
        return value

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
                f"classes: {len(names)} names for a network with "
                f"{self.architecture.classes} outputs"
            )
        channels = 1 if self.channel_order == "gray" else 3
        if self.architecture.in_channels != channels:
            raise ValueError(
                f"architecture.in_channels: {self.architecture.in_channels}, "
                f"but channel order {self.channel_order!r} has {channels}"
            )
        for key, numbers in (("mean", self.scaling.mean), ("std", self.scaling.std)):
            if len(numbers) != channels:
                raise ValueError(f"scaling.{key}: {len(numbers)} numbers for {channels} channels")
        return self

    @property
    def label_values(self) -> tuple[int, ...]:
        """The label value of each class index: background 0, the others 1, 2, … in order."""
        if self.background is None:
            return tuple(range(1, len(self.classes) + 1))
        others = iter(range(1, len(self.classes)))
        return tuple(0 if c.name == self.background else next(others) for c in self.classes)

    @property
    def labels(self) -> tuple[LabelClass, ...]:
        """Every label value with its name and colour, by value, background (0) first."""
        values = zip(self.label_values, self.classes, strict=True)
        labels = [LabelClass(value=v, name=c.name, color=c.color) for v, c in values]
        if self.background is None:
            labels.append(LabelClass(value=0, name=BACKGROUND_NAME, color="#000000"))
        return tuple(sorted(labels, key=lambda label: label.value))

    def pixel_fields(self) -> dict[str, Any]:
        """Return the part of the spec that, with the weights, decides the labels.

        Names, colours and the card don't; neither does drop-out, which is off in use.
        """
        return {
            "architecture": self.architecture.model_dump(mode="json", exclude={"dropout"}),
            "label_values": list(self.label_values),
            "mpp": self.mpp,
            "channel_order": self.channel_order,
            "scaling": self.scaling.model_dump(mode="json"),
        }
