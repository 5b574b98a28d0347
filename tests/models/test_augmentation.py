"""Flipped and rotated views: computed by tiles, each equals that view of the whole image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_unet.geometry import Border, Box, Shape, reflect
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.inference.augmentation import VIEWS, View, widen_for_views
from wsi_unet.models.networks.interpolation import Placement
from wsi_unet.models.networks.unet import UNet

views = st.sampled_from(VIEWS["d4"])

configs = st.builds(
    UNetConfig,
    padding=st.sampled_from(["valid", "same"]),
    depth=st.integers(1, 3),
    base_width=st.integers(2, 3),
    in_channels=st.just(1),
    upsampling=st.sampled_from(["transpose", "bilinear"]),
    convolutions=st.integers(1, 3),
)


def network_of(config: UNetConfig) -> UNet:
    """Return a float64 network whose ReLUs are mostly open."""
    torch.manual_seed(0)
    network = UNet(config).double()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, 0.0, 0.3)
    return network.eval()


def continued(image: NDArray[np.float64], window: Box) -> Tensor:
    """Return the image, mirrored beyond its edges, as (1, 1, rows, columns)."""
    rows = reflect(window.y0, window.y1, image.shape[0])
    columns = reflect(window.x0, window.x1, image.shape[1])
    return torch.from_numpy(image[rows][:, columns].copy())[None, None]


def computed(
    network: nn.Module, border: Border, image: NDArray[np.float64], core: Box, view: View
) -> Tensor:
    """Return the output for the core that a view of its window gives."""
    window = border.window(core, (image.shape[0], image.shape[1]))
    with torch.inference_mode():
        output = view.turn_back(network(view.turn(continued(image, window))))
    rows, columns = border.core_in_output(core, window).slices()
    result: Tensor = output[0, :, rows, columns]
    assert result.shape[1:] == core.shape
    return result


def difference(
    network: nn.Module, border: Border, image: NDArray[np.float64], core: Box, view: View
) -> float:
    """Return the largest error of the core computed by itself, relative to the output's range."""
    whole = border.core(Box.from_shape((image.shape[0], image.shape[1])))
    expected = computed(network, border, image, whole, view)[:, *core.slices()]
    found = computed(network, border, image, core, view)
    spread = expected.max() - expected.min()
    assert spread > 0
    return float((found - expected).abs().max() / spread)


