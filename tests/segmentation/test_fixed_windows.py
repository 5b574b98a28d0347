"""Networks that need windows of one size: they run on one grid and are called approximate."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from support.exactness import assert_same_labels, network_of
from support.oracle import MEAN, STD, balanced_model, textured, whole_image_forward, write_png
from torch import nn

import wsi_unet
from wsi_unet.errors import OptionError
from wsi_unet.models import UNetConfig
from wsi_unet.models.inference.ensemble import Ensemble
from wsi_unet.models.networks.unet import UNet
from wsi_unet_cli.main import cli

SHAPE = (603, 531)
INSTANCE = network_of("same", "transpose", 2, norm="instance")
ALIGNED = network_of("same", "bilinear", 2, align_corners=True, odd="zeros")
SETTINGS: dict[str, Any] = {
    "tissue": "none",
    "precision": "float32",
    "device": "cpu",
    "image": "none",
}


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return textured(*SHAPE)


@pytest.fixture(scope="module")
def slide(image: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_png(tmp_path_factory.mktemp("windows") / "slide.png", image)


def by_hand(
    network: nn.Module, image: NDArray[np.uint8], window: int, core: int
) -> NDArray[np.float32]:
    """Return the logits of cores, side by side from the first pixel, each amid its window."""
    around = (window - core) // 2
    rows, columns, _ = image.shape
    padding = [(around, window + around)] * 2
    scaled = (np.pad(image, [*padding, (0, 0)], "reflect").astype(np.float32) / 255 - MEAN) / STD
    whole = np.zeros((2, rows + core, columns + core), np.float32)
    for y in range(0, rows, core):
        for x in range(0, columns, core):
            piece = np.ascontiguousarray(scaled[y : y + window, x : x + window].transpose(2, 0, 1))
            with torch.inference_mode():
                logits = network(torch.from_numpy(piece)[None])[0].numpy()
            inside = slice(around, around + core)
            whole[:, y : y + core, x : x + core] = logits[:, inside, inside]
    return whole[:, :rows, :columns]


@pytest.mark.parametrize("config", [INSTANCE, ALIGNED], ids=["instance", "aligned"])
@pytest.mark.parametrize("block", [512, 1024])
def test_windows_all_have_that_size(
    image: NDArray[np.uint8],
    slide: Path,
    tmp_path: Path,
    config: UNetConfig,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the slide's edge too, where they are continued by mirroring."""
    model, network = balanced_model(config, image, tmp_path / "model", window=128)
    tile = Ensemble((model,)).tile
    assert tile == 64
    border = Ensemble((model,)).border()
    assert (border.before, border.after) == (32, 32)
    seen: set[tuple[int, ...]] = set()
    guard, forward = threading.Lock(), UNet.forward

    def noting(self: UNet, image: torch.Tensor, place: None = None) -> torch.Tensor:
        with guard:
            seen.add(tuple(image.shape))
        assert place is None
        return forward(self, image)

    monkeypatch.setattr(UNet, "forward", noting)
    report = wsi_unet.segment(slide, tmp_path / "out", model.path, block=block, **SETTINGS)
    assert seen == {(1, 3, 128, 128)}
    assert report.parameters["tile"] == tile
    expected = by_hand(network, image, 128, tile)
    decided = np.abs(expected[0] - expected[1]) > 1e-3
    labels = wsi_unet.open_labels(tmp_path / "out").values
    assert decided.mean() > 0.99
    assert np.array_equal(labels[decided], expected.argmax(0)[decided])


def test_given_the_windows_positions_an_aligned_network_is_exact(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    """Test any number of tiles, and sides that the poolings don't divide."""
    for odd in ("none", "zeros"):
        config = network_of("same", "bilinear", 2, align_corners=True, odd=odd)
        folder = tmp_path / odd
        folder.mkdir()
        model, network = balanced_model(config, image, folder / "model")
        report = wsi_unet.segment(
            slide, folder / "out", model.path, block=512, tile=128, **SETTINGS
        )
        assert report.exactness == "exact"
        truth = whole_image_forward(network, config, image)
        assert_same_labels(np.asarray(wsi_unet.open_labels(folder / "out").values), truth)


def test_another_tile_is_refused(image: NDArray[np.uint8], slide: Path, tmp_path: Path) -> None:
    model, _ = balanced_model(INSTANCE, image, tmp_path / "model", window=128)
    for tile in (32, 128):
        with pytest.raises(OptionError, match=r"windows of one size.*tiles of 64 px; leave `tile`"):
            wsi_unet.segment(slide, tmp_path / "out", model.path, tile=tile, **SETTINGS)
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionError, match=r"tiles of 64 px; leave `tile` out"):
        wsi_unet.map_unet(image, model, tile=128)
    lazy = wsi_unet.map_unet(image, model, chunk=256, precision="float32", device="cpu")
    wsi_unet.segment(slide, tmp_path / "out", model.path, **SETTINGS)
    assert np.array_equal(lazy.compute(), wsi_unet.open_labels(tmp_path / "out").values)


def test_every_report_says_approximate(
    image: NDArray[np.uint8], slide: Path, tmp_path: Path
) -> None:
    model, _ = balanced_model(INSTANCE, image, tmp_path / "model", window=128)
    options = [
        "--tissue",
        "none",
        "--device",
        "cpu",
        "--precision",
        "float32",
        "-m",
        str(model.path),
    ]
    output = str(tmp_path / "out")
    expected = "approximate (its result depends on all of the window)"

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(cli, [*arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    segment = ["segment", str(slide), "-o", output, *options]
    assert expected in said(*segment, "--plan")
    assert '"inexact_because": "its result depends' in said(*segment, "--plan", "--json")
    assert expected in said(*segment, "-q")
    assert expected in said("status", output)
    as_json = said("status", output, "--json")
    assert '"exactness": "approximate"' in as_json
    assert '"inexact_because": "its result depends on all of the window"' in as_json
    results = str(tmp_path / "results") + "/"
    cohort = ["segment", str(slide), str(tmp_path / "second.png"), "-o", results, *options]
    write_png(tmp_path / "second.png", image[:500])
    assert said(*cohort, "--plan").count(expected) == 2
    assert said(*cohort, "-q").count(expected) == 2
    assert said(*cohort, "-q").count(expected) == 2  # nothing was left to compute
    assert said("status", results).count(expected) == 2
    assert (tmp_path / "results" / "cohort.csv").read_text().count("approximate") == 2
    provenance = wsi_unet.open_labels(output).attrs["provenance"]
    assert provenance["exactness"] == "approximate"
    assert provenance["inexact_because"] == "its result depends on all of the window"
