"""The border: derived by formula, proved on real networks, with controls that must fail."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.probe import MeasuredBorder, measure_border
from torch import Tensor, nn

from wsi_unet.geometry import Border, Box, Shape, reflect
from wsi_unet.models.architectures.unet import UNetConfig, check_side, next_legal_side
from wsi_unet.models.networks.unet import UNet

configs = st.builds(
    UNetConfig,
    padding=st.sampled_from(["valid", "same"]),
    depth=st.integers(1, 4),
    base_width=st.integers(2, 4),
    upsampling=st.sampled_from(["transpose", "bilinear"]),
    norm=st.sampled_from(["none", "batch"]),
    norm_first=st.booleans(),
    negative_slope=st.sampled_from([0.0, 0.1]),
    convolutions=st.integers(1, 3),
)


def network_of(config: UNetConfig, seed: int = 0) -> UNet:
    """Return a float64 network whose ReLUs are mostly open, so that it isn't dead by chance."""
    torch.manual_seed(seed)
    network = UNet(config).double()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, 0.0, 0.3)
    return network.eval()


@pytest.mark.parametrize(
    ("padding", "upsampling", "expected"),
    [
        ("valid", "transpose", Border(92, 96, 92, 16, "mirror")),
        ("valid", "bilinear", Border(108, 112, 92, 16, "mirror")),
        ("same", "transpose", Border(96, 96, 0, 16, "clip")),
        ("same", "bilinear", Border(112, 112, 0, 16, "clip")),
    ],
)
def test_border_of_the_papers_shape(padding: str, upsampling: str, expected: Border) -> None:
    config = UNetConfig.model_validate({"padding": padding, "upsampling": upsampling})
    assert config.border() == expected


@given(configs)
@settings(deadline=None, max_examples=25)
def test_legal_sides_against_brute_force(config: UNetConfig) -> None:
    """A side is legal where every pooling divides it and something is left at the end."""

    def works(side: int) -> bool:
        shrink = 2 * config.convolutions * (config.padding == "valid")
        for _ in range(config.depth):
            side -= shrink
            if side < 2 or side % 2:
                return False
            side //= 2
        side -= shrink
        for _ in range(config.depth):
            if side < 1:
                return False
            side = 2 * side - shrink
        return side >= 1

    legal = [side for side in range(1, 500) if works(side)]
    for smaller, larger in pairwise([0, *legal]):
        assert next_legal_side(config, smaller + 1) == larger
        check_side(config, larger)
        if smaller + 1 < larger:
            with pytest.raises(ValueError, match=f"is {larger} px"):
                check_side(config, smaller + 1)


@given(configs, st.integers(0, 3))
@settings(deadline=None, max_examples=10)
def test_derived_is_measured(config: UNetConfig, seed: int) -> None:
    border = config.border()
    side = next_legal_side(config, 2 * border.after + 5 * border.period)
    network = network_of(config, seed)
    try:
        measured = measure_border(network, in_channels=3, period=border.period, side=side)
    except ValueError as error:
        assume("constant" not in str(error))
        raise
    rounded = measured.rounded(border.period)
    assert rounded is not None
    assert measured.shrink == border.shrink
    assert measured.deviation < 1e-12
    if 2 * config.convolutions < border.period:
        assert rounded == (border.before, border.after)
    else:  # rounding inside shallow networks needs a little less
        for derived, needed in zip((border.before, border.after), rounded, strict=True):
            assert 0 <= derived - needed <= 2 * config.convolutions


