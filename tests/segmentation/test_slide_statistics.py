"""Models that normalise with the statistics of the slide's own tissue, found once per slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.exactness import assert_same_labels, network_of, segment_labels
from support.oracle import (
    MEAN,
    STD,
    ArrayRaster,
    balanced_model,
    textured,
    whole_image_forward,
    write_png,
)

import wsi_unet
from wsi_unet.errors import OptionError, SignatureError
from wsi_unet.geometry import Box
from wsi_unet.models import Normalisation
from wsi_unet.models.inference.predictor import Predictor
from wsi_unet.segmentation.planning import resolved_options
from wsi_unet.segmentation.worker import task
from wsi_unet.slides import colour_statistics
from wsi_unet.slides.colour_statistics import measure_colours
from wsi_unet.slides.tissue.mask import mask_in_box

SHAPE = (600, 530)
CONFIG = network_of("valid", "transpose", 2)
OF_SLIDE = Normalisation(mean=(MEAN,) * 3, std=(STD,) * 3, statistics="slide")
LUMA = np.array([0.299, 0.587, 0.114])


def pale(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image with less contrast, and another brightness in each colour."""
    result: NDArray[np.uint8] = (image * np.array([0.5, 0.4, 0.3]) + [90, 60, 120]).astype(np.uint8)
    return result


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return pale(textured(*SHAPE))


