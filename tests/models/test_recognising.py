"""The network is found among the entries of a checkpoint, whatever lies beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.reference_networks import Milesial, randomise
from monai.networks.nets.unet import UNet
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wsi_unet.errors import ModelError, OptionError
from wsi_unet.models.importing.checkpoints import import_checkpoint, recognise_checkpoint
from wsi_unet.models.importing.families import RecognisedCheckpoint
from wsi_unet.models.importing.hints import ImportHints

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return randomise(Milesial(3, 2, 4, bilinear=False))


@pytest.fixture(scope="module")
def averaged() -> nn.Module:
    return randomise(Milesial(3, 2, 4, bilinear=False), seed=1)


def prefixed(prefix: str, network: nn.Module) -> State:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def parameters(network: nn.Module) -> State:
    return {name: tensor.detach() for name, tensor in network.named_parameters()}


def discriminator() -> State:
    return dict(nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.Conv2d(8, 1, 4)).state_dict())


def optimiser_state(network: nn.Module) -> dict[str, Any]:
    """Return the state of an optimiser after one step, whose averages look like kernels."""
    optimiser = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    return optimiser.state_dict()


BESIDE: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "nothing": (lambda net: {"state_dict": net.state_dict()}, ""),
    "a loss in a Lightning module": (
        lambda net: {
            "epoch": 3,
            "state_dict": prefixed("model.", net) | {"criterion.weight": torch.ones(2)},
            "lr_schedulers": [],
            "hyper_parameters": {"lr": 1e-3},
        },
        "state_dict.criterion.weight, epoch, lr_schedulers, hyper_parameters",
    ),
    "what Lightning keeps of its callbacks": (
        lambda net: {
            "callbacks": {
                "ModelCheckpoint{'monitor': 'val_loss', 'mode': 'min'}": {
                    "best_model_score": torch.tensor(0.5),
                    "best_k_models": {"/data/" + 99 * "runs/" + "a.ckpt": torch.tensor(0.5)},
                    "dirpath": "/data",
                }
            },
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
            "optimizer_states": [optimiser_state(net)],
            "state_dict": prefixed("_orig_mod.", net),
        },
        "callbacks (3), optimizer_states (",
    ),
    "a count of averages": (
        lambda net: AveragedModel(net).state_dict(),
        "n_averaged",
    ),
    "metrics and a loss beside the layers": (
        lambda net: (
            net.state_dict()
            | {
                "val_iou.confmat": torch.zeros(2, 2),
                "train_metrics.MulticlassAccuracy.tp": torch.zeros(2),
                "ce_loss.weight": torch.ones(2),
            }
        ),
        "val_iou.confmat, train_metrics.MulticlassAccuracy.tp, ce_loss.weight",
    ),
    "a loss that is a network": (
        lambda net: (
            prefixed("net.", net)
            | {f"perceptual_loss.vgg.{name}": tensor for name, tensor in discriminator().items()}
        ),
        "perceptual_loss (4)",
    ),
    "an optimiser": (
        lambda net: {"model": net.state_dict(), "optimizer": optimiser_state(net), "step": 1},
        "optimizer (",
    ),
    "a list of averages": (
        lambda net: {"net": net.state_dict(), "loss_ema": {"shadow": [torch.zeros(9)]}},
        "loss_ema.shadow.0",
    ),
    "the same network once more": (
        lambda net: (lambda state: {"model": state, "ema": state, "best": np.float64(0.5)})(
            net.state_dict()
        ),
        "best",
    ),
    "compiled parts, deep down": (
        lambda net: {
            "trainer": {
                "state": {
                    "module.net." + name.replace("double_conv", "_orig_mod.double_conv"): tensor
                    for name, tensor in net.state_dict().items()
                }
            },
            "mean": torch.zeros(1, 3, 1, 1),
        },
        "mean",
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_a_network_is_found_and_the_rest_is_left_out_and_listed(
    case: str, network: nn.Module, tmp_path: Path
) -> None:
    make, left_out = BESIDE[case]
    torch.save(make(network), tmp_path / "weights.ckpt")
    imported, spec = import_checkpoint(tmp_path / "weights.ckpt")
    assert_same(imported, network)
    told = [words for words in spec.assumed if words.startswith("left out of the file")]
    if left_out:
        assert left_out in told[0]
    else:
        assert not told


def assert_same(imported: nn.Module, network: nn.Module) -> None:
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(imported(image), network(image), rtol=1e-4, atol=1e-4)


def test_safetensors_have_entries_too(network: nn.Module, tmp_path: Path) -> None:
    state = prefixed("model.", network) | {"criterion.weight": torch.ones(2)}
    save_file(state, tmp_path / "weights.safetensors")
    imported, spec = import_checkpoint(tmp_path / "weights.safetensors")
    assert_same(imported, network)
    assert any("criterion.weight" in words for words in spec.assumed)


SEVERAL: dict[str, tuple[Callable[[nn.Module, nn.Module], Any], str, str]] = {
    "averages": (
        lambda one, two: {"state_dict": one.state_dict(), "ema_state_dict": two.state_dict()},
        "state_dict",
        "ema_state_dict",
    ),
    "student and teacher": (
        lambda one, two: {
            "state_dict": prefixed("student.", one) | prefixed("teacher.module.", two)
        },
        "state_dict.student",
        "state_dict.teacher.module",
    ),
    "averages within the plain network": (
        lambda one, two: prefixed("", one) | prefixed("ema.", two),
        ".",
        "ema",
    ),
    "averages of PyTorch": (
        lambda one, two: {
            "model": one.state_dict(),
            "averaged": AveragedModel(two).state_dict(),
        },
        "model",
        "averaged",
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_several_networks_are_named_and_asked_about(
    case: str, network: nn.Module, averaged: nn.Module, tmp_path: Path
) -> None:
    make, first, second = SEVERAL[case]
    path = tmp_path / "weights.pth"
    torch.save(make(network, averaged), path)
    with pytest.raises(OptionError, match="more than one network") as raised:
        import_checkpoint(path)
    assert raised.value.option == "entry"
    assert f"{first} (milesial)" in str(raised.value)
    assert f"`entry={second}" in str(raised.value)
    for entry, right in ((first, network), (second, averaged)):
        imported, spec = import_checkpoint(path, ImportHints(entry=entry))
        assert_same(imported, right)
        assert any(words.startswith("left out of the file") for words in spec.assumed)
    with pytest.raises(OptionError, match=r"no network of a known family at 'x', but at .*, "):
        import_checkpoint(path, ImportHints(entry="x"))


UNKNOWN: dict[str, Callable[[nn.Module], Any]] = {
    "a discriminator": lambda net: {"G": net.state_dict(), "D": discriminator()},
    "averages without running statistics": lambda net: {
        "G": net.state_dict(),
        "shadow": parameters(net),
    },
    "averages under other names": lambda net: {
        "G": net.state_dict(),
        "ema": {name.replace(".", ""): tensor for name, tensor in parameters(net).items()},
    },
    "a layer after the network": lambda net: (
        prefixed("G.", net) | {"refine.weight": torch.zeros(2, 2, 5, 5)}
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_weights_that_may_be_another_network_are_asked_about(
    case: str, network: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(UNKNOWN[case](network), path)
    with pytest.raises(OptionError, match=r"G \(milesial\); and weights of no known family: "):
        import_checkpoint(path)
    imported, _ = import_checkpoint(path, ImportHints(entry="G"))
    assert_same(imported, network)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"attention.gate": (1,)}, r"attention\.gate"),
        ({"dice_head.weight": (2, 4, 3, 3)}, r"dice_head\.weight"),
        ({"aux_head.weight": (2, 8, 1, 1), "aux_head.bias": (2,)}, r"aux_head\.weight and 1 more"),
        ({"mean": (1, 3, 1, 1)}, "mean"),
        ({"gamma": ()}, "gamma"),
    ],
)
def test_what_a_network_may_need_is_not_left_out(
    extra: dict[str, tuple[int, ...]], message: str, network: nn.Module, tmp_path: Path
) -> None:
    state = network.state_dict() | {name: torch.zeros(shape) for name, shape in extra.items()}
    torch.save({"model": state}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=rf"nearest is milesial .* also has model\.{message}$"):
        import_checkpoint(tmp_path / "weights.pth")


def test_a_network_within_a_network_is_no_network_of_its_own(tmp_path: Path) -> None:
    whole = UNet(2, 3, 2, (4, 8, 8, 8), (2, 2, 2), num_res_units=2)
    state = whole.state_dict()
    torch.save(state, tmp_path / "whole.pth")
    found = recognise_checkpoint(tmp_path / "whole.pth")
    assert (found.prefix, found.match.unexpected) == ("model.", ())
    del state["model.0.conv.unit1.conv.bias"]
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(
        ModelError, match=r"nearest is monai-unet .*model\.0\.conv\.unit1\.conv\.bias"
    ):
        recognise_checkpoint(tmp_path / "damaged.pth")


def test_a_head_that_the_family_knows_is_left_out(tmp_path: Path) -> None:
    recorded = np.load(Path(__file__).parent / "smp.npz")
    state = {
        name: torch.zeros(shape)
        for name, shape in json.loads(recorded["resnet18"].tobytes()).items()
    }
    state["classification_head.3.weight"] = torch.zeros(4, 512)
    torch.save(state, tmp_path / "weights.pth")
    found: RecognisedCheckpoint = recognise_checkpoint(tmp_path / "weights.pth")
    assert (found.family.name, found.left_out) == ("smp-unet", "classification_head.3.weight")


def nnunet(network_class: str | None) -> dict[str, Any]:
    """Return what nnU-Net v2 stores beside, and instead of, a network that is known here."""
    plans: dict[str, Any] = {"configurations": {"2d": {"patch_size": [512, 512]}}}
    if network_class is not None:
        plans["configurations"]["2d"]["architecture"] = {"network_class_name": network_class}
    return {
        "network_weights": {
            "encoder.stages.0.0.convs.0.conv.weight": torch.zeros(32, 3, 3, 3),
            "decoder.seg_layers.0.weight": torch.zeros(2, 32, 1, 1),
        },
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(32, 3, 3, 3)}}},
        "grad_scaler_state": {"scale": 65536.0, "_growth_tracker": 0},
        "logging": {"mean_fg_dice": [np.float64(0.1)], "ema_fg_dice": [np.float32(0.2)]},
        "_best_ema": np.float64(0.9),
        "current_epoch": 1000,
        "init_args": {"plans": plans, "configuration": "2d", "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }


@pytest.mark.parametrize(
    ("network_class", "named"),
    [
        (
            "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            r"nnU-Net v2 \(nnUNetTrainer, 2d, PlainConvUNet\)",
        ),
        (None, r"nnU-Net v2 \(nnUNetTrainer, 2d\)"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_nnunets_checkpoints_open_and_their_family_is_named(
    network_class: str | None, named: str, legacy: bool, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint_final.pth"
    torch.save(nnunet(network_class), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=rf"a checkpoint of {named}, which isn't among the known"):
        recognise_checkpoint(path)


def test_lightnings_loss_does_not_hide_the_network(shared_data: Path) -> None:
    path = shared_data.parent / "cases" / "checkpoint_foreign_entries" / "lightning_criterion.ckpt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    _, spec = import_checkpoint(path)
    assert "milesial" in spec.description
    assert any("criterion.weight" in words for words in spec.assumed)
