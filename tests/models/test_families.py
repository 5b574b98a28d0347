"""Imported networks compute what the networks they come from compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models.named_weights import image_of, named_weights
from models.reference_networks import (
    ConvolvedUpsampling,
    JvanVugt,
    MateuszBuda,
    Milesial,
    Milesial2018,
    randomise,
    with_norm,
)
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.unet import UNet
from PIL import Image
from support.probe import measure_border
from torch import Tensor, nn

from wsi_unet.errors import ModelError, OptionError
from wsi_unet.geometry import round_up
from wsi_unet.models.architectures.residual_unet import ResidualUNetConfig
from wsi_unet.models.architectures.resnet_unet import ResNetUNetConfig
from wsi_unet.models.architectures.unet import UNetConfig
from wsi_unet.models.importing.checkpoints import (
    import_checkpoint,
    infer_spec,
    recognise_checkpoint,
)
from wsi_unet.models.importing.hints import ImportHints
from wsi_unet.models.networks.build import build_network
from wsi_unet.models.networks.folding import fold_batch_norm
from wsi_unet.models.spec import ModelSpec

Make = Callable[[], nn.Module]

ODD = ((101, 87), (96, 64), (47, 160))
EVEN = ((96, 64), (48, 160))
VALID = ((92, 108),)


def basic_unet(**options: Any) -> nn.Module:
    options = {"features": (4, 8, 12, 16, 20, 6), "norm": "batch"} | options
    network: nn.Module = BasicUNet(spatial_dims=2, in_channels=3, out_channels=3, **options)
    return network


def residual_unet(**options: Any) -> nn.Module:
    network: nn.Module = UNet(2, 3, 2, (4, 8, 12, 12), (2, 2, 2), **options)
    return network


NORMED: dict[str, Make] = {
    "milesial, transposed": partial(Milesial, 3, 3, 4, bilinear=False),
    "milesial, with biases": partial(Milesial, 3, 3, 4, bilinear=True, bias=True),
    "milesial-1x1": partial(ConvolvedUpsampling, 3, 1, 4, late=False),
    "mateuszbuda": partial(MateuszBuda, 3, 1, 4),
    "jvanvugt": partial(JvanVugt, 3, 3, 4, padding=True, norm=True, upsample=True),
}
"""Networks whose batch norms may be replaced."""

CASES: dict[str, tuple[Make, ImportHints, tuple[tuple[int, int], ...]]] = {
    "milesial, transposed": (lambda: Milesial(3, 3, 4, bilinear=False), ImportHints(), ODD),
    "milesial, bilinear": (lambda: Milesial(3, 3, 4, bilinear=True), ImportHints(), ODD),
    "milesial, early": (lambda: Milesial(3, 2, 4, bilinear=True, bias=True), ImportHints(), ODD),
    "milesial, grey": (lambda: Milesial(1, 1, 4, bilinear=False, bias=True), ImportHints(), ODD),
    "milesial-2018": (lambda: Milesial2018(3, 1, 4, bilinear=True), ImportHints(), ODD),
    "milesial-2018, transposed": (
        lambda: Milesial2018(3, 1, 4, bilinear=False),
        ImportHints(),
        ODD,
    ),
    **{
        f"milesial-1x1, {channels} channels, late {late}": (
            partial(ConvolvedUpsampling, channels, 1, 4, late=late),
            ImportHints(),
            ODD,
        )
        for channels, late in ((3, False), (3, True), (1, False))
    },
    **{
        f"jvanvugt, {padding}, norm {norm}, upsample {upsample}": (
            partial(JvanVugt, 3, 3, 4, padding=padding == "same", norm=norm, upsample=upsample),
            ImportHints(padding=padding),
            EVEN if padding == "same" else VALID,
        )
        for padding in ("same", "valid")
        for norm in (True, False)
        for upsample in (True, False)
    },
    "mateuszbuda": (lambda: MateuszBuda(3, 1, 4), ImportHints(), EVEN),
    "monai-basic-unet, batch": (basic_unet, ImportHints(), ODD),
    "monai-basic-unet, batch, nontrainable": (
        lambda: basic_unet(upsample="nontrainable"),
        ImportHints(),
        ODD,
    ),
    "monai-basic-unet, default": (
        lambda: basic_unet(norm=("instance", {"affine": True})),
        ImportHints(norm="instance"),
        ODD,
    ),
    "monai-basic-unet, instance, nontrainable": (
        lambda: basic_unet(
            norm=("instance", {"affine": True}), upsample="nontrainable", bias=False
        ),
        ImportHints(norm="instance"),
        ODD,
    ),
    "monai-basic-unet, no norm, ReLU": (
        lambda: basic_unet(norm=None, act="relu"),
        ImportHints(activation="relu", norm="none"),
        ODD,
    ),
    "monai-basic-unet, instance without weights": (
        partial(basic_unet, norm="instance"),
        ImportHints(norm="instance"),
        ODD,
    ),
    "monai-basic-unet, the same, nontrainable": (
        partial(basic_unet, norm="instance", upsample="nontrainable"),
        ImportHints(norm="instance"),
        ODD,
    ),
    "monai-unet, no norm": (
        partial(residual_unet, norm=None, num_res_units=2),
        ImportHints(norm="none"),
        EVEN,
    ),
    "monai-unet, no units": (residual_unet, ImportHints(), EVEN),
    "monai-unet, two units": (lambda: residual_unet(num_res_units=2), ImportHints(), EVEN),
    "monai-unet, three units, batch": (
        lambda: residual_unet(num_res_units=3, norm="batch", bias=False),
        ImportHints(),
        EVEN,
    ),
    "monai-unet, affine, leaky": (
        lambda: residual_unet(
            num_res_units=1,
            norm=("instance", {"affine": True}),
            act=("leakyrelu", {"negative_slope": 0.2}),
        ),
        ImportHints(activation="leaky-relu=0.2", norm="instance"),
        EVEN,
    ),
    "monai-basic-unet, groups": (
        lambda: basic_unet(
            features=(4, 8, 12, 16, 20, 8), norm=("group", {"num_groups": 4}), act="relu"
        ),
        ImportHints(activation="relu", norm="group:4"),
        ODD,
    ),
    "monai-basic-unet, groups without weights": (
        lambda: basic_unet(
            features=(4, 8, 12, 16, 20, 8), norm=("group", {"num_groups": 2, "affine": False})
        ),
        ImportHints(norm="group:2"),
        ODD,
    ),
    "monai-unet, groups": (
        lambda: residual_unet(num_res_units=2, norm=("group", {"num_groups": 2})),
        ImportHints(norm="group:2"),
        EVEN,
    ),
    **{
        f"{name}, {norm}": (
            partial(with_norm, make, norm),
            ImportHints(norm=norm, padding="same" if name.startswith("jvanvugt") else None),
            ((96, 64),),
        )
        for name, make in NORMED.items()
        for norm in ("instance", "batch", "group:2")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_import_computes_what_the_original_does(case: str, tmp_path: Path) -> None:
    make, hints, sizes = CASES[case]
    original = randomise(make())
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    network, spec = import_checkpoint(tmp_path / "weights.pth", hints)
    assert recognise_checkpoint(tmp_path / "weights.pth").family.name == case.split(",")[0]
    compute = getattr(original, "logits", original)
    with torch.inference_mode():
        for rows, columns in sizes:
            image = torch.rand(1, spec.in_channels, rows, columns)
            _assert_close(network(image), compute(image))


def _assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    spread = float(theirs.amax() - theirs.amin())
    assert spread > 0.1, "a dead network would pass every test"
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, spread)


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "resnet50"])
def test_the_import_computes_what_the_library_computed(encoder: str, tmp_path: Path) -> None:
    recorded = np.load(Path(__file__).parent / "smp.npz")
    shapes = json.loads(recorded[encoder].tobytes())
    state = {
        name: torch.empty(shape, dtype=torch.float32 if shape else torch.int64, device="meta")
        for name, shape in shapes.items()
    }
    torch.save(named_weights(state), tmp_path / "weights.pth")
    network, spec = import_checkpoint(tmp_path / "weights.pth")
    assert spec.description.endswith("(segmentation_models.pytorch's Unet with a ResNet)")
    with torch.inference_mode():
        for rows, columns in ((64, 96), (96, 32)):
            output = network(image_of(rows, columns))[0, :, 3::8, 5::8]
            _assert_close(output, torch.from_numpy(recorded[f"{encoder}-{rows}x{columns}"]))


@pytest.mark.parametrize(
    ("blocks", "bottleneck", "border"),
    [((2, 2, 2, 2), False, 281), ((3, 4, 6, 3), False, 513), ((3, 4, 6, 3), True, 277)],
)
def test_a_resnets_border_is_the_known_one(
    blocks: tuple[int, int, int, int], bottleneck: bool, border: int
) -> None:
    config = ResNetUNetConfig(blocks=blocks, bottleneck=bottleneck)
    assert config.border().before == round_up(border, 32)


@pytest.mark.parametrize(("blocks", "bottleneck"), [((1, 1, 1, 1), False), ((1, 1, 1, 1), True)])
def test_a_resnets_border_is_what_it_depends_on(
    blocks: tuple[int, int, int, int], bottleneck: bool
) -> None:
    config = ResNetUNetConfig(
        blocks=blocks, bottleneck=bottleneck, base_width=2, expanding=(4, 4, 4, 2, 2)
    )
    _assert_border(config, seed=1)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 3), st.sampled_from([None, 0.0, 0.2]), st.integers(0, 99))
def test_a_residual_networks_border_is_what_it_depends_on(
    depth: int, units: int, negative_slope: float | None, seed: int
) -> None:
    channels = (4, 6, 8, 8, 8)[: depth + 1]
    config = ResidualUNetConfig(
        channels=channels, units=units, norm="batch", negative_slope=negative_slope
    )
    _assert_border(config, seed)


def _assert_border(config: ResNetUNetConfig | ResidualUNetConfig, seed: int) -> None:
    border = config.border()
    side = border.before + border.after + 3 * border.period
    network = randomise(build_network(config), seed)
    measured = measure_border(network, in_channels=3, period=border.period, side=side)
    assert measured.rounded(border.period) == (border.before, border.after)
    assert measured.deviation < 1e-9


@pytest.mark.parametrize(
    "config",
    [
        ResNetUNetConfig(),
        ResNetUNetConfig(blocks=(2, 1, 1, 3), bottleneck=True, base_width=8),
        ResidualUNetConfig(),
        ResidualUNetConfig(units=0, channels=(8, 4, 16), norm="batch"),
    ],
)
def test_costs_count_what_the_network_has(config: ResNetUNetConfig | ResidualUNetConfig) -> None:
    with torch.device("meta"):
        network = fold_batch_norm(build_network(config))
    cost = config.forward_cost(128, 4)
    weights = sum(p.numel() for name, p in network.named_parameters() if p.numel() > 1)
    assert abs(cost.parameters - weights) <= 0.001 * weights
    assert cost.side == 128
    assert cost.peak >= cost.largest * 4 >= cost.last


@pytest.mark.parametrize("units", [0, 2])
def test_batch_norm_is_folded_into_transposed_convolutions_too(units: int) -> None:
    config = ResidualUNetConfig(channels=(4, 8, 8), units=units, norm="batch")
    network = randomise(build_network(config)).double()
    folded = fold_batch_norm(network)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    image = torch.rand(1, 3, 32, 48, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), network(image), rtol=1e-9, atol=1e-9)


@given(
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_depth_widths_and_classes_are_read_off_the_weights(
    tmp_path: Path,
    depth: int,
    base: int,
    classes: int,
    channels: int,
    norm: bool,
    upsample: bool,
) -> None:
    original = JvanVugt(
        channels, classes, base, depth=depth, padding=True, norm=norm, upsample=upsample
    )
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    spec = infer_spec(recognise_checkpoint(tmp_path / "weights.pth"), ImportHints(padding="same"))
    assert spec.architecture == UNetConfig(
        padding="same",
        depth=depth,
        base_width=base,
        in_channels=channels,
        classes=classes,
        upsampling="bilinear" if upsample else "transpose",
        norm="batch" if norm else "none",
        norm_first=False,
    )
    assert (spec.head, spec.channel_order) == (
        "sigmoid" if classes == 1 else "softmax",
        "gray" if channels == 1 else "rgb",
    )


@pytest.mark.parametrize(
    ("make", "hints", "border", "exactness"),
    [
        (partial(Milesial, 3, 2, 4, bilinear=False), ImportHints(), (96, 96, 0), "exact"),
        (
            partial(Milesial, 3, 2, 4, bilinear=True),
            ImportHints(interpolation="global"),
            (112, 112, 0),
            "exact",
        ),
        (
            partial(ConvolvedUpsampling, 3, 1, 4, late=False),
            ImportHints(interpolation="global"),
            (112, 112, 0),
            "exact",
        ),
        (
            partial(JvanVugt, 3, 2, 4, depth=4, padding=False, norm=False, upsample=False),
            ImportHints(padding="valid"),
            (92, 96, 92),
            "exact",
        ),
        (partial(MateuszBuda, 3, 1, 4), ImportHints(), (96, 96, 0), "exact"),
        (basic_unet, ImportHints(), (96, 96, 0), "exact"),
        (
            partial(residual_unet, num_res_units=2, norm="batch"),
            ImportHints(),
            (48, 48, 0),
            "exact",
        ),
    ],
)
def test_borders_are_the_known_ones(
    make: Make, hints: ImportHints, border: tuple[int, int, int], exactness: str, tmp_path: Path
) -> None:
    torch.save(make().state_dict(), tmp_path / "weights.pth")
    spec = infer_spec(recognise_checkpoint(tmp_path / "weights.pth"), hints)
    found = spec.border()
    assert (found.before, found.after, found.shrink) == border
    assert spec.exactness == exactness


@pytest.mark.parametrize(
    ("make", "norm"),
    [
        (partial(Milesial, 3, 2, 4, bilinear=True), None),
        (partial(ConvolvedUpsampling, 3, 1, 4, late=False), None),
        (partial(basic_unet, norm=("instance", {"affine": True})), "instance"),
        (residual_unet, None),
        (partial(with_norm, partial(Milesial, 3, 2, 4, bilinear=False), "group:2"), "group:2"),
        (partial(residual_unet, norm=("group", {"num_groups": 2})), "group:2"),
    ],
)
def test_what_depends_on_the_window_gets_one_and_is_approximate(
    make: Make, norm: str | None, tmp_path: Path
) -> None:
    torch.save(make().state_dict(), tmp_path / "weights.pth")
    spec = infer_spec(recognise_checkpoint(tmp_path / "weights.pth"), ImportHints(norm=norm))
    assert (spec.window, spec.exactness) == (512, "approximate")
    assert ModelSpec.model_validate_json(spec.to_text()) == spec


@pytest.mark.parametrize("norm", ["instance", "batch", "group:4"])
@pytest.mark.parametrize(
    "make",
    [
        partial(Milesial, 3, 2, 8, bilinear=False),
        partial(Milesial2018, 1, 1, 8, bilinear=True),
        partial(MateuszBuda, 3, 1, 8),
    ],
)
def test_a_norm_without_running_statistics_is_asked_for(
    make: Make, norm: str, tmp_path: Path
) -> None:
    torch.save(with_norm(make, norm).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(
        OptionError, match=r"give `norm` \(instance or batch or group:G\)"
    ) as raised:
        import_checkpoint(tmp_path / "weights.pth")
    assert raised.value.option == "norm"


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ("group:3", r"^`norm=group:3`: .* 8 channels don't make 3 groups of equal size$"),
        ("none", r"^`norm=none`: .* has weights of a norm; give instance or batch or group:G$"),
        ("group:0", "'group:0' is none of none, instance, batch, group:G"),
        ("group", "'group' is none of"),
        ("layer", "'layer' is none of"),
    ],
)
def test_norms_that_do_not_fit_the_weights_are_refused(
    norm: str, message: str, tmp_path: Path
) -> None:
    network = with_norm(partial(Milesial, 3, 2, 8, bilinear=False), "group:4")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(OptionError, match=message) as raised:
        import_checkpoint(tmp_path / "weights.pth", ImportHints(norm=norm))
    assert raised.value.option == "norm"


def test_groups_are_those_of_the_network_that_was_trained(shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "groupnorm_checkpoint"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    network, spec = import_checkpoint(folder / "groupnorm4.pth", ImportHints(norm="group=4"))
    assert isinstance(spec.architecture, UNetConfig)
    assert spec.architecture.norm == "group:4"
    image = np.asarray(Image.open(folder / "image.png").convert("RGB"), np.float32) / 255
    with torch.inference_mode():
        found = network(torch.from_numpy(image).permute(2, 0, 1)[None])[0].argmax(0).numpy()
    right = np.asarray(Image.open(folder / "labels_right.png"))
    assert (found == right).mean() > 0.999


@pytest.mark.parametrize(
    "renamed",
    [
        {"inc.conv.conv.": "inc.conv.", "outc.conv.": "outc."},
        {"mpconv.": "maxpool_conv."},
        {"inc.conv.conv.": "inc.double_conv.", "conv.1.conv": "conv.1.double_conv"}
        | {".conv.conv.": ".conv.double_conv."},
    ],
)
def test_convolved_upsampling_is_known_by_the_names_people_give(
    renamed: dict[str, str], tmp_path: Path
) -> None:
    original = randomise(ConvolvedUpsampling(3, 1, 4, late=False))
    state = original.state_dict()
    for old, new in renamed.items():
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "weights.pth")
    network, spec = import_checkpoint(tmp_path / "weights.pth")
    assert "1×1 convolution and ReLU after bilinear upsampling" in spec.description
    assert "the same activation after the 1×1 convolutions of the upsampling" in spec.assumed
    image = torch.rand(1, 3, 47, 64)
    with torch.inference_mode():
        _assert_close(network(image).sigmoid(), original(image))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module.net."])
def test_prefixes_of_wrappers_are_taken_off(prefix: str, tmp_path: Path) -> None:
    original = randomise(Milesial(3, 2, 4, bilinear=False))
    state = {prefix + name: tensor for name, tensor in original.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 9}, tmp_path / "weights.ckpt")
    network, _ = import_checkpoint(tmp_path / "weights.ckpt")
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        _assert_close(network(image), original(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_types_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    original = randomise(Milesial(3, 2, 4, bilinear=False)).to(dtype)
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    network, _ = import_checkpoint(tmp_path / "weights.pth")
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        _assert_close(network(image), original.float()(image))


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_arent_finite_are_refused_by_name(number: float, tmp_path: Path) -> None:
    state = randomise(Milesial(3, 2, 4, bilinear=False)).state_dict()
    state["down2.maxpool_conv.1.double_conv.3.weight"][1, 2, 0, 1] = number
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"down2\.maxpool_conv.*holds NaN or infinite numbers"):
        import_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("up1.up.weight"), r"nearest is milesial .*lacks up1\.up\.weight"),
        (lambda state: state.pop("outc.conv.bias"), None),
        (lambda state: state.pop("up2.up.bias"), r"lacks up2\.up\.bias"),
        (
            lambda state: state.pop("inc.double_conv.1.running_mean"),
            r"lacks inc\.double_conv\.1\.running_mean",
        ),
        (
            lambda state: state.update({"attention.gate": torch.zeros(3)}),
            r"also has attention\.gate",
        ),
        (
            lambda state: state.update({"inc.double_conv.3.weight": torch.zeros(4, 5, 3, 3)}),
            r"inc\.double_conv\.3\.weight has the shape \[4, 5, 3, 3\] where .* \[4, 4, 3, 3\]",
        ),
        (
            lambda state: state.update({"inc.double_conv.0.weight": torch.zeros(4, 3, 3, 3, 3)}),
            "three-dimensional",
        ),
        (
            lambda state: state.update({"outc.conv.weight": torch.zeros(300, 4, 1, 1)}),
            r"imported: 300 outputs; at most 255$",
        ),
        (
            lambda state: state.update({"inc.double_conv.0.weight": torch.zeros(4, 99, 3, 3)}),
            r"imported: in_channels: [^;]*$",
        ),
        (
            lambda state: state.update({"inc.double_conv.0.weight": torch.zeros(4, 7, 3, 3)}),
            "images of 7 channels",
        ),
    ],
)
def test_near_misses_of_a_family_are_distinguished(
    change: Callable[[dict[str, torch.Tensor]], object], message: str | None, tmp_path: Path
) -> None:
    state = dict(randomise(Milesial(3, 2, 4, bilinear=False)).state_dict())
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    if message is None:  # a head may do without
        import_checkpoint(tmp_path / "weights.pth")
        return
    with pytest.raises((ModelError, OptionError), match=message) as raised:
        import_checkpoint(tmp_path / "weights.pth")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(UNet, 3, 1, 2, (4, 8), (2,), num_res_units=2), "three-dimensional"),
        (partial(UNet, 2, 3, 2, (4, 8, 8), (2, 1), num_res_units=2), "level 1 doesn't halve"),
        (partial(UNet, 2, 3, 2, (4, 8, 8), (2, 2), kernel_size=5), r"has the shape \[4, 3, 5, 5\]"),
        (partial(basic_unet, upsample="pixelshuffle"), "nearest is monai-basic-unet"),
        (
            partial(JvanVugt, 3, 2, 4, padding=True, norm=True, upsample=True),
            r"`padding` \(valid or same\)",
        ),
        (partial(residual_unet, act="relu"), r"`activation` \(relu or leaky-relu"),
        (partial(basic_unet, norm="instance"), r"`norm` \(none or instance or batch or group:G\)"),
    ],
)
def test_variants_that_are_not_supported_are_refused(
    make: Make, message: str, tmp_path: Path
) -> None:
    torch.save(make().state_dict(), tmp_path / "weights.pth")
    with pytest.raises((ModelError, OptionError), match=message):
        import_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("make", "hints", "option"),
    [
        (partial(Milesial, 3, 2, 4, bilinear=False), ImportHints(padding="valid"), "`padding`"),
        (partial(Milesial, 3, 2, 4, bilinear=False), ImportHints(norm="instance"), "`norm`"),
        (basic_unet, ImportHints(norm="instance"), "`norm`"),
        (partial(residual_unet, norm="batch"), ImportHints(norm="none"), "`norm`"),
        (
            partial(residual_unet, norm="batch", act="relu"),
            ImportHints(norm="group:2", activation="relu"),
            "`norm`",
        ),
        (residual_unet, ImportHints(padding="same"), "`padding`"),
        (residual_unet, ImportHints(activation="relu"), "`activation`"),
        (residual_unet, ImportHints(activation="relu", padding="same"), "`activation`, `padding`"),
    ],
)
def test_hints_about_what_the_weights_fix_are_refused(
    make: Make, hints: ImportHints, option: str, tmp_path: Path
) -> None:
    torch.save(make().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(OptionError, match=rf"^{option}: .* leaves no choice there; leave it out$"):
        import_checkpoint(tmp_path / "weights.pth", hints)


INSTANCE = ("instance", {"affine": True})
MONAI_UNET = {
    "strides of 2",
    'adn_ordering "NDA" (norm before activation)',
    "convolutions padded with zeros",
}
EPSILON = "norms with an epsilon of 1e-5"
PLAIN = {
    "2×2 max pooling",
    "convolutions padded with zeros",
    "skip connections joined before the upsampled map",
}
BASIC_UNET = PLAIN | {"odd sides filled up by their edge"}


@pytest.mark.parametrize(
    ("make", "hints", "assumed"),
    [
        (
            partial(Milesial, 3, 2, 4, bilinear=True),
            ImportHints(),
            {
                *PLAIN,
                EPSILON,
                "ReLU",
                "odd sides filled up with zeros, as since the middle of 2018",
                "bilinear upsampling with aligned corners",
            },
        ),
        (
            partial(MateuszBuda, 3, 1, 4),
            ImportHints(activation="leaky-relu"),
            {
                "2×2 max pooling",
                "convolutions padded with zeros",
                "skip connections joined after the upsampled map",
                EPSILON,
            },
        ),
        (basic_unet, ImportHints(), {"LeakyReLU of slope 0.1", EPSILON, *BASIC_UNET}),
        (
            partial(basic_unet, norm=INSTANCE),
            ImportHints(activation="relu", norm="instance"),
            {EPSILON, *BASIC_UNET},
        ),
        (
            partial(basic_unet, norm=INSTANCE),
            ImportHints(activation="relu", norm="batch"),
            {
                EPSILON,
                "batch norm by the statistics of each window, as instance norm",
                *BASIC_UNET,
            },
        ),
        (
            partial(basic_unet, norm="instance"),
            ImportHints(norm="instance", activation="relu"),
            BASIC_UNET,
        ),
        (partial(residual_unet, norm="batch"), ImportHints(), {EPSILON, *MONAI_UNET}),
        (
            partial(residual_unet, norm=INSTANCE),
            ImportHints(norm="instance"),
            {EPSILON, *MONAI_UNET},
        ),
        (residual_unet, ImportHints(), {*MONAI_UNET, "instance norm without weights"}),
    ],
)
def test_what_the_weights_dont_show_is_reported_as_assumed(
    make: Make, hints: ImportHints, assumed: set[str], tmp_path: Path
) -> None:
    torch.save(make().state_dict(), tmp_path / "weights.pth")
    checkpoint = recognise_checkpoint(tmp_path / "weights.pth")
    config = infer_spec(checkpoint, hints).architecture
    assert set(checkpoint.assumptions(config, hints.shape_hints)) == assumed


INPUT = {
    "channels": ("rgb", "channels in the order red, green, blue"),
    "scale": ("imagenet", "intensities from 0 to 1"),
    "mpp": (0.5, "any pixel size: the slide's own"),
    "head": ("softmax", "softmax over the classes"),
    "classes": (("a", "b"), "classes by number"),
    "background": ("class-0", "class-0 as background"),
    "window": (512, "windows of 512 px"),
}


@pytest.mark.parametrize("said", INPUT)
def test_what_the_user_does_not_say_is_reported_as_assumed(said: str, tmp_path: Path) -> None:
    torch.save(Milesial(3, 2, 4, bilinear=True).state_dict(), tmp_path / "weights.pth")
    checkpoint = recognise_checkpoint(tmp_path / "weights.pth")
    everything = {words for _, words in INPUT.values()}
    assert everything <= set(infer_spec(checkpoint, ImportHints()).assumed)
    value, words = INPUT[said]
    given: dict[str, Any] = {said: value}
    assumed = infer_spec(checkpoint, ImportHints(**given)).assumed
    assert words not in assumed


def test_a_sigmoid_and_its_thresholds_are_reported_as_assumed(tmp_path: Path) -> None:
    torch.save(Milesial(1, 1, 4, bilinear=False).state_dict(), tmp_path / "weights.pth")
    checkpoint = recognise_checkpoint(tmp_path / "weights.pth")
    assumed = infer_spec(checkpoint, ImportHints()).assumed
    assert {"a grey image", "a sigmoid for each class", "thresholds of 0.5"} <= set(assumed)
    assumed = infer_spec(checkpoint, ImportHints(thresholds=(0.4,))).assumed
    assert "thresholds of 0.5" not in assumed


def test_a_head_of_a_hundred_classes_wants_a_hundred_names(tmp_path: Path) -> None:
    torch.save(randomise(Milesial(3, 100, 4, bilinear=False)).state_dict(), tmp_path / "a.pth")
    with pytest.raises(OptionError, match="3 names for a network with 100 outputs"):
        import_checkpoint(tmp_path / "a.pth", ImportHints(classes=("a", "b", "c")))
    _, spec = import_checkpoint(tmp_path / "a.pth")
    assert len({item.color for item in spec.classes}) == 100


def test_a_real_network_of_no_family_is_described(shared_data: Path) -> None:
    with pytest.raises(ModelError, match=r"no known family.*encoders\.0\.conv1\.conv"):
        import_checkpoint(shared_data / "foreign_models" / "cremi_dunet_em" / "state.nn")


@given(
    st.integers(1, 3),
    st.sampled_from(["valid", "same"]),
    st.sampled_from(["transpose", "bilinear"]),
    st.sampled_from([("none", True), ("batch", True), ("batch", False)]),
    st.integers(1, 3),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_our_own_states_are_imported_as_they_are(
    tmp_path: Path,
    depth: int,
    padding: Any,
    upsampling: str,
    norm: tuple[str, bool],
    convolutions: int,
) -> None:
    config = UNetConfig.model_validate(
        {
            "depth": depth,
            "padding": padding,
            "upsampling": upsampling,
            "norm": norm[0],
            "norm_first": norm[1],
            "convolutions": convolutions,
            "base_width": 4,
        }
    )
    original = randomise(build_network(config))
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    network, spec = import_checkpoint(tmp_path / "weights.pth", ImportHints(padding=padding))
    assert spec.architecture == config
    for name, tensor in original.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
