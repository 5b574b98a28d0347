"""Pixels of fields: the image as `segment` reads it, and the nearest labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from support.labelled import blobs, rectangle, write_geojson, write_store
from support.training_data import (
    CELL,
    GROUND,
    INSTANCES,
    make_image,
    make_instances,
    make_recipe,
    save,
    write_pairs,
)

from wsi_unet.errors import RecipeError
from wsi_unet.geometry import Box
from wsi_unet.models import ModelClass, ModelSpec, Normalisation, UNetConfig
from wsi_unet.segmentation.planning.resolved_options import fit_resampling, make_slide_reference
from wsi_unet.slides.opening import open_slide
from wsi_unet.slides.resample import open_raster
from wsi_unet.training.dataset import open_fields
from wsi_unet.training.dataset.opening import MemoryBudget
from wsi_unet.training.fields import IGNORED, NOTHING


def whole(shape: tuple[int, int]) -> Box:
    return Box.from_shape(shape)


def nearest(labels: NDArray[Any], downsample: float, shape: tuple[int, int]) -> NDArray[Any]:
    """Return the pixel in which each grid pixel's centre lies; labels beyond it are unknown."""
    fringed = np.pad(labels.astype(np.uint8), (0, 1), constant_values=IGNORED)
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * downsample + 1e-9).astype(int), side)
        for n, side in zip(shape, labels.shape, strict=True)
    )
    picked: NDArray[np.uint8] = fringed[rows[:, None], columns]
    return picked


def test_pairs_are_read_as_they_are(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, [(60, 80), (33, 47)])
    fields = open_fields(make_recipe(INSTANCES), tmp_path)
    assert [one.name for one in fields] == ["images/0.png", "images/1.png"]
    for field, (image, instances) in zip(fields, pairs, strict=True):
        assert field.shape == image.shape[:2]
        piece = field.read(whole(field.shape))
        assert (piece.image == image).all()
        assert (piece.labels == (instances > 0)).all()
        assert piece.labels.dtype == np.uint8
        assert not piece.separation.any()
        assert piece.separation.dtype == np.float32
        assert field.amounts == {0: (instances == 0).sum(), 1: (instances > 0).sum()}


@pytest.mark.parametrize("kept", [True, False])
def test_images_are_resampled_as_segment_does_it(tmp_path: Path, kept: bool) -> None:
    ((_, instances),) = write_pairs(tmp_path, [(190, 231)])
    recipe = make_recipe({**INSTANCES, "mpp": 0.29}, mpp=0.5)
    (field,) = open_fields(recipe, tmp_path, MemoryBudget(1 << 30 if kept else 0))
    spec = ModelSpec(
        name="m",
        architecture=UNetConfig(depth=1, base_width=2),
        classes=(ModelClass(name="a", color="#000000"), ModelClass(name="b", color="#ffffff")),
        background="a",
        mpp=0.5,
        normalisation=Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    with open_slide(tmp_path / "images" / "0.png") as slide:
        sampling = fit_resampling(slide, make_slide_reference(slide, 0.29), spec)
        expected = open_raster(slide, sampling).read(whole(sampling.shape))
    assert field.shape == sampling.shape == (math.ceil(190 * 0.58), math.ceil(231 * 0.58))
    piece = field.read(whole(field.shape))
    assert (piece.image == expected).all()
    assert (piece.labels == nearest(instances > 0, sampling.downsample[0], field.shape)).all()


@pytest.mark.parametrize("kept", [True, False])
def test_beyond_its_edges_a_field_is_mirrored(tmp_path: Path, kept: bool) -> None:
    ((image, instances),) = write_pairs(tmp_path, [(20, 31)])
    weighting = {"separation": 10.0, "sigma": 2.0}
    recipe = make_recipe(INSTANCES, weighting=weighting)
    (field,) = open_fields(recipe, tmp_path, MemoryBudget(1 << 30 if kept else 0))
    inner = field.read(whole(field.shape))
    assert inner.separation.any()
    for window in (Box(-5, -7, 23, 40), Box(-70, -1, -30, 9), Box(5, 28, 60, 100), Box(2, 3, 4, 5)):
        piece = field.read(window)
        edges = [(100, 100), (100, 100)]
        shift = window.shift(100, 100)
        for found, source in (
            (piece.image, image),
            (piece.labels, (instances > 0).astype(np.uint8)),
            (piece.separation, inner.separation),
        ):
            padded = np.pad(source, [*edges, *[(0, 0)] * (source.ndim - 2)], mode="reflect")
            assert (found == padded[shift.slices()]).all()


def test_what_is_read_may_be_changed(tmp_path: Path) -> None:
    write_pairs(tmp_path, [(20, 31)])
    (field,) = open_fields(make_recipe(INSTANCES, weighting={"separation": 1.0}), tmp_path)
    before = field.read(whole(field.shape))
    again = field.read(whole(field.shape))
    again.image[:], again.labels[:], again.separation[:] = 0, 77, -1
    after = field.read(whole(field.shape))
    assert (after.image == before.image).all()
    assert (after.labels == before.labels).all()
    assert (after.separation == before.separation).all()


@pytest.mark.parametrize(
    ("classes", "background", "head", "expected"),
    [
        # As segment stores them: 0 is the background, wherever it stands among the classes.
        ([("a", None), ("b", None), ("c", None)], "a", "softmax", [0, 1, 2, None, None]),
        ([("a", None), ("b", None), ("c", None)], "b", "softmax", [1, 0, 2, None, None]),
        ([("a", None), ("b", None)], None, "sigmoid", [NOTHING, 0, 1, None, None]),
        ([("a", None), ("b", None)], None, "softmax", [IGNORED, 0, 1, None, None]),
        ([("a", (0,)), ("b", None)], "a", "softmax", [0, 1, 1, 1, 1]),
        ([("a", (0, 300)), ("b", (1, 2))], "a", "softmax", [0, 1, 1, None, 0]),
        ([("a", None), ("b", (0,))], None, "softmax", [1, 0, 0, 0, 0]),
        ([("a", (1,)), ("b", (2,))], None, "sigmoid", [NOTHING, 0, 1, None, None]),
    ],
)
def test_values_mean_classes(
    tmp_path: Path,
    classes: list[tuple[str, Any]],
    background: str | None,
    head: str,
    expected: list[int | None],
) -> None:
    described = [{"name": name, "color": "#000000", "values": values} for name, values in classes]
    values = [0, 1, 2, 3, 300]
    for value, label in zip(values, expected, strict=True):
        labels = np.zeros((4, 4), np.uint16)
        labels[1:3, 1:3] = value
        save(tmp_path / f"{value}" / "a.png", make_image((4, 4)))
        save(tmp_path / f"{value}" / "labels" / "a.png", labels)
        recipe = make_recipe(
            {"images": f"{value}", "labels": f"{value}/labels"},
            classes=described,
            background=background,
            head=head,
            loss=[{"name": "cross_entropy" if head == "softmax" else "binary_cross_entropy"}],
        )
        if label is None:
            with pytest.raises(RecipeError, match=rf"a.png: 4 px have the value {value}, which"):
                open_fields(recipe, tmp_path)
            continue
        (field,) = open_fields(recipe, tmp_path)
        found = field.read(whole((4, 4))).labels
        assert (found[labels == value] == label).all()
        assert (found[labels != value] == expected[0]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.int64, np.bool_])
