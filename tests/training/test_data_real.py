"""Real data, if present: the recipes of the bundled model and of the papers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image
from support.training_data import CELL, GROUND, make_recipe

from wsi_unet.geometry import Box
from wsi_unet.slides.opening import open_slide
from wsi_unet.training.dataset import open_fields, split_fields
from wsi_unet.training.dataset.opening import MemoryBudget

ROOT = Path(__file__).resolve().parents[2]
NUCLEI = {"images": "nuclei_he/images", "labels": "nuclei_he/instances", "kind": "instances"}
NUCLS = {"images": "nucls_he/images", "labels": "nucls_he/instances", "kind": "instances"}


def median_scale(instances: Path) -> float:
    """Return the factor that brings a field's median nucleus to 6.5 µm at 0.5 µm per pixel."""
    with Image.open(instances) as image:
        areas = np.bincount(np.asarray(image).ravel())[1:]
    diameter = 2 * math.sqrt(float(np.median(areas[areas > 0])) / math.pi)
    return min(13.0 / diameter, 1.0)


def test_the_few_nuclei_in_the_repo() -> None:
    folder = ROOT / "tests" / "data"
    recipe = make_recipe({**NUCLEI, "object_diameter": 6.5}, mpp=0.5)
    fields = open_fields(recipe, folder)
    assert len(fields) == 3
    for field in fields:
        scale = median_scale(folder / "nuclei_he" / "instances" / Path(field.name).name)
        with Image.open(folder / field.name) as image:
            width, height = image.size
        assert abs(field.shape[0] - height * scale) <= 1
        assert abs(field.shape[1] - width * scale) <= 1
        assert 0.02 < field.amounts[1] / math.prod(field.shape) < 0.6


def test_nuclei_of_two_sets(shared_data: Path) -> None:
    recipe = make_recipe(
        {**NUCLEI, "object_diameter": 6.5},
        {**NUCLS, "mpp": 0.2},
        mpp=0.5,
        split={"folds": 5, "hold_out": [1], "order": "interleaved"},
    )
    fields = open_fields(recipe, shared_data)
    split = split_fields(recipe, fields)
    assert [len(split.training), len(split.validation), len(split.hold_out[1])] == [85, 22, 10]
    assert split.hold_out[1][0].shape == (math.ceil(260 * 0.4), math.ceil(288 * 0.4))
    scales = [
        median_scale(shared_data / "nuclei_he" / "instances" / Path(one.name).name)
        for one in fields
        if one.source == 0
    ]
    found = [1 / one.downsample[0] for one in fields if one.source == 0]
    assert np.allclose(found, scales, rtol=1e-3)


def test_membranes(shared_data: Path) -> None:
    classes = [{**GROUND, "values": [0]}, {**CELL, "values": [255]}]
    recipe = make_recipe(
        {"images": "isbi2012_em/image", "labels": "isbi2012_em/label"},
        classes=classes,
        weighting={"separation": 10.0},
        split={"folds": 5, "fold": 1, "order": "contiguous"},
    )
    fields = open_fields(recipe, shared_data)
    assert [Path(one.name).stem for one in fields] == [str(i) for i in range(30)]
    assert [one.shape for one in fields] == [(512, 512)] * 30
    split = split_fields(recipe, fields)
    assert [Path(one.name).stem for one in split.validation] == [str(i) for i in range(6, 12)]
    piece = fields[7].read(Box(100, 50, 300, 260))
    label = np.asarray(Image.open(shared_data / "isbi2012_em" / "label" / "7.png"))
    assert (piece.labels == (label[100:300, 50:260] == 255)).all()
    assert piece.separation[piece.labels == 0].mean() > 1
    assert not piece.separation[piece.labels == 1].any()


def test_regions_of_the_example_slide(shared_data: Path, example_slide_path: Path) -> None:
    truth = shared_data / "annotations" / "CMU-1-Small-Region_regions.dsa.geojson"
    classes = [GROUND, {**CELL, "annotations": ["Tumor"]}]
    data = {"images": str(example_slide_path), "labels": str(truth), "ignore": ["other"]}
    for budget in (MemoryBudget(1 << 30), MemoryBudget(0)):
        (field,) = open_fields(make_recipe(data, classes=classes, mpp=1.0), shared_data, budget)
        assert abs(field.amounts[1] - 821 * (2220 - 1512) * 0.499**2) < 1000
        y, x = field.point(1, np.random.default_rng(0))
        assert 1512 * 0.499 <= y < 2333 * 0.499
        assert 1512 * 0.499 <= x < 2333 * 0.499


def test_a_large_slide_is_never_read_as_a_whole(shared_data: Path, tmp_path: Path) -> None:
    from support.labelled import rectangle, write_geojson

    slide = shared_data / "slides" / "glycogen_HE_15071x13500.tiff"
    box = Box(5000, 6000, 5400, 6600)
    truth = write_geojson(tmp_path / "t.geojson", [("cell", rectangle(box))])
    recipe = make_recipe({"images": str(slide), "labels": str(truth)})
    (field,) = open_fields(recipe, tmp_path)
    with open_slide(slide) as opened:
        assert field.shape == opened.shape
        window = Box(4900, 5900, 5500, 6700)
        piece = field.read(window)
        assert (piece.image == opened.read(0, window)).all()
    expected = np.zeros(window.shape, np.uint8)
    expected[box.relative_to(window).slices()] = 1
    assert (piece.labels == expected).all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        y, x = field.point(1, rng)
        assert box.contains(Box(y, x, y + 1, x + 1))
    assert field.amounts[1] == 400 * 600 or abs(field.amounts[1] / (400 * 600) - 1) < 0.1
    corner = field.read(Box(-20, -30, 10, 10)).image
    assert (corner[20:, 30:] == piece_of(slide)).all()


def piece_of(slide: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with open_slide(slide) as opened:
        return opened.read(0, Box(0, 0, 10, 10))
