"""Test-time augmentation: the mean over views of the whole image, however it is tiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray
from support.exactness import network_of, segment_labels
from support.oracle import MARGIN, balanced_model, textured, whole_image_views, write_png

import wsi_unet
from wsi_unet.errors import OptionError, SignatureError
from wsi_unet.models import UNetConfig
from wsi_unet.models.inference import ensemble
from wsi_unet.models.inference.ensemble import Ensemble

SHAPE = (331, 283)
"""Sides that are no multiple of any period."""

NETWORKS = [
    network_of("valid", "transpose", 2, classes=3),
    network_of("valid", "bilinear", 1),
    network_of("same", "transpose", 3, norm="batch"),
    network_of("same", "bilinear", 2),
    network_of("same", "transpose", 2, odd="zeros"),
    network_of("same", "bilinear", 2, odd="zeros", align_corners=True),
    network_of("same", "bilinear", 2, align_corners=True),
]

QUARTERS = {"flips": (0, 2), "d4": (0, 1, 2, 3)}


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(*SHAPE)


@pytest.fixture(scope="module")
def slide(image: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_png(tmp_path_factory.mktemp("tta") / "slide.png", image)


def wrong(labels: NDArray[np.uint8], expected: NDArray[np.float64]) -> int:
    """Count the labels that differ where the mean probabilities decide, which is nearly all."""
    ordered = np.sort(expected, axis=0)
    decided = ordered[-1] - ordered[-2] > MARGIN
    assert decided.mean() > 0.998
    assert np.bincount(expected.argmax(0).ravel()).min() > 0.05 * labels.size
    return int(((labels != expected.argmax(0)) & decided).sum())


@pytest.mark.parametrize("config", NETWORKS, ids=lambda c: f"{c.padding}-{c.upsampling}-{c.odd}")
@pytest.mark.parametrize("tta", ["flips", "d4"])
def test_views_of_tiles_are_views_of_the_whole(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path, config: UNetConfig, tta: str
) -> None:
    _, network = balanced_model(config, image, tmp_path / "model")
    labels = segment_labels(
        slide,
        tmp_path / "out",
        tmp_path / "model",
        tta=tta,
        tile=128,
        outputs=("labels", "probabilities"),
    )
    expected = whole_image_views(network, config, image, quarters=QUARTERS[tta])
    assert wrong(labels, expected) == 0
    stored = wsi_unet.open_probabilities(tmp_path / "out").values
    assert np.abs(stored / 255 - expected).max() <= 0.5 / 255 + 1e-4
    once = whole_image_views(network, config, image, quarters=(0,))
    assert np.abs(once - expected).max() > 0.01  # the views matter


def test_without_aligned_windows_it_would_be_wrong(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    """Test views of windows that the network, without views, would cut at the slide's odd edge."""
    config = network_of("same", "transpose", 2, odd="zeros")
    _, network = balanced_model(config, image, tmp_path / "model")
    with mock.patch.object(ensemble, "widen_for_views", lambda border: border):
        labels = segment_labels(slide, tmp_path / "out", tmp_path / "model", tta="flips")
    expected = whole_image_views(network, config, image, quarters=QUARTERS["flips"])
    assert wrong(labels, expected) > 100


def test_tta_is_part_of_what_a_run_is(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    model, _ = balanced_model(network_of("valid", "transpose", 2), image, tmp_path / "model")
    settings: dict[str, Any] = {"tissue": "none", "precision": "float32", "device": "cpu"}

    def run(**options: Any) -> wsi_unet.Report:
        return wsi_unet.segment(slide, tmp_path / "out", model.path, **(settings | options))

    report = run(tta="flips")
    assert report.parameters["tta"] == "flips"
    assert report.exactness == "exact"
    with pytest.raises(SignatureError, match=r"augmentation \(flips stored, none requested\)"):
        run()
    assert run(tta="flips").blocks.resumed == 1
    with pytest.raises(OptionError, match=r"tta 'rotations' is none of none, flips, d4"):
        run(tta="rotations")
    provenance = wsi_unet.open_labels(tmp_path / "out").attrs["provenance"]
    assert provenance["parameters"]["tta"] == "flips"


def test_costs_count_every_view(image: NDArray[np.uint8], tmp_path: Path) -> None:
    model, _ = balanced_model(network_of("same", "transpose", 2), image, tmp_path / "model")
    plain, flips, d4 = (Ensemble((model,), tta) for tta in ("none", "flips", "d4"))
    assert (plain.forward_passes, flips.forward_passes, d4.forward_passes) == (1, 4, 8)
    assert flips.flops(256) == 4 * plain.flops(256)
    assert d4.flops(256) == 8 * plain.flops(256)
    memory = [one.memory(256, "float32", probabilities=False) for one in (plain, flips, d4)]
    assert memory[0] < memory[1] == memory[2]


def test_windows_of_one_size_need_room_for_all_directions(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    config = network_of("valid", "transpose", 2)  # 20 px before, 24 after, in steps of 4
    model, network = balanced_model(config, image, tmp_path / "model", window=92)
    one, several = Ensemble((model,)), Ensemble((model,), "d4")
    assert (one.exactness, several.exactness) == ("exact", "exact")
    assert one.tile == several.tile == 32
    labels = segment_labels(slide, tmp_path / "out", tmp_path / "model", tta="d4", tile=None)
    expected = whole_image_views(network, config, image, quarters=QUARTERS["d4"])
    assert wrong(labels, expected) == 0
    small, _ = balanced_model(config, image, tmp_path / "small", window=48)
    assert Ensemble((small,)).tile == 4
    with pytest.raises(OptionError, match=r"random with `tta=flips`: a window of 48 px leaves"):
        Ensemble((small,), "flips").border()
