"""Recipes: what a training does, as data. Read from TOML, validated, written beside the model.

A recipe may be based on a shipped one (`base = "paper"` or `base = "modern"`); then it gives only
what differs, and its classes and data.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.objects.rule import ObjectRule
from wsi_unet.training.recipe_sections import (
    Boundary,
    Colouring,
    DataSource,
    InputNormalisation,
    LossTerm,
    Optimiser,
    Positive,
    RecipeClass,
    RecipeSection,
    Running,
    Sampling,
    Split,
    Warping,
    Weighting,
)

HEAD_OF_LOSS = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}
"""The head of each loss that only one kind of head can be trained with."""

RGB_ONLY = ("counterstain", "stain", "stain_hue", "ground", "made_up")
"""Keys of `Colouring` that need RGB images."""


class Recipe(RecipeSection):
    """A training, from data to model.

    Attributes:
        name: name of the model.
        description: what the model is for.
        license: license of its weights, an SPDX expression if there is one.
        classes: classes, in the order of the network's outputs.
        background: class stored as label 0; None: there is none.
        boundary: class that is made from the objects of the others; None: there is none.
        objects: how the pixels of the model's classes become objects, for its card.
        mpp: µm per pixel to train at; None: pixels as they are.
        channel_order: "rgb" or "gray".
        head: "softmax", or "sigmoid" if each class is predicted independently.
        data: sources of images and ground truth.
        split: which patients are trained on, and which are held out.
        sampling: where samples are drawn.
        warping: geometric augmentation.
        colouring: colour augmentation.
        weighting: weights of pixels in the cross entropies.
        loss: terms of the loss, which are added up.
        optimiser: the optimiser and its learning rate.
        running: how long a training runs, and how it is measured.
        scaling: normalisation of intensities.
        network: architecture; its channels and classes follow from the above.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    description: str = ""
    license: str = ""
    classes: tuple[RecipeClass, ...] = Field(min_length=1, max_length=253)
    background: str | None = None
    boundary: Boundary | None = None
    objects: ObjectRule | None = None
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
        names = [recipe_class.name for recipe_class in self.classes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"classes: {name!r} occurs {names.count(name)} times")
        if self.head == "softmax" and len(names) < 2:
            raise ValueError("classes: a softmax head needs two classes or more")
        if self.background is not None and self.background not in names:
            raise ValueError(f"background: {self.background!r} is none of the classes {names}")
        if self.boundary is not None and self.boundary.name not in names:
            raise ValueError(f"boundary: {self.boundary.name!r} is none of the classes {names}")
        if self.boundary is not None and self.boundary.name == self.background:
            raise ValueError(f"boundary: {self.boundary.name!r} is the background already")
        for name in self.sampling.classes:
            if name not in names:
                raise ValueError(f"sampling.classes: {name!r} is none of the classes {names}")
        if self.sampling.classes and not any(self.sampling.classes.values()):
            raise ValueError("sampling.classes: all are 0; leave it out to sample anywhere")
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
                "sampling.empty: with a softmax head and no background class, every pixel is of "
                "some class; set it to 0"
            )
        for term in self.loss:
            head = HEAD_OF_LOSS.get(term.name, self.head)
            if head != self.head:
                raise ValueError(
                    f"loss: {term.name!r} is for {head} heads, this one is {self.head}"
                )
        for name in RGB_ONLY:
            if self.channel_order == "gray" and getattr(self.colouring, name):
                raise ValueError(f"colouring.{name}: gray images show no dyes; set it to 0")
        return self

    @property
    def background_index(self) -> int | None:
        """Index of the background class; None: there is none."""
        return None if self.background is None else self.class_index(self.background)

    @property
    def boundary_index(self) -> int | None:
        """Index of the class that is made from the objects; None: there is none."""
        return None if self.boundary is None else self.class_index(self.boundary.name)

    @property
    def truth_indices(self) -> tuple[int, ...]:
        """Indices of the classes that a truth can have: all but the boundary."""
        return tuple(n for n in range(len(self.classes)) if n != self.boundary_index)

    def class_index(self, name: str) -> int:
        """Return the index of a class, which is that of its output."""
        return [recipe_class.name for recipe_class in self.classes].index(name)
