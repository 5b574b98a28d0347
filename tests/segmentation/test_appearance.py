"""A slide unlike anything that a model was trained on is said to be so, before it is segmented."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from skimage.color import hed2rgb, rgb2hed
from support.training import small_recipe, small_split, train_small

import wsi_unet
from wsi_unet.models import load_model
from wsi_unet.models.appearance_range import AppearanceRange
from wsi_unet.slides.tissue.appearance import Appearance
from wsi_unet_cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "CMU-1-Small-Region.svs"
FIELDS = sorted((ROOT / "tests" / "data" / "nuclei_he").rglob("images/*.png"))


def crop() -> NDArray[np.uint8]:
    """Return a part of the example slide."""
    with wsi_unet.open_slide(EXAMPLE) as slide:
        return slide.read(0, wsi_unet.geometry.Box(1000, 1000, 1512, 1640))


def without_haematoxylin(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image in which DAB stands for haematoxylin, and there is no eosin."""
    dyes = rgb2hed(image)
    dyes = np.stack([np.zeros_like(dyes[..., 0]), np.zeros_like(dyes[..., 0]), dyes[..., 0]], -1)
    colours: NDArray[np.uint8] = np.round(255 * hed2rgb(dyes)).astype(np.uint8)
    return colours


def warnings_about(image: NDArray[np.uint8], folder: Path, tissue: str) -> list[str]:
    Image.fromarray(image).save(folder / "slide.png")
    plan = wsi_unet.plan(
        folder / "slide.png", folder / "out.ome.zarr", model="nuclei-he", mpp=0.5, tissue=tissue
    )
    return [line for line in plan.warnings if "looks unlike anything" in line]


def test_the_example_slide_is_like_the_training(tmp_path: Path) -> None:
    plan = wsi_unet.plan(EXAMPLE, tmp_path / "out.ome.zarr", model="nuclei-he")
    assert plan.labels.appearance is not None
    assert not [line for line in plan.warnings if "looks unlike" in line]


@pytest.mark.parametrize("tissue", ["auto", "none"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, 2).astype(np.uint8), "red|"),
        (without_haematoxylin, "is (red|green|blue), and"),
        (lambda image: image[..., ::-1].copy(), "is (red|green|blue), and"),
        (lambda image: 255 - image, "is (red|green|blue), and|as dense"),
        (lambda image: image // 16, "times as dense as in the darkest|is (red|green|blue), and"),
    ],
    ids=["grey", "DAB alone", "red and blue swapped", "inverted", "dark"],
)
def test_other_pictures_are_not(change: object, reason: str, tissue: str, tmp_path: Path) -> None:
    assert callable(change)
    (line,) = warnings_about(change(crop()), tmp_path, tissue=tissue)
    assert line.startswith("the slide looks unlike anything that nuclei-he was trained on (")
    assert "look at them before using them" in line


@pytest.mark.parametrize("field", FIELDS, ids=lambda path: path.stem[:8])
def test_training_fields_are_like_the_training(field: Path, tmp_path: Path) -> None:
    with Image.open(field) as image:
        assert not warnings_about(np.asarray(image.convert("RGB")), tmp_path, tissue="none")


def test_a_cohort_says_it_per_slide(tmp_path: Path) -> None:
    good = crop()[:128, :128]
    Image.fromarray(good).save(tmp_path / "good.png")
    Image.fromarray(without_haematoxylin(good)).save(tmp_path / "brown.png")
    slides = [str(tmp_path / name) for name in ("good.png", "brown.png")]
    fixed = ["--mpp", "0.5", "--tissue", "none", "--precision", "float32", "--tile", "128"]
    done = CliRunner().invoke(cli, ["segment", *slides, "-o", str(tmp_path / "out"), *fixed])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("looks unlike anything that nuclei-he was trained on") == 1
    with (tmp_path / "out" / "cohort.csv").open(newline="") as file:
        rows = {Path(row["slide"]).name: row["warnings"] for row in csv.DictReader(file)}
    assert "looks unlike" not in rows["good.png"]
    assert "looks unlike" in rows["brown.png"]


def test_a_run_that_is_resumed_says_it_again(tmp_path: Path) -> None:
    Image.fromarray(without_haematoxylin(crop()[:128, :128])).save(tmp_path / "slide.png")
    said = []
    for _ in range(2):
        report = wsi_unet.segment(
            tmp_path / "slide.png", tmp_path / "out.ome.zarr", model="nuclei-he", mpp=0.5,
            precision="float32", tile=128, tissue="none",
        )  # fmt: skip
        said.append([line for line in report.warnings if "looks unlike" in line])
    assert len(said[0]) == 1
    assert said[0] == said[1]


def test_a_training_writes_what_its_images_look_like(tmp_path: Path) -> None:
    split = small_split()
    train_small(small_recipe(), tmp_path / "model", split=split)
    card = load_model(tmp_path / "model").spec.appearance
    assert (card is None) == (len(split.training) < 8)


def test_a_range_is_that_of_its_pieces() -> None:
    pieces = [Appearance(0.2 + n / 100, 0.5, 0.3 - n / 100, -0.1 * n) for n in range(8)]
    found = AppearanceRange.from_pieces([*pieces, None])
    assert found is not None
    assert (found.pieces, found.red, found.green) == (8, (0.2, 0.27), (0.5, 0.5))
    assert found.density == (-0.7, 0.0)
    assert all(found.explain_difference(piece) is None for piece in pieces)
    assert AppearanceRange.from_pieces(pieces[:7]) is None
    pale = found.explain_difference(Appearance(0.25, 0.5, 0.25, -1.0))
    assert pale == "its tissue is 2 times as pale as in the palest training image"
