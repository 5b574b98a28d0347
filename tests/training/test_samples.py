"""Samples: image and labels stay aligned, and number i is always the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_unet.errors import RecipeError
from wsi_unet.geometry import Box, Shape, reflect
from wsi_unet.models import Normalisation, UNet, UNetConfig
from wsi_unet.training.augmentation.samples import Sample, Samples, sample_sides
from wsi_unet.training.fields import IGNORED, FieldWindow
from wsi_unet.training.loop.batches import making_batches
from wsi_unet.training.recipe import Recipe

PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

RECIPE = Recipe.model_validate(
    {
        "name": "test",
        "background": "ground",
        "classes": [{"name": "ground", "color": "#000000"}, {"name": "cell", "color": "#ffff00"}],
        "data": [{"images": "a", "labels": "a"}, {"images": "b", "labels": "b", "share": 3.0}],
        "sampling": {"tile": 20, "batch": 2},
        "running": {"iterations": 50, "seed": 3},
        "network": {"depth": 2, "base_width": 2, "in_channels": 3, "classes": 2},
    }
)


def changed(**parts: dict[str, object]) -> Recipe:
    document = RECIPE.model_dump()
    for part, values in parts.items():
        document[part] = document[part] | values
    return Recipe.model_validate(document)


@dataclass(frozen=True, eq=False)
class Coded:
    """A field whose image tells its labels: a cell is bright."""

    labels: NDArray[np.uint8]
    source: int = 0
    name: str = "coded"
    patient: str = "p"
    weight: float = 0.0

    @property
    def shape(self) -> Shape:
        rows, columns = self.labels.shape
        return rows, columns

    @cached_property
    def amounts(self) -> Mapping[int, float]:
        return {i: float((self.labels == i).sum()) for i in (0, 1)}

    @property
    def areas(self) -> Sequence[Box]:
        return [Box.from_shape(self.shape)]

    def read(self, window: Box) -> FieldWindow:
        rows = reflect(window.y0, window.y1, self.shape[0])
        columns = reflect(window.x0, window.x1, self.shape[1])
        labels = self.labels[rows[:, None], columns]
        image = np.repeat((labels == 1).astype(np.uint8)[..., None] * 200, 3, axis=2)
        return FieldWindow(image, labels, np.full(labels.shape, self.weight, np.float32))

    def point(self, index: int | None, rng: np.random.Generator) -> tuple[int, int]:
        there = np.argwhere(self.labels == index if index is not None else self.labels < 255)
        y, x = there[rng.integers(len(there))]
        return int(y), int(x)


def blobs(source: int = 0, seed: int = 0, name: str = "coded", weight: float = 0.0) -> Coded:
    """Return squares of 16 px."""
    coarse = np.random.default_rng(seed).random((10, 12)) < 0.2
    labels = np.kron(coarse, np.ones((16, 16))).astype(np.uint8)
    return Coded(labels, source, name, weight=weight)


def equal(one: Sample, other: Sample) -> bool:
    tensors = ("image", "labels", "weights")
    same = all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
    return same and one.where == other.where


@given(
    padding=st.sampled_from(["valid", "same"]), depth=st.integers(1, 4), tile=st.integers(1, 300)
)
@settings(max_examples=30, deadline=None)
def test_the_network_takes_the_image_and_gives_the_labels(
    padding: str, depth: int, tile: int
) -> None:
    config = UNetConfig.model_validate({"padding": padding, "depth": depth, "base_width": 1})
    sides = sample_sides(config, tile)
    with torch.device("meta"):
        output = UNet(config)(torch.empty(1, 3, sides.image, sides.image))
    assert output.shape[2:] == (sides.labels, sides.labels)
    assert tile <= sides.labels < tile + 2**depth


def test_the_papers_tile() -> None:
    sides = sample_sides(UNetConfig(), 388)
    assert (sides.image, sides.labels) == (572, 388)


def test_a_sample_depends_on_its_number_only() -> None:
    recipe = changed(warping={"elastic": 5.0, "rotation": 1.0}, colouring={"noise": 0.05})
    fields = [blobs(0), blobs(1)]
    samples, again = Samples(recipe, fields, PLAIN), Samples(recipe, fields, PLAIN)
    backwards = [again[number] for number in reversed(range(8))][::-1]
    assert all(equal(samples[number], backwards[number]) for number in range(8))
    assert not equal(samples[0], samples[1])
    other = Samples(changed(running={"iterations": 50, "seed": 4}), fields, PLAIN)
    assert not equal(samples[0], other[0])


@pytest.mark.parametrize(
    "warping",
    [
        {},
        {"flips": True},
        {"rotation": 1.0},
        {"scale": (0.6, 1.8)},
        {"elastic": 4.0},
        {"shift": 9.0},
        {"flips": True, "rotation": 1.0, "scale": (0.7, 1.4), "squeeze": 0.2, "elastic": 3.0},
    ],
    ids=lambda warping: "+".join(warping) or "none",
)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_image_and_labels_stay_together(warping: dict[str, object], padding: str) -> None:
    recipe = changed(warping=warping, network={"padding": padding})
    samples = Samples(recipe, [blobs()], PLAIN)
    wrong = []
    for number in range(12):
        sample = samples[number]
        margin = (samples.sides.image - samples.sides.labels) // 2
        middle = slice(margin, margin + samples.sides.labels)
        bright = sample.image[0, middle, middle] > 100 / 255
        wrong.append((bright != (sample.labels == 1)).float().mean().item())
    assert max(wrong) <= (0.0 if not warping or warping == {"flips": True} else 0.03)


def test_grey_networks_get_luma() -> None:
    document = RECIPE.model_dump() | {"channel_order": "gray"}
    document["network"]["in_channels"] = 1
    grey = Samples(
        Recipe.model_validate(document), [blobs()], Normalisation(mean=(0.25,), std=(0.5,))
    )[0]
    colour = Samples(RECIPE, [blobs()], PLAIN)[0]
    luma = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * colour.image).sum(0)
    torch.testing.assert_close(grey.image[0], (luma - 0.25) / 0.5)


def test_sources_are_drawn_by_share_and_fields_by_area() -> None:
    large = Coded(np.zeros((100, 300), np.uint8), 1, "large")
    small = Coded(np.zeros((100, 100), np.uint8), 1, "small")
    other = Coded(np.zeros((50, 50), np.uint8), 0, "other")
    samples = Samples(RECIPE, [large, small, other], PLAIN)
    names = [samples[number].where.split()[0] for number in range(800)]
    counts = {name: names.count(name) / len(names) for name in ("large", "small", "other")}
    for name, expected in (("large", 9 / 16), ("small", 3 / 16), ("other", 1 / 4)):
        assert abs(counts[name] - expected) < 4 * math.sqrt(expected / len(names)), counts


def test_centres_lie_on_the_classes_asked_for() -> None:
    rare = np.zeros((200, 200), np.uint8)
    rare[40:60, 40:60] = 1
    nothing = Coded(np.zeros((400, 400), np.uint8), 0, "nothing")
    recipe = changed(sampling={"classes": {"cell": 3.0, "ground": 1.0}})
    samples = Samples(recipe, [Coded(rare, 0, "rare"), nothing], PLAIN)
    half = samples.sides.labels // 2
    on_cells = sum(int(samples[number].labels[half, half] == 1) for number in range(400))
    assert abs(on_cells / 400 - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 400)


def test_a_class_that_isnt_there_is_refused() -> None:
    recipe = changed(sampling={"classes": {"cell": 1.0}})
    with pytest.raises(RecipeError, match="no field that is trained on has any 'cell'"):
        Samples(recipe, [Coded(np.zeros((50, 50), np.uint8))], PLAIN)


def test_weights_are_balance_plus_separation() -> None:
    labels = np.zeros((60, 60), np.uint8)
    labels[:, :15] = 1
    labels[:5, 30:] = IGNORED
    recipe = changed(weighting={"balance": True, "separation": 2.5}, sampling={"tile": 60})
    sample = Samples(recipe, [Coded(labels, weight=2.5)], PLAIN)[0]
    cell, ground = ((sample.labels == index) for index in (1, 0))
    w_cell, w_ground = sample.weights[cell], sample.weights[ground]
    assert (w_cell == w_cell[0]).all()
    assert (w_ground == w_ground[0]).all()
    share = 900 / (3600 - 150)
    torch.testing.assert_close(
        (w_cell[0] - 2.5) / (w_ground[0] - 2.5),
        torch.tensor((1 - share) / share),
        rtol=1e-4,
        atol=0,
    )


def test_synthetic_background_has_no_objects() -> None:
    recipe = changed(sampling={"empty": 1.0})
    sample = Samples(recipe, [blobs()], PLAIN)[0]
    assert sample.where == "synthetic background"
    assert not sample.labels.any()
    assert sample.image.shape == (3, 60, 60)


def test_samples_travel_to_other_processes() -> None:
    samples = Samples(RECIPE, [blobs()], PLAIN)
    with making_batches(samples, size=2, iterations=range(3), workers=2, ahead=False) as stream:
        for first in (0, 2, 4):
            batch = stream.next()
            for i, here in enumerate((samples[first], samples[first + 1])):
                there = batch.single(i)
                assert equal(
                    Sample(there.images[0], there.labels[0], there.weights[0], there.where[0]), here
                )