def run(network: nn.Module, pixels: NDArray[np.float64], window: Box) -> Tensor:
    """Return the output for a window of the image, mirrored wherever it reaches beyond."""
    rows, columns = pixels.shape[:2]
    rows_at = reflect(window.y0, window.y1, rows)
    columns_at = reflect(window.x0, window.x1, columns)
    image = torch.from_numpy(pixels[rows_at][:, columns_at]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        output: Tensor = network(image)[0]
    return output


def compute(network: nn.Module, border: Border, pixels: NDArray[np.float64], core: Box) -> Tensor:
    shape: Shape = (pixels.shape[0], pixels.shape[1])
    window = border.window(core, shape)
    output = run(network, pixels, window)
    return output[(slice(None), *border.core_in_output(core, window).slices())]


def tiled_error(
    network: nn.Module, border: Border, shape: Shape, tile: int, shift: int = 0
) -> float:
    """Return the largest difference between tiles and the whole, relative to the output's range."""
    pixels = np.random.default_rng(5).random((*shape, 3))
    whole_core = border.core(Box.from_shape(shape))
    whole = compute(network, border, pixels, whole_core)
    worst = 0.0
    for core in whole_core.tiles(tile):
        moved = core.shift(shift, shift)
        part = whole[(slice(None), *moved.slices())]
        mine = compute(network, border, pixels, moved)[:, : part.shape[1], : part.shape[2]]
        if part.numel():
            worst = max(worst, float((mine - part).abs().max()))
    return worst / float(whole.max() - whole.min())


@given(configs, st.integers(1, 90), st.integers(1, 90), st.integers(1, 3))
@settings(deadline=None, max_examples=25)
def test_tiled_equals_whole(config: UNetConfig, rows: int, columns: int, tile: int) -> None:
    network = network_of(config)
    border = config.border()
    probe = run(network, np.random.default_rng(0).random((8, 8, 3)), Box(0, 0, *_legal(config)))
    assume(float(probe.max() - probe.min()) > 1e-9)
    side = border.period * tile
    rows, columns = min(rows, 6 * side), min(columns, 6 * side)
    assert tiled_error(network, border, (rows, columns), side) < 1e-11


def _legal(config: UNetConfig) -> Shape:
    side = next_legal_side(config, 100)
    return side, side


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("upsampling", ["transpose", "bilinear"])
def test_controls_that_must_fail(padding: str, upsampling: str) -> None:
    config = UNetConfig.model_validate(
        {"padding": padding, "upsampling": upsampling, "depth": 3, "base_width": 4}
    )
    network, border = network_of(config), config.border()
    assert tiled_error(network, border, (70, 60), 16) < 1e-12
    # A period less before: for valid networks the window still has a legal size, but lacks what
    # interpolation needs; without interpolation it lacks output.
    period = border.period
    if upsampling == "bilinear" or padding == "same":
        short = Border(
            border.before - period, border.after - period, border.shrink, period, border.edge
        )
        assert tiled_error(network, short, (70, 60), 16) > 1e-6
    if padding == "valid":  # clipped windows couldn't even be cut
        assert tiled_error(network, border, (70, 60), 16, shift=period // 2) > 1e-3


def test_tiles_of_the_papers_stride_are_wrong() -> None:
    """388 is 4 modulo 16: its tiles see another pooling grid than the whole image."""
    config = UNetConfig(base_width=2, convolutions=2, depth=4)
    network = network_of(config)
    pixels = np.random.default_rng(1).random((800, 190, 3))

    def tile(y: int) -> Tensor:
        return run(network, pixels, Box(y, 0, y + 188, 188))

    whole = run(network, pixels, Box(0, 0, 188 + 400, 188))
    spread = float(whole.max() - whole.min())
    assert float((tile(384) - whole[:, 384:388]).abs().max()) / spread < 1e-12
    assert float((tile(388) - whole[:, 388:392]).abs().max()) / spread > 1e-3


def measured(network: nn.Module, side: int = 128) -> MeasuredBorder:
    return measure_border(network.eval(), in_channels=3, period=4, side=side)


def small(kind: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(4), kind, nn.Conv2d(4, 2, 1))


def test_probe_catches_networks_that_are_not_local() -> None:
    local = measured(small(nn.Upsample(scale_factor=4, mode="nearest")))
    assert local.rounded(4) == (4, 4)
    assert local.deviation < 1e-12
    aligned = measured(small(nn.Upsample(scale_factor=4, mode="bilinear", align_corners=True)))
    assert aligned.deviation > 1e-5  # and yet no NaN came from farther away
    assert aligned.before is not None
    normalised = measured(small(nn.InstanceNorm2d(4)), side=128)
    assert normalised.before is None
    assert normalised.rounded(4) is None


def test_probe_refuses_a_dead_network() -> None:
    dead = nn.Conv2d(3, 2, 3, padding=1)
    nn.init.zeros_(dead.weight)
    with pytest.raises(ValueError, match="constant"):
        measured(dead)