def test_labels_of_any_depth(tmp_path: Path, dtype: Any) -> None:
    labels = (make_instances((40, 50)) > 0).astype(dtype)
    if dtype not in (np.uint8, np.bool_):
        labels = labels * np.array(np.iinfo(dtype).max, dtype)
    save(tmp_path / "images" / "a.png", make_image((40, 50)))
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels" / "a.tif"
    tifffile.imwrite(path, labels, compression="zlib", photometric="minisblack")
    for kind in ("instances", "classes"):
        classes = [{**GROUND, "values": [0]}, CELL]
        data = {"images": "images", "labels": "labels", "kind": kind}
        (field,) = open_fields(make_recipe(data, classes=classes), tmp_path)
        assert (field.read(whole(field.shape)).labels == (labels > 0)).all()


def test_what_is_ignored_counts_for_nothing(tmp_path: Path) -> None:
    labels = blobs((50, 60), values=4)
    save(tmp_path / "a.png", make_image((50, 60)))
    save(tmp_path / "t.png", labels)
    classes = [{**GROUND, "values": [0]}, {**CELL, "values": [1, 2]}]
    recipe = make_recipe({"images": "a.png", "labels": "t.png", "ignore": [3]}, classes=classes)
    (field,) = open_fields(recipe, tmp_path)
    expected = np.array([0, 1, 1, IGNORED], np.uint8)[labels]
    assert (field.read(whole(field.shape)).labels == expected).all()
    assert field.amounts == {0: (labels == 0).sum(), 1: np.isin(labels, (1, 2)).sum()}


def test_outlines_on_a_real_slide(tmp_path: Path, example_slide_path: Path) -> None:
    boxes = {"Tumor": Box(100, 200, 500, 700), "cell": Box(200, 300, 240, 360)}
    other = Box(1000, 1000, 1100, 1200)
    features = [(name, rectangle(box)) for name, box in boxes.items()]
    truth = write_geojson(tmp_path / "t.geojson", [*features, ("Artefact", rectangle(other))])
    within = write_geojson(tmp_path / "w.geojson", [("x", rectangle(Box(0, 0, 1500, 1600)))])
    data = {
        "images": str(example_slide_path),
        "labels": truth.name,
        "within": within.name,
        "ignore": ["artefact"],
    }
    classes = [GROUND, CELL, {"name": "tumour", "color": "#ff0000", "annotations": ["Tumor"]}]
    expected = np.full((2967, 2220), IGNORED, np.uint8)
    expected[:1500, :1600] = 0
    expected[boxes["Tumor"].slices()] = 2
    expected[boxes["cell"].slices()] = 1
    expected[other.slices()] = IGNORED
    with open_slide(example_slide_path) as slide:
        pixels = slide.read(0, Box(0, 0, 2967, 2220))
    for budget in (MemoryBudget(1 << 30), MemoryBudget(0)):
        (field,) = open_fields(make_recipe(data, classes=classes, mpp=0.499), tmp_path, budget)
        assert field.shape == (2967, 2220)
        piece = field.read(whole(field.shape))
        assert (piece.labels == expected).all()
        assert (piece.image == pixels).all()
        assert field.amounts == {i: (expected == i).sum() for i in range(3)}
    coarse = make_recipe(data, classes=classes, mpp=2 * 0.499)
    (field,) = open_fields(coarse, tmp_path)
    found = field.read(whole(field.shape)).labels[:1483]
    assert (found == expected[1::2, 1::2]).all()