def assert_tiles_are_the_whole(config: UNetConfig, view: View, shape: Shape, seed: int) -> None:
    border = widen_for_views(config.border())
    generator = np.random.default_rng(seed)
    image = generator.random(shape)
    period = border.period
    cells = [-(-side // period) for side in shape]
    i, j = (int(generator.integers(0, count)) for count in cells)
    rows, columns = (
        int(generator.integers(1, count - at + 1)) for count, at in zip(cells, (i, j), strict=True)
    )
    core = Box(period * i, period * j, period * (i + rows), period * (j + columns))
    assert difference(network_of(config), border, image, core, view) < 1e-10


@given(configs, views, st.integers(30, 90), st.integers(30, 90), st.integers(0, 10**6))
@settings(max_examples=40)
def test_any_core_of_any_view_is_the_wholes(
    config: UNetConfig, view: View, rows: int, columns: int, seed: int
) -> None:
    assert_tiles_are_the_whole(config, view, (rows, columns), seed)


@pytest.mark.parametrize("odd", ["zeros", "replicate"])
@pytest.mark.parametrize("view", VIEWS["d4"])
def test_networks_for_odd_sides_too(odd: str, view: View) -> None:
    config = UNetConfig.model_validate(
        {"padding": "same", "odd": odd, "depth": 2, "base_width": 3, "in_channels": 1}
    )
    assert_tiles_are_the_whole(config, view, (61, 75), seed=3)


def test_cut_at_an_odd_edge_flipped_views_differ() -> None:
    """Their pooling grid would depend on the slide's far edge, so it is mirrored to a multiple."""
    config = UNetConfig(padding="same", odd="zeros", depth=2, base_width=3, in_channels=1)
    network, image = network_of(config), np.random.default_rng(0).random((61, 75))
    cut = config.border()
    assert cut.edge == "cut"
    core = Box(0, 0, 16, 16)
    assert difference(network, cut, image, core, View()) < 1e-10
    assert difference(network, cut, image, core, View(rows=True)) > 1e-3
    assert difference(network, widen_for_views(cut), image, core, View(rows=True)) < 1e-10


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_cores_off_the_grid_differ(padding: str) -> None:
    config = UNetConfig.model_validate(
        {"padding": padding, "depth": 2, "base_width": 3, "in_channels": 1}
    )
    border, network = widen_for_views(config.border()), network_of(config)
    image = np.random.default_rng(0).random((96, 96))
    for view in VIEWS["d4"]:
        assert difference(network, border, image, Box(32, 32, 48, 48), view) < 1e-10
        assert difference(network, border, image, Box(34, 34, 50, 50), view) > 1e-3


def test_one_period_less_context_differs() -> None:
    config = UNetConfig(padding="same", depth=2, base_width=3, in_channels=1)
    border, network = widen_for_views(config.border()), network_of(config)
    shorter = Border(border.before - 4, border.after - 4, 0, border.period, border.edge)
    image = np.random.default_rng(0).random((80, 80))
    assert difference(network, border, image, Box(36, 36, 40, 40), View(rows=True)) < 1e-10
    assert difference(network, shorter, image, Box(36, 36, 40, 40), View(rows=True)) > 1e-10


@given(views, st.integers(0, 10**6))
@settings(max_examples=20)
def test_given_its_position_an_aligned_interpolation_equals_the_wholes(
    view: View, seed: int
) -> None:
    config = UNetConfig(
        padding="same", upsampling="bilinear", align_corners=True, depth=2, base_width=3,
        in_channels=1,
    )  # fmt: skip
    border, network = widen_for_views(config.border()), network_of(config)
    generator = np.random.default_rng(seed)
    shape = (int(generator.integers(60, 100)), int(generator.integers(60, 100)))
    image = generator.random(shape)
    whole = Box.from_shape(border.full_shape(shape))
    core = Box(4, 8, 24, 36)
    window = border.window(core, shape)
    origin, turned = view.turn_window(window, border.full_shape(shape))
    with torch.inference_mode():
        expected = view.turn_back(network(view.turn(continued(image, whole))))
        found = view.turn_back(
            network(view.turn(continued(image, window)), Placement(origin, turned))
        )
    rows, columns = border.core_in_output(core, window).slices()
    error = (found[..., rows, columns] - expected[..., *core.slices()]).abs().max()
    assert error / (expected.max() - expected.min()) < 1e-10


@given(views, st.integers(1, 5), st.integers(1, 5))
def test_views_turn_back(view: View, rows: int, columns: int) -> None:
    image = torch.rand(1, 2, rows, columns)
    assert torch.equal(view.turn_back(view.turn(image)), image)


def test_the_eight_views_are_all_there_are() -> None:
    image = torch.arange(6.0).reshape(2, 3)
    seen = {tuple(map(tuple, view.turn(image).tolist())) for view in VIEWS["d4"]}
    turned = [torch.rot90(image, quarter) for quarter in range(4)]
    expected = {tuple(map(tuple, m.tolist())) for t in turned for m in (t, t.flip(0))}
    assert seen == expected
    assert len(seen) == 8
    assert VIEWS["flips"] == VIEWS["d4"][:4]
    assert VIEWS["none"] == (View(),)


@given(
    st.integers(0, 200), st.integers(0, 200), st.integers(0, 100), st.sampled_from([1, 2, 8, 32])
)
def test_turned_borders_hold_what_both_directions_need(
    before: int, after: int, shrink: int, period: int
) -> None:
    """As counted by hand, for a core on the grid of a window and for the same core flipped."""
    if shrink:
        assume(before >= shrink)
        before = shrink + (before - shrink) // period * period
    else:
        before = before // period * period
    after = after // period * period
    border = widen_for_views(Border(before, after, shrink, period, "mirror"))
    assert (border.before - before) % period == (border.after - after) % period == 0
    assert border.before >= before
    assert border.after >= after
    # Flipped, the core starts `border.after` px into the window: so far off the output's grid …
    phase = (border.after - shrink) % period
    assert border.after - phase >= before
    # … and the aligned core around it ends on the grid.
    assert border.before - (-phase % period) >= after
