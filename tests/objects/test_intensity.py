"""Values of pixels over objects, by blocks, against the whole image at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from objects import shapes
from objects.shapes import find_by_blocks
from PIL import Image
from skimage.color import hed_from_rgb, rgb2hed
from skimage.measure import regionprops

from wsi_unet.geometry import Box
from wsi_unet.objects.intensities.quantities import EXACT, Quantity, finish_values
from wsi_unet.objects.intensities.slide_pixels import (
    Sampling,
    SlideGrid,
    SlidePixels,
    SlideReference,
)
from wsi_unet.objects.intensities.stains import STAINS, STEPS, unmix
from wsi_unet.objects.intensities.stored_values import StoredValues
from wsi_unet.objects.intensities.summing import sum_values
from wsi_unet.objects.rule import ClassRule
from wsi_unet.objects.search import LARGEST_BOX
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import choose_resampling

SIDE = 300
Pixels = NDArray[np.uint8]


def stained(side: int) -> Pixels:
    """Return a smooth RGB image with noise, black and white pixels among it."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    waves = np.stack([np.sin(y / 17 + x / 31), np.cos(x / 13), np.sin((x + y) / 23)], axis=2)
    noisy = 128 + 90 * waves + random.normal(0, 25, waves.shape)
    pixels = np.clip(noisy, 0, 255).astype(np.uint8)
    pixels[random.random((side, side)) < 0.02] = 255
    pixels[random.random((side, side)) < 0.02] = 0
    return pixels


@pytest.fixture(scope="module", params=[1.0, 2.0, 0.5], ids=lambda ratio: f"x{ratio}")
def slide(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SlidePixels]:
    """A slide whose pixel is 1 / ratio of a label's pixel."""
    ratio = request.param
    path = tmp_path_factory.mktemp("slide") / "slide.png"
    Image.fromarray(stained(round(SIDE * ratio))).save(path)
    with open_slide(path) as opened:
        chosen = choose_resampling(opened, (ratio, ratio))
        reference = SlideReference(
            path=str(path), reader=opened.reader, fingerprint=opened.fingerprint()
        )
    sampling = Sampling(
        level=chosen.level, ratio=chosen.ratio, shape=chosen.shape, downsample=chosen.downsample
    )
    pixels = SlidePixels.open(SlideGrid(reference, sampling, chosen.shape))
    yield pixels
    pixels.close()


def measure_whole(table: pa.Table, pixels: Pixels) -> list[dict[str, float]]:
    """Measure a table's objects in the whole image, by scikit-image and numpy."""
    drawn = np.zeros(pixels.shape[:2], np.int32)
    outlines = shapely.from_wkb(table["geometry"].to_numpy())
    if len(outlines):
        numbered = [(outline, number) for number, outline in enumerate(outlines, start=1)]
        drawn = rasterio.features.rasterize(numbered, drawn.shape, dtype="int32")
    planes = dict(
        zip(("red", "green", "blue"), np.moveaxis(pixels.astype(float), 2, 0), strict=True)
    )
    stains = rgb2hed(pixels)
    planes |= {each.name: stains[..., number] for number, each in enumerate(STAINS)}
    stacked = np.stack([*planes.values()], axis=2)
    rows = []
    for region in regionprops(drawn, stacked):  # type: ignore[no-untyped-call]
        inside = region.image_intensity[region.image]
        row = dict(zip((f"mean_{name}" for name in planes), region.intensity_mean, strict=True))
        rows.append(row | dict(zip((f"sd_{name}" for name in planes), inside.std(0), strict=True)))
    return rows


@pytest.mark.parametrize(
    "make", [shapes.comb, shapes.rings, shapes.full, shapes.empty, shapes.touching_discs]
)
@pytest.mark.parametrize("largest_box", [LARGEST_BOX, 900])
def test_objects_have_the_values_of_the_whole_image(
    make: object, largest_box: int, slide: SlidePixels
) -> None:
    labels: shapes.Labels = np.zeros(slide.raster.shape, np.uint8)
    labels[40:160, 60:180] = make(120)  # type: ignore[operator]
    labels = labels[:200, :200]
    rules = {1: ClassRule(split="distance", h=0.375), 2: ClassRule()}
    values = StoredValues(("intensity", "stain"), slide, None)

    def find(side: int, margin: int) -> pa.Table:
        return find_by_blocks(
            labels, side, rules, largest_box=largest_box, margin=margin, values=values
        )

    table = find(64, 8)
    whole = slide.read(Box.from_shape(slide.raster.shape))[:200, :200]
    expected = measure_whole(table, whole)
    for row, wanted in zip(table.to_pylist(), expected, strict=True):
        for name, value in wanted.items():
            tolerance = 1e-9 if name.rpartition("_")[2] in slide.channels else 2 / STEPS
            assert row[name] == pytest.approx(value, rel=1e-9, abs=tolerance), name
    for side, margin in ((32, 8), (128, 0), (27, 150)):
        assert table.equals(find(side, margin))  # to the last bit


