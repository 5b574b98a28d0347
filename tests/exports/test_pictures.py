"""Masks as PNG files, read by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exports.results import LABELS, SHAPE, make_result
from PIL import Image

import wsi_unet
from wsi_unet import ExportOptions, OptionError


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_result(tmp_path_factory.mktemp("result") / "slide.ome.zarr")


@pytest.mark.parametrize(("name", "value"), [("nucleus", 1), ("tumour", 2)])
def test_a_mask_is_its_class(name: str, value: int, result: Path, tmp_path: Path) -> None:
    wsi_unet.export(result, "png", tmp_path / "mask.png", options=ExportOptions(class_name=name))
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "L"
        found = np.asarray(image)
    assert np.array_equal(found, np.where(value == LABELS, 255, 0))


def test_coarser_levels_are_those_of_the_pyramid(result: Path, tmp_path: Path) -> None:
    options = ExportOptions(class_name="nucleus", level=1)
    wsi_unet.export(result, "png", tmp_path / "mask.png", options=options)
    with Image.open(tmp_path / "mask.png") as image:
        found = np.asarray(image)
    expected = wsi_unet.open_labels(result, level=1).to_numpy()
    assert np.array_equal(found == 255, expected == 1)


def test_where_the_model_did_not_look_is_no_background(tmp_path: Path) -> None:
    region = [100, 40, 500, 900]
    result = make_result(tmp_path / "slide.ome.zarr", regions=[region])
    wsi_unet.export(
        result, "png", tmp_path / "mask.png", options=ExportOptions(class_name="nucleus")
    )
    with Image.open(tmp_path / "mask.png") as image:
        found = np.asarray(image)
    outside = np.ones(SHAPE, np.bool_)
    outside[100:500, 40:900] = False
    assert np.array_equal(found == 128, outside)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(), "several classes; give `class_name` one of nucleus, tumour"),
        (ExportOptions(class_name="gland"), "'gland'; give `class_name` one of nucleus, tumour"),
        (ExportOptions(class_name="nucleus", level=9), "have levels 0 to"),
    ],
)
def test_refusals(options: ExportOptions, message: str, result: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        wsi_unet.export(result, "png", tmp_path / "mask.png", options=options)
    assert not [*tmp_path.iterdir()]