@pytest.mark.parametrize("stored", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("trained", [1.0, 2.0])
def test_label_zarrs_are_a_truth(tmp_path: Path, stored: float, trained: float) -> None:
    shape = (700, 900)
    labels = blobs((math.ceil(700 / stored), math.ceil(900 / stored)))
    save(tmp_path / "slides" / "a.png", make_image(shape))
    write_store(
        tmp_path / "labels" / "a.ome.zarr",
        labels,
        classes=("background", "cell", "mitosis"),
        downsample=(stored, stored),
        mpp=(0.25, 0.25),
        slide_shape=shape,
    )
    classes = [GROUND, CELL, {"name": "dividing", "color": "#ff0000", "annotations": ["Mitosis"]}]
    data = {"images": "slides", "labels": "labels", "mpp": 0.25}
    recipe = make_recipe(data, classes=classes, mpp=0.25 * trained)
    for budget in (MemoryBudget(1 << 30), MemoryBudget(0)):
        (field,) = open_fields(recipe, tmp_path, budget)
        piece = field.read(whole(field.shape))
        assert (piece.labels == nearest(labels, trained / stored, field.shape)).all()
        there = {i: float((piece.labels == i).sum()) for i in range(3)}
        assert field.amounts == pytest.approx(there, rel=0.2)
        for index in (1, 2):
            assert field.amounts[index] == pytest.approx(there[index], rel=0.02)


def test_a_label_zarr_of_regions_knows_only_those(tmp_path: Path) -> None:
    shape = (1100, 1200)
    labels = np.ones(shape, np.uint8)
    save(tmp_path / "a.png", make_image(shape))
    write_store(
        tmp_path / "t.ome.zarr",
        labels,
        classes=("background", "cell"),
        regions=[[0, 600, 100, 700]],
    )
    recipe = make_recipe({"images": "a.png", "labels": "t.ome.zarr"})
    expected = np.full(shape, IGNORED, np.uint8)
    expected[:100, 600:700] = 1
    for budget in (MemoryBudget(1 << 30), MemoryBudget(0)):
        (field,) = open_fields(recipe, tmp_path, budget)
        assert (field.read(whole(shape)).labels == expected).all()
        assert all(Box(0, 500, 200, 800).contains(area) for area in field.areas)


def test_magnification_follows_from_the_median_object(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, [(200, 260), (90, 120)])
    recipe = make_recipe({**INSTANCES, "object_diameter": 3.0}, mpp=0.5)
    fields = open_fields(recipe, tmp_path)
    for field, (_, instances) in zip(fields, pairs, strict=True):
        areas = np.bincount(instances.ravel())[1:]
        diameter = 2 * math.sqrt(float(np.median(areas[areas > 0])) / math.pi)
        scale = min(3.0 / 0.5 / diameter, 1.0)
        assert field.downsample[0] == pytest.approx(1 / scale, rel=2e-3)
        assert field.shape == tuple(math.ceil(s / field.downsample[0]) for s in instances.shape)
    (same, _) = open_fields(make_recipe({**INSTANCES, "object_diameter": 50.0}, mpp=0.5), tmp_path)
    assert same.shape == (200, 260)


def test_magnification_follows_from_objects_of_classes_and_outlines(tmp_path: Path) -> None:
    labels = np.zeros((100, 100), np.uint8)
    for i in range(3):
        labels[10 + 30 * i : 30 + 30 * i, 10:30] = 1
        labels[10 + 30 * i : 12 + 30 * i, 60:62] = 1
    labels[50:90, 40:95] = 1
    save(tmp_path / "a.png", make_image((100, 100)))
    save(tmp_path / "t.png", labels)
    squares = [Box(10 + 30 * i, 10, 30 + 30 * i, 30) for i in range(3)]
    write_geojson(tmp_path / "t.geojson", [("cell", rectangle(box)) for box in squares])
    areas = {"t.png": [4, 4, 400, 400, 400, 2200], "t.geojson": [400] * 3}
    for name, sizes in areas.items():
        data = {"images": "a.png", "labels": name, "object_diameter": 5.0}
        (field,) = open_fields(make_recipe(data, mpp=0.5), tmp_path)
        diameter = 2 * math.sqrt(float(np.median(sizes)) / math.pi)
        assert field.downsample[0] == pytest.approx(diameter / 10, rel=2e-3)