@pytest.fixture(scope="module")
def slide(image: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_png(tmp_path_factory.mktemp("statistics") / "slide.png", image)


def plain(pixels: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Return the means and standard deviations of (n, 3), as numpy computes them."""
    intensities = pixels.reshape(-1, 3).astype(np.float64) / 255
    return intensities.mean(0).tolist(), intensities.std(0).tolist()


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 99), st.sampled_from([4, 10**6]))
@settings(max_examples=25)
def test_sums_are_numpys(rows: int, columns: int, seed: int, most: int) -> None:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    image[..., 1] //= 4
    mask = generator.random((5, 7)) < 0.5
    for given_mask in (None, mask):
        inside = np.ones((rows, columns), bool)
        if given_mask is not None:
            inside = mask_in_box(mask, Box(0, 0, rows, columns), (rows, columns))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(colour_statistics, "MAX_CELLS", most)
            found = measure_colours(ArrayRaster(image), given_mask)
        if found is None:
            assert not inside.any()
            continue
        if most == 4:
            assert 0 < found.pixels <= 4 * 256 * 256
            continue
        assert found.pixels == inside.sum()
        mean, std = plain(image[inside])
        least = 1 / 255
        rgb = found.channels("rgb")
        assert rgb[0] == pytest.approx(mean)
        assert rgb[1] == pytest.approx([max(least, one) for one in std], abs=1e-9)
        assert found.channels("bgr") == (rgb[0][::-1], rgb[1][::-1])
        gray = image[inside] @ LUMA / 255
        assert found.channels("gray")[0] == pytest.approx([gray.mean()])
        assert found.channels("gray")[1] == pytest.approx([max(least, gray.std())], abs=1e-9)


def test_the_whole_image_scaled_with_its_own_statistics(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    normalisation = {"mean": plain(image)[0], "std": plain(image)[1]}
    _, network = balanced_model(CONFIG, image, tmp_path / "model", normalisation=OF_SLIDE)
    truth = whole_image_forward(network, CONFIG, image, **normalisation)
    constant = whole_image_forward(network, CONFIG, image)
    assert (truth.labels != constant.labels).mean() > 0.05  # so it matters
    labels = segment_labels(slide, tmp_path / "out", tmp_path / "model")
    assert_same_labels(labels, truth)
    parameters = wsi_unet.open_labels(tmp_path / "out").attrs["provenance"]["parameters"]
    (recorded,) = parameters["statistics"]
    assert recorded["mean"] == pytest.approx(normalisation["mean"])
    assert recorded["std"] == pytest.approx(normalisation["std"])


def test_only_the_tissue_counts(image: NDArray[np.uint8], slide: Path, tmp_path: Path) -> None:
    mask = np.zeros((60, 53), np.uint8)
    mask[5:40, 20:50] = 255
    path = write_png(tmp_path / "mask.png", mask)
    inside = np.kron(mask > 0, np.ones((10, 10), bool))
    mean, std = plain(image[inside])
    balanced_model(CONFIG, image, tmp_path / "model", normalisation=OF_SLIDE)
    report = wsi_unet.segment(
        slide, tmp_path / "out", tmp_path / "model", tissue=str(path), device="cpu"
    )
    (recorded,) = report.parameters["statistics"]
    assert recorded["mean"] == pytest.approx(mean)
    assert recorded["std"] == pytest.approx(std)
    assert mean != pytest.approx(plain(image)[0], abs=1e-4)


def run(slide: Path, folder: Path, **options: Any) -> wsi_unet.Report:
    given: dict[str, Any] = {
        "tissue": "none",
        "precision": "float32",
        "device": "cpu",
        "block": 512,
    }
    return wsi_unet.segment(slide, folder / "out", folder / "model", **(given | options))


def test_a_resumed_run_keeps_what_it_began_with(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    balanced_model(CONFIG, image, tmp_path / "model", normalisation=OF_SLIDE)
    first = run(slide, tmp_path)
    (tmp_path / "out/.wsi_unet/random/blocks/0.1.json").unlink()
    monkeypatch.setattr(resolved_options, "measure_colours", None)  # isn't asked again
    again = run(slide, tmp_path)
    assert (again.state, again.blocks.resumed) == ("finished", 3)
    assert again.parameters["statistics"] == first.parameters["statistics"]
    record = tmp_path / "out/.wsi_unet/random/run.json"
    stored = json.loads(record.read_text())
    assert stored["parameters"]["statistics"] == json.loads(
        json.dumps(first.parameters["statistics"])
    )
    stored["parameters"]["statistics"] = []
    record.write_text(json.dumps(stored))
    monkeypatch.undo()
    with pytest.raises(SignatureError, match="statistics"):
        run(slide, tmp_path)


def test_slides_of_a_cohort_share_the_model_not_the_statistics(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = textured(*SHAPE, seed=5)
    write_png(tmp_path / "other.png", other)
    _, network = balanced_model(CONFIG, image, tmp_path / "model", seed=7, normalisation=OF_SLIDE)
    loaded: list[Predictor] = []

    class Counted(Predictor):
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            loaded.append(self)

    monkeypatch.setattr(task, "Predictor", Counted)
    jobs = [
        wsi_unet.SlideJob(
            slide=str(path),
            output=str(tmp_path / name),
            model=str(tmp_path / "model"),
            options=wsi_unet.Options(
                tissue="none", precision="float32", device="cpu", block=512, tile=256
            ),
        )
        for path, name in ((slide, "a"), (tmp_path / "other.png", "b"))
    ]
    outcomes = list(wsi_unet.segment_cohort(jobs))
    assert [one.state for one in outcomes] == ["finished", "finished"]
    for name, pixels in (("a", image), ("b", other)):
        mean, std = plain(pixels)
        truth = whole_image_forward(network, CONFIG, pixels, mean=mean, std=std)
        assert_same_labels(wsi_unet.open_labels(tmp_path / name).values, truth)
    assert len(loaded) == 1


def test_glass_alone_falls_back_to_the_models_constants(
    image: NDArray[np.uint8], tmp_path: Path
) -> None:
    write_png(tmp_path / "glass.png", np.full((600, 530, 3), 240, np.uint8))
    balanced_model(CONFIG, image, tmp_path / "model", normalisation=OF_SLIDE)
    report = run(tmp_path / "glass.png", tmp_path, tissue="auto")
    assert report.state == "finished"
    (recorded,) = report.parameters["statistics"]
    assert ([*recorded["mean"]], [*recorded["std"]]) == ([MEAN] * 3, [STD] * 3)
    assert any("the model's own constants are used" in line for line in report.warnings)


def test_lazy_images_have_no_statistics(image: NDArray[np.uint8], tmp_path: Path) -> None:
    model, _ = balanced_model(CONFIG, image, tmp_path / "model", normalisation=OF_SLIDE)
    with pytest.raises(OptionError, match=r"statistics of the whole slide.*use `segment`"):
        wsi_unet.map_unet(image, model)
