"""The network against the paper: shapes, parameters, initialisation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_unet.models.architectures.costs import parameter_count, window_flops
from wsi_unet.models.architectures.residual_unet import ResidualUNetConfig
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.exported.loading import prepare_network
from wsi_unet.models.networks.build import build_network
from wsi_unet.models.networks.unet import UNet


def empty(config: UNetConfig) -> UNet:
    with torch.device("meta"):
        return UNet(config)


def output_side(config: UNetConfig, side: int) -> int:
    image = torch.empty(1, config.in_channels, side, side, device="meta")
    rows, columns = empty(config)(image).shape[2:]
    assert rows == columns
    return int(rows)


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_paper_network_has_the_papers_parameters_and_shapes() -> None:
    paper = UNetConfig(in_channels=1)
    assert count(empty(paper)) == 31_030_658
    assert sum(isinstance(m, torch.nn.Conv2d) for m in empty(paper).modules()) == 19
    assert sum(isinstance(m, torch.nn.ConvTranspose2d) for m in empty(paper).modules()) == 4
    assert output_side(paper, 572) == 388
    assert output_side(paper, 700) == 516
    assert output_side(paper, 188) == 4


@pytest.mark.parametrize(("depth", "least"), [(1, 18), (2, 44), (3, 92), (4, 188), (5, 380)])
def test_smallest_inputs_of_valid_networks(depth: int, least: int) -> None:
    config = UNetConfig(depth=depth, base_width=1, in_channels=1)
    assert output_side(config, least) >= 1
    with pytest.raises(ValueError, match=f"the next that does is {least} px"):
        output_side(config, least - 2)


def test_same_padding_keeps_the_size_and_says_which_sizes_fit() -> None:
    config = UNetConfig(padding="same", depth=3, base_width=1)
    assert output_side(config, 72) == 72
    with pytest.raises(ValueError, match=r"70 px doesn't fit a same U-Net .* is 72 px"):
        output_side(config, 70)


configs = st.builds(
    UNetConfig,
    padding=st.sampled_from(["valid", "same"]),
    depth=st.integers(1, 4),
    base_width=st.integers(1, 8),
    in_channels=st.sampled_from([1, 3]),
    classes=st.integers(2, 6),
    upsampling=st.sampled_from(["transpose", "bilinear"]),
    convolutions=st.integers(1, 3),
)


@given(configs)
@settings(deadline=None, max_examples=40)
def test_parameters_are_counted_without_building(config: UNetConfig) -> None:
    assert parameter_count(config) == count(empty(config))


def test_work_per_pixel_tends_to_the_papers() -> None:
    per_pixel = window_flops(UNetConfig(), 2**16) / 2**32
    assert per_pixel == pytest.approx(1.470e6, rel=3e-3)
    for tile, factor in ((384, 1.39), (1024, 1.13), (4096, 1.03)):
        assert window_flops(UNetConfig(), tile) / tile**2 / 1.470e6 == pytest.approx(factor, 0.01)


@pytest.mark.parametrize("upsampling", ["transpose", "bilinear"])
def test_initialisation_keeps_the_variance(upsampling: str) -> None:
    """Gaussian of deviation sqrt(2/N): neither dying out nor exploding through 23 layers."""
    torch.manual_seed(0)
    config = UNetConfig.model_validate({"base_width": 16, "upsampling": upsampling})
    network = UNet(config)
    first = network.get_submodule("contracting.1.0")
    assert isinstance(first, torch.nn.Conv2d)
    assert float(first.weight.detach().std()) == pytest.approx((2 / (9 * 16)) ** 0.5, rel=0.05)
    assert first.bias is not None
    assert not first.bias.any()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 188, 188))
    assert 0.05 < float(logits.std()) < 20


def test_batch_norm_sits_between_convolution_and_relu_and_dropout_at_the_bottom() -> None:
    network = UNet(UNetConfig(norm="batch", dropout=0.5, base_width=2, depth=2))
    level = network.contracting[0]
    assert isinstance(level, torch.nn.Sequential)
    kinds = [type(layer).__name__ for layer in level]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    image = torch.rand(1, 3, 60, 60)
    torch.manual_seed(0)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_skip_comes_before_the_upsampled_map_and_is_cropped_to_the_middle() -> None:
    """With no weight on the upsampled half of the joined map, only the skip is left."""
    torch.manual_seed(0)
    config = UNetConfig(depth=1, base_width=4, in_channels=1, convolutions=1)
    network = UNet(config).double()
    joined = network.get_submodule("expanding.0.0")
    first = network.get_submodule("contracting.0.0")
    assert isinstance(joined, torch.nn.Conv2d)
    assert isinstance(first, torch.nn.Conv2d)
    with torch.no_grad():
        joined.weight[:, 4:] = 0
    image = torch.rand(1, 1, 20, 20, dtype=torch.float64)
    skip = first(image).relu()  # 4, 18, 18, of which the upsampled map covers 14, 14
    kept = torch.nn.functional.conv2d(skip[:, :, 2:-2, 2:-2], joined.weight[:, :4], joined.bias)
    assert torch.allclose(network(image), network.head(kept.relu()), atol=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(depth=2, base_width=4, norm="group:4"),
        ResidualUNetConfig(channels=(4, 8), norm="group:2"),
    ],
)
def test_group_norm_is_exact_where_an_image_is_nearly_even(
    config: UNetConfig | ResidualUNetConfig,
) -> None:
    """As it runs, with channels last, against float64."""
    torch.manual_seed(0)
    network = build_network(config).eval()
    glass = 0.95 + 0.002 * torch.rand(1, 3, 128, 128)
    prepared = prepare_network(network, device="cpu", dtype=torch.float32, threads=1)
    with torch.inference_mode():
        found = prepared(glass)
        expected = network.double()(glass.double())
    assert (found - expected).abs().max() < 0.01 * expected.std()
