"""Imported networks compute what the networks they come from compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.reference_networks import JvanVugt, MateuszBuda, Milesial, Milesial2018, randomise
from torch import Tensor, nn

from wsi_unet.models.importing import import_checkpoint, look_at
from wsi_unet.models.told import Told

Make = Callable[[], nn.Module]

ODD = ((101, 87), (96, 64), (47, 160))
EVEN = ((96, 64), (48, 160))
VALID = ((92, 108),)


def basic_unet(**options: Any) -> nn.Module:
    nets = pytest.importorskip("monai.networks.nets")
    options = {"features": (4, 8, 12, 16, 20, 6), "norm": "batch"} | options
    network: nn.Module = nets.BasicUNet(spatial_dims=2, in_channels=3, out_channels=3, **options)
    return network


CASES: dict[str, tuple[Make, Told, tuple[tuple[int, int], ...]]] = {
    "milesial, transposed": (lambda: Milesial(3, 3, 4, bilinear=False), Told(), ODD),
    "milesial, bilinear": (lambda: Milesial(3, 3, 4, bilinear=True), Told(), ODD),
    "milesial, early": (lambda: Milesial(3, 2, 4, bilinear=True, bias=True), Told(), ODD),
    "milesial, grey": (lambda: Milesial(1, 1, 4, bilinear=False, bias=True), Told(), ODD),
    "milesial-2018": (lambda: Milesial2018(3, 1, 4, bilinear=True), Told(), ODD),
    "milesial-2018, transposed": (lambda: Milesial2018(3, 1, 4, bilinear=False), Told(), ODD),
    **{
        f"jvanvugt, {padding}, norm {norm}, upsample {upsample}": (
            lambda padding=padding, norm=norm, upsample=upsample: JvanVugt(
                3, 3, 4, padding=padding == "same", norm=norm, upsample=upsample
            ),
            Told(padding=padding),
            EVEN if padding == "same" else VALID,
        )
        for padding in ("same", "valid")
        for norm in (True, False)
        for upsample in (True, False)
    },
    "mateuszbuda": (lambda: MateuszBuda(3, 1, 4), Told(), EVEN),
    "monai-basic-unet, batch": (basic_unet, Told(), ODD),
    "monai-basic-unet, batch, nontrainable": (
        lambda: basic_unet(upsample="nontrainable"),
        Told(),
        ODD,
    ),
    "monai-basic-unet, default": (
        lambda: basic_unet(norm=("instance", {"affine": True})),
        Told(),
        ODD,
    ),
    "monai-basic-unet, instance, nontrainable": (
        lambda: basic_unet(
            norm=("instance", {"affine": True}), upsample="nontrainable", bias=False
        ),
        Told(),
        ODD,
    ),
    "monai-basic-unet, no norm, ReLU": (
        lambda: basic_unet(norm=None, act="relu"),
        Told(activation="relu"),
        ODD,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_import_computes_what_the_original_does(case: str, tmp_path: Path) -> None:
    make, told, sizes = CASES[case]
    original = randomise(make())
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    network, spec = import_checkpoint(tmp_path / "weights.pth", told)
    assert look_at(tmp_path / "weights.pth").family.name == case.split(",")[0]
    compute = getattr(original, "logits", original)
    with torch.inference_mode():
        for rows, columns in sizes:
            image = torch.rand(2, spec.in_channels, rows, columns)
            _assert_close(network(image), compute(image))


def _assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    spread = float(theirs.amax() - theirs.amin())
    assert spread > 0.1, "a dead network would pass every test"
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, spread)
