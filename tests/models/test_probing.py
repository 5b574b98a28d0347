"""Measured properties of networks, against known ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from models.reference_networks import MateuszBuda, randomise
from support.programs import Hourglass, alive
from torch import Tensor, nn

from wsi_unet.errors import ModelError
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.networks.unet import UNet
from wsi_unet.models.probing.properties import probe_network
from wsi_unet.models.probing.usage import measure_usage


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def unet(fields: dict[str, object], seed: int = 0) -> UNet:
    """Return a U-Net whose ReLUs are mostly open."""
    torch.manual_seed(seed)
    network = UNet(UNetConfig.model_validate({"base_width": 2} | fields))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, 0.0, 0.3)
    return network.eval()


@pytest.mark.parametrize(
    ("fields", "period", "before", "after", "shrink"),
    [
        ({"padding": "valid", "depth": 3}, 8, 44, 48, 44),
        ({"padding": "same"}, 16, 96, 96, 0),
        ({"padding": "same", "upsampling": "bilinear", "depth": 3}, 8, 56, 56, 0),
        ({"padding": "valid", "upsampling": "bilinear", "depth": 2}, 4, 24, 24, 20),
        ({"padding": "same", "depth": 2, "odd": "zeros"}, 4, 24, 24, 0),
    ],
)
def test_known_networks(
    fields: dict[str, object], period: int, before: int, after: int, shrink: int
) -> None:
    found = probe_network(unet(fields), 3)
    assert (found.period, found.before, found.after) == (period, before, after)
    assert (found.sides.shrink, found.sides.only) == (shrink, False)
    assert (found.local, found.depends_on_size, found.classes) == (True, False, 2)
    assert found.head is None
    assert found.deviation < 1e-12


def test_mateuszbuda() -> None:
    found = probe_network(randomise(MateuszBuda(3, 1, 2)), 3)
    assert (found.period, found.before, found.after) == (16, 96, 96)
    assert (found.local, found.depends_on_size) == (True, False)


@given(
    st.builds(
        dict,
        padding=st.sampled_from(["valid", "same"]),
        depth=st.integers(1, 2),
        upsampling=st.sampled_from(["transpose", "bilinear"]),
        norm=st.sampled_from(["none", "batch"]),
        negative_slope=st.sampled_from([0.0, 0.1]),
    ),
    st.integers(0, 2),
)
@settings(max_examples=3)
def test_measured_is_derived(fields: dict[str, object], seed: int) -> None:
    network = unet(fields, seed)
    try:
        found = probe_network(network, 3)
    except ModelError as error:
        assume("constant" not in str(error))
        raise
    border = network.config.border()
    assert (found.local, found.depends_on_size) == (True, False)
    assert (found.period, found.sides.shrink) == (border.period, border.shrink)
    # In shallow networks the formula takes up to 2k px too many (see networks.border).
    spare = 0 if border.period > 4 else 4
    assert 0 <= border.before - found.before <= spare
    assert 0 <= border.after - found.after <= spare


def test_aligned_corners_depend_on_the_size_though_no_spoilt_pixel_shows_it() -> None:
    aligned: dict[str, object] = {"upsampling": "bilinear", "align_corners": True}
    found = probe_network(unet({"padding": "same", "depth": 2} | aligned), 3)
    assert found.local
    assert found.depends_on_size
    assert found.deviation > 1e-3


class Faint(nn.Module):
    """A network that pools by 8 and, with little weight, by another factor."""

    def __init__(self, strength: float, factor: int = 16, *, single: bool = False) -> None:
        super().__init__()
        self.strength, self.factor, self.single = strength, factor, single

    def forward(self, image: Tensor) -> Tensor:
        image = image.float() if self.single else image
        output = image
        for factor, weight in ((8, 1.0), (self.factor, self.strength)):
            pooled = F.max_pool2d(image, factor)
            output = output + weight * F.interpolate(pooled, size=image.shape[2:])
        return output


@pytest.mark.parametrize("network", [Faint(2e-4, single=True), Faint(1e-7)])
def test_a_bottleneck_of_little_weight_counts(network: nn.Module) -> None:
    found = probe_network(network, 3)
    assert (found.period, found.local, found.depends_on_size) == (16, True, False)


class Multiples(nn.Module):
    """A network that pools by 8 and takes only multiples of 16 px."""

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2] % 16:
            raise ValueError("no multiple of 16")
        pooled = F.max_pool2d(image, 8)
        return image + F.interpolate(pooled, scale_factor=8.0)


def test_windows_have_sides_that_are_taken() -> None:
    found = probe_network(Multiples(), 3)
    assert (found.period, found.local, found.depends_on_size) == (16, True, False)


class Squeezed(nn.Module):
    """An hourglass with squeeze and excitation: every pixel depends on all."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = Hourglass(classes=4)

    def forward(self, image: Tensor) -> Tensor:
        output = self.inside(image)
        scaled: Tensor = output * output.mean((2, 3), keepdim=True).sigmoid()
        return scaled


@pytest.mark.parametrize(
    "network", [unet({"padding": "same", "norm": "instance", "depth": 1}), Squeezed()]
)
def test_global_networks_are_detected(network: nn.Module) -> None:
    found = probe_network(alive(network), 3)
    assert not found.local
    assert found.depends_on_size


class Particular(nn.Module):
    """An hourglass that takes images of one size only and returns probabilities."""

    def __init__(self, side: int, classes: int) -> None:
        super().__init__()
        self.side, self.inside = side, Hourglass(classes=classes)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2:] != (self.side, self.side):
            raise ValueError(f"not {self.side} px")
        output: Tensor = self.inside(image)
        return output.softmax(1) if output.shape[1] > 1 else output.sigmoid()


@pytest.mark.parametrize(("classes", "head"), [(1, "sigmoid"), (3, "softmax")])
def test_the_only_side_and_the_head_are_found(classes: int, head: str) -> None:
    found = probe_network(alive(Particular(128, classes)), 3)
    assert (found.sides.side, found.sides.only) == (128, True)
    assert (found.period, found.head) == (2, head)
    assert (found.before, found.after) == (6, 6)
    assert not found.depends_on_size


class Coarse(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return F.max_pool2d(image, 4)


class Half(nn.Module):
    """A network that labels every other pixel, for one side only or for any."""

    def __init__(self, side: int | None = None) -> None:
        super().__init__()
        self.side = side

    def forward(self, image: Tensor) -> Tensor:
        if self.side not in (None, image.shape[2]):
            raise ValueError(f"not {self.side} px")
        return image[:, :, ::2, ::2]


class Constant(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.zeros_like(image)


class Listed(nn.Module):
    def forward(self, image: Tensor) -> list[Tensor]:
        return [image]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Coarse(), "only networks that label every pixel"),
        (Half(), "makes 160×160 px of 320×320 px; only networks that label every pixel"),
        (Half(512), "makes 256×256 px of 512×512 px; only networks that label every pixel"),
        (Constant(), "constant"),
        (Listed(), "returns a list; wrap the network"),
        (Particular(97, 2), "doesn't take images of 3×256×256: not 97 px"),
    ],
)
def test_other_networks_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        probe_network(alive(network), 3)


def test_what_a_network_costs() -> None:
    network = unet({"padding": "same", "depth": 2, "base_width": 8})
    counted = network.config.forward_cost(256, 4)
    usage = measure_usage(network, 3, 256)
    assert usage.flops == pytest.approx(counted.flops / 256**2, rel=0.01)
    assert usage.memory == pytest.approx(counted.peak / 256**2, rel=0.3)