def test_shapes_and_identities_stay_whatever_else_is_measured(slide: SlidePixels) -> None:
    labels = shapes.touching_discs(120)
    values = StoredValues(("stain",), slide, None)
    plain, more = find_by_blocks(labels, 64), find_by_blocks(labels, 64, values=values)
    added = [name for name in more.column_names if name not in plain.column_names]
    assert added == [name for each in STAINS for name in each.columns]
    assert more.select(plain.column_names).equals(plain)


def test_a_raster_is_the_same_in_every_window(slide: SlidePixels) -> None:
    whole = slide.read(Box.from_shape(slide.raster.shape))
    for box in (Box(0, 0, 64, 64), Box(31, 77, 200, 81), Box(150, 150, 299, 299)):
        assert (slide.read(box) == whole[box.slices()]).all()


def test_only_what_has_objects_is_read() -> None:
    labels = np.zeros((5000, 5000), np.uint8)
    labels[10:20, 10:20] = labels[4500:4600, 4990:] = 1
    values = Constant(7)
    find_by_blocks(labels, 4096, values=values)
    assert sum(box.area for box in values.boxes) < 5 * 1024**2


def test_densities_are_those_of_scikit_image() -> None:
    every = np.arange(256, dtype=np.uint8)
    random = np.random.default_rng(0).integers(0, 256, (200_000, 3), dtype=np.uint8)
    for rgb in (random, np.stack([every] * 3, 1), np.zeros((1, 3), np.uint8)):
        expected = rgb2hed(rgb[None])[0]
        assert np.abs(unmix(rgb) / STEPS - expected).max() <= 1.5 / STEPS + 1e-12


def test_densities_are_the_same_on_every_processor() -> None:
    """No contribution lies where the last bit of a logarithm decides how it is rounded."""
    intensity = np.maximum(np.arange(256) / 255, 1e-6)
    exact = (np.log(intensity) / np.log(1e-6))[:, None, None] * hed_from_rgb * STEPS
    from_half = np.abs(exact - np.floor(exact) - 0.5)
    assert from_half.min() > 1e-5


@dataclass
class Constant:
    """One value everywhere."""

    value: int
    boxes: list[Box]
    quantities = (Quantity("constant"),)

    def __init__(self, value: int) -> None:
        self.value, self.boxes = value, []

    def read(self, box: Box, at: NDArray[np.int64], classes: Pixels) -> NDArray[np.int64]:
        self.boxes.append(box)
        return np.full((len(at), 1), self.value, np.int64)


def test_sums_beyond_64_bits_are_exact() -> None:
    value, shape = (1 << 22) - 1, (1024, 600)
    numbers = np.ones(shape, np.int32)
    numbers[0, 0] = 2
    classes = np.ones(2, np.uint8)
    sums = sum_values(Constant(value), Box.from_shape(shape), numbers, classes)
    n = numbers.size - 1
    assert sums.tolist() == [[n * value, n * value**2], [value, value**2]]
    found = finish_values(np.array([n, 1]), sums, Constant.quantities)
    assert found["mean_constant"].tolist() == [value, value]
    assert found["sd_constant"].tolist() == [0, 0]


class ClassOfObject:
    """The label value of the object that a pixel is of."""

    quantities = (Quantity("value"),)

    def read(self, box: Box, at: NDArray[np.int64], classes: Pixels) -> NDArray[np.int64]:
        return classes[:, None].astype(np.int64)


def test_what_objects_grow_into_has_the_probability_of_their_class() -> None:
    labels = shapes.touching_discs(100)
    labels[labels == 2] = 3
    grows = ClassRule(split="interior", boundary=shapes.NAMES[3], growth=1.5)
    table = find_by_blocks(labels, 32, {1: grows, 3: ClassRule()}, values=ClassOfObject())
    assert sum(table["area_px"].to_pylist()) > np.count_nonzero(labels == 1)
    assert {*table["mean_value"].to_pylist()} == {*table["label"].to_pylist()} == {1}


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.integers(0, (1 << 22) - 1), min_size=1, max_size=40),
    copies=st.sampled_from([1, 1000, EXACT, 1 << 23]),
)
def test_means_and_deviations(values: list[int], copies: int) -> None:
    n = len(values) * copies
    total, square = (copies * sum(v**power for v in values) for power in (1, 2))
    quantity = Quantity("x", 0.25)
    sums = np.array([[total, square]], object)
    if square < 1 << 63:
        sums = sums.astype(np.int64)
    found = finish_values(np.array([n]), sums, [quantity])
    exact = (Fraction(n * square - total**2) / n**2) * Fraction(1, 16)
    assert found["mean_x"][0] == pytest.approx(float(Fraction(total, 4 * n)), rel=1e-15)
    assert found["sd_x"][0] == pytest.approx(float(exact) ** 0.5, rel=1e-14, abs=1e-300)
    beside = np.array([[total, square], [5 << 40, 25 << 40]], object)
    again = finish_values(np.array([n, 1 << 40]), beside, [quantity])
    assert again["mean_x"][0] == found["mean_x"][0]
    assert again["sd_x"][0] == found["sd_x"][0]
