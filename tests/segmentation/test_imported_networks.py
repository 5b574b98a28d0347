"""Imported networks give the labels of one pass of the original over the whole slide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from models.reference_networks import ConvolvedUpsampling, JvanVugt, Milesial, randomise
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.unet import UNet as MonaiUNet
from numpy.typing import NDArray
from support.exactness import assert_every_class_is_there, assert_same_labels, segment_labels
from support.oracle import MARGIN, MEAN, STD, Truth, last_convolution, textured, write_png
from torch import nn

from wsi_unet.models import ModelClass, ModelSpec, Normalisation, save_model
from wsi_unet.models.architectures.resnet_unet import ResNetUNetConfig
from wsi_unet.models.importing.checkpoints import import_model
from wsi_unet.models.importing.hints import ImportHints
from wsi_unet.models.networks.build import build_network

SHAPE = (613, 747)
"""Odd, larger than a block, and no multiple of any period."""

Padding = tuple[tuple[int, int], tuple[int, int]]

TOLD = partial(ImportHints, scale=f"{MEAN},{MEAN},{MEAN}/{STD},{STD},{STD}")


def logits_of(
    network: nn.Module, image: NDArray[np.uint8], padding: Padding
) -> NDArray[np.float32]:
    """Run a network once over all of an image, mirrored beyond its edges."""
    padded = np.pad(image, [*padding, (0, 0)], mode="reflect")
    scaled = (padded.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    batch = torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))[None]
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(batch)[0].numpy()
    return logits[:, : image.shape[0], : image.shape[1]]


def balance(network: nn.Module, image: NDArray[np.uint8], padding: Padding) -> None:
    """Shift and scale the head so that every class wins somewhere."""
    logits = logits_of(network, image, padding)
    means = torch.from_numpy(logits.mean(axis=(1, 2)))
    spreads = torch.from_numpy(logits.std(axis=(1, 2)))
    head = last_convolution(network)
    assert head.bias is not None
    with torch.no_grad():
        head.weight /= spreads[:, None, None, None]
        head.bias.copy_((head.bias - means) / spreads)


def truth_of(network: nn.Module, image: NDArray[np.uint8], padding: Padding) -> Truth:
    logits = logits_of(network, image, padding)
    ordered = np.sort(logits, axis=0)
    labels = logits.argmax(axis=0).astype(np.uint8)
    return Truth(labels, ordered[-1] - ordered[-2] > MARGIN, logits)


def nothing(rows: int, columns: int) -> Padding:
    return ((0, 0), (0, 0))


def to_periods(rows: int, columns: int, period: int = 32) -> Padding:
    return ((0, -rows % period), (0, -columns % period))


def valid(rows: int, columns: int, border: int = 44, period: int = 8) -> Padding:
    """Pad an image for valid convolutions of depth 3, so that the first output pixel is its own."""

    def after(side: int) -> int:
        return next(n for n in range(border, 2**12) if (side + border + n + 4) % period == 0)

    return ((border, after(rows)), (border, after(columns)))


CASES: dict[str, tuple[Callable[[], nn.Module], ImportHints, Callable[[int, int], Padding]]] = {
    "milesial, transposed": (partial(Milesial, 3, 3, 4, bilinear=False), TOLD(), nothing),
    "milesial, bilinear as over the whole slide": (
        partial(Milesial, 3, 3, 4, bilinear=True),
        TOLD(interpolation="global"),
        nothing,
    ),
    "jvanvugt, valid": (
        partial(JvanVugt, 3, 3, 4, padding=False, norm=True, upsample=False),
        TOLD(padding="valid"),
        valid,
    ),
    "MONAI's BasicUNet with batch norm": (
        partial(BasicUNet, 2, 3, 3, features=(4, 8, 8, 12, 12, 4), norm="batch"),
        TOLD(),
        nothing,
    ),
    "the same, interpolated as over the whole slide": (
        partial(
            BasicUNet, 2, 3, 3, features=(4, 8, 8, 12, 12, 4), norm="batch", upsample="nontrainable"
        ),
        TOLD(interpolation="global"),
        nothing,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_labels_are_those_of_the_original(case: str, tmp_path: Path) -> None:
    make, hints, pad = CASES[case]
    image = textured(*SHAPE)
    network, padding = randomise(make()), pad(*SHAPE)
    balance(network, image, padding)
    truth = truth_of(network, image, padding)
    assert_every_class_is_there(truth, 3)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    model = import_model(tmp_path / "weights.pth", tmp_path / "model", hints)
    assert model.spec.exactness == "exact"
    slide = write_png(tmp_path / "slide.png", image)
    labels = segment_labels(slide, tmp_path / "out.ome.zarr", model.path, tile=128)
    assert_same_labels(labels, truth)


@pytest.mark.parametrize("late", [False, True])
def test_one_sigmoid_over_the_whole_slide_is_exact(late: bool, tmp_path: Path) -> None:
    image = textured(*SHAPE)
    network = ConvolvedUpsampling(3, 1, 4, late=late)
    randomise(network)
    with torch.no_grad():
        median = np.median(logits_of(Logits(network), image, nothing(*SHAPE)))
        network.get_parameter("outc.conv.bias").sub_(float(median))
    probabilities = logits_of(network, image, nothing(*SHAPE))[0]
    right = (probabilities > 0.5).astype(np.uint8)
    decided = np.abs(probabilities - 0.5) > MARGIN
    truth = Truth(right, decided, probabilities)
    assert 0.4 < right.mean() < 0.6
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    hints = TOLD(interpolation="global")
    model = import_model(tmp_path / "weights.pth", tmp_path / "model", hints)
    assert (model.spec.head, model.spec.exactness) == ("sigmoid", "exact")
    slide = write_png(tmp_path / "slide.png", image)
    labels = segment_labels(slide, tmp_path / "out.ome.zarr", model.path, tile=128)
    assert_same_labels(labels, truth)


class Logits(nn.Module):
    """A network without its last sigmoid."""

    def __init__(self, network: ConvolvedUpsampling) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.logits(x)


def test_a_network_with_a_resnet_is_exact(tmp_path: Path) -> None:
    config = ResNetUNetConfig(
        blocks=(1, 1, 1, 1), base_width=4, expanding=(8, 8, 8, 4, 4), classes=3
    )
    image = textured(*SHAPE)
    network, padding = randomise(build_network(config)), to_periods(*SHAPE)
    balance(network, image, padding)
    truth = truth_of(network, image, padding)
    assert_every_class_is_there(truth, 3)
    spec = ModelSpec(
        name="resnet",
        architecture=config,
        classes=tuple(ModelClass(name=name, color="#102030") for name in "abc"),
        background="a",
        mpp=None,
        normalisation=Normalisation(mean=(MEAN,) * 3, std=(STD,) * 3),
    )
    model = save_model(network, spec, tmp_path / "model")
    slide = write_png(tmp_path / "slide.png", image)
    labels = segment_labels(slide, tmp_path / "out.ome.zarr", model.path, tile=128)
    assert_same_labels(labels, truth)


@pytest.mark.parametrize(
    ("make", "hints"),
    [
        (partial(Milesial, 3, 3, 4, bilinear=True), ImportHints()),
        (
            partial(BasicUNet, 2, 3, 3, features=(4, 8, 8, 12, 12, 4)),
            ImportHints(window=256, norm="instance"),
        ),
        (partial(MonaiUNet, 2, 3, 3, (4, 8, 8), (2, 2), num_res_units=2), ImportHints()),
    ],
)
def test_what_depends_on_the_windows_size_runs_and_says_so(
    make: Callable[[], nn.Module], hints: ImportHints, tmp_path: Path
) -> None:
    torch.save(randomise(make()).state_dict(), tmp_path / "weights.pth")
    model = import_model(tmp_path / "weights.pth", tmp_path / "model", hints)
    assert model.spec.exactness == "approximate"
    slide = write_png(tmp_path / "slide.png", textured(300, 420))
    labels = segment_labels(slide, tmp_path / "out.ome.zarr", model.path, tile=None)
    assert labels.shape == (300, 420)
