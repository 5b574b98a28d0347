"""Write a U-Net with random weights: `python -m benchmarks.networks OUT --base 16`.

If a network put all pixels in one class, its labels would compress to nothing and agree with any
others; so the head's bias is set such that each class has half of a piece of real tissue.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from benchmarks.layouts import EXAMPLE
from wsi_unet.geometry import Box
from wsi_unet.models import (
    Model,
    ModelClass,
    ModelSpec,
    Normalisation,
    UNet,
    UNetConfig,
    save_model,
)
from wsi_unet.models.architectures.costs import window_side
from wsi_unet.slides.opening import open_slide

MEAN, STD = 0.7, 0.2
TISSUE = (1000, 800)
"""(y, x) of a piece of tissue in the example slide, px."""


def write_network(path: Path, architecture: UNetConfig, seed: int = 0) -> Model:
    """Write a model with random weights and without a pixel size, and return it.

    Args:
        path: the .safetensors file to write.
        architecture: the network's shape, with two classes.
        seed: seed of the weights.
    """
    network = make_balanced_network(architecture, seed)
    spec = ModelSpec(
        name=f"random-{architecture.padding}-{architecture.base_width}",
        architecture=architecture,
        classes=(
            ModelClass(name="background", color="#000000"),
            ModelClass(name="foreground", color="#e60000"),
        ),
        background="background",
        mpp=None,
        normalisation=Normalisation(mean=(MEAN,) * 3, std=(STD,) * 3),
    )
    return save_model(network, spec, path)


def make_balanced_network(architecture: UNetConfig, seed: int) -> UNet:
    """Return a network with random weights that puts half of some tissue in each of two classes."""
    # The bias is found on the valid form, so that both paddings get the same weights.
    shape = architecture.model_copy(update={"padding": "valid"})
    side = window_side(shape, 8 * architecture.period)
    with open_slide(EXAMPLE) as slide:
        tissue = slide.read(0, Box(*TISSUE, TISSUE[0] + side, TISSUE[1] + side))
    scaled = (torch.from_numpy(tissue) / 255 - MEAN) / STD
    while True:
        torch.manual_seed(seed)
        valid = UNet(shape).eval()
        with torch.inference_mode():
            logits = valid(scaled.permute(2, 0, 1)[None])[0]
            shift = (logits[0] - logits[1]).median()
            share = float((logits[1] + shift > logits[0]).float().mean())
        if abs(share - 0.5) < 0.1:
            break
        seed += 1  # narrow networks may be dead: constant, whatever the bias
    network = UNet(architecture)
    network.load_state_dict(valid.state_dict())
    with torch.no_grad():
        head = network.head
        assert head.bias is not None
        head.bias[1] += shift
    return network


def move_network(
    network: nn.Module, device: str, dtype: torch.dtype, memory: torch.memory_format
) -> nn.Module:
    """Return a network moved to a device, a number type and an order of the values in memory."""
    return network.to(device=device, dtype=dtype, memory_format=memory)  # type: ignore[call-overload, no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--base", type=int, required=True)
    parser.add_argument("--padding", default="valid")
    parser.add_argument("--depth", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shape = {"padding": given.padding, "base_width": given.base, "depth": given.depth}
    write_network(given.path, UNetConfig.model_validate(shape))


if __name__ == "__main__":
    main()
