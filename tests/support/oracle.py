"""The oracle of the pipeline: one forward pass over a whole image, written independently.

Nothing here uses the project's borders, windows, tiles or predictor. Only the network itself is
shared: its weights have to be the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from wsi_unet.geometry import Box
from wsi_unet.models import (
    Model,
    ModelClass,
    ModelSpec,
    Normalisation,
    UNet,
    UNetConfig,
    load_model,
    save_model,
)

MARGIN = 1e-4
MEAN, STD = 0.6, 0.25


@dataclass(frozen=True)
class Truth:
    """One forward pass over a whole image.

    Attributes:
        labels: class index per pixel, uint8 (rows, columns).
        decided: where the top two logits differ by more than `MARGIN`.
        probabilities: softmax, float32 (classes, rows, columns).
    """

    labels: NDArray[np.uint8]
    decided: NDArray[np.bool_]
    probabilities: NDArray[np.float32]


def whole_image_forward(
    network: nn.Module,
    config: UNetConfig,
    image: NDArray[np.uint8] | NDArray[np.float32],
    *,
    mean: Sequence[float] = (MEAN,),
    std: Sequence[float] = (STD,),
) -> Truth:
    """Run the network once over the whole image, in float32 and plain memory order."""
    logits = whole_image_logits(network, config, image, mean, std)
    ordered = np.sort(logits, axis=0)
    exponents = np.exp(logits - logits.max(axis=0))
    return Truth(
        labels=logits.argmax(axis=0).astype(np.uint8),
        decided=ordered[-1] - ordered[-2] > MARGIN,
        probabilities=exponents / exponents.sum(axis=0),
    )


def whole_image_logits(
    network: nn.Module,
    config: UNetConfig,
    image: NDArray[np.uint8] | NDArray[np.float32],
    mean: Sequence[float] = (MEAN,),
    std: Sequence[float] = (STD,),
) -> NDArray[np.float32]:
    batch, offset = _whole_input(config, image, mean, std, odd=config.odd != "none")
    with torch.inference_mode():
        logits = network(batch)[0].numpy()
    return _cropped(logits, offset, image)


def whole_image_views(
    network: nn.Module,
    config: UNetConfig,
    image: NDArray[np.uint8] | NDArray[np.float32],
    *,
    quarters: Sequence[int],
    mean: Sequence[float] = (MEAN,),
    std: Sequence[float] = (STD,),
) -> NDArray[np.float64]:
    """Return the mean softmax (classes, rows, columns) over views of the whole image.

    Each is turned by so many quarters, and then flipped upside down or not.
    """
    batch, offset = _whole_input(config, image, mean, std, odd=False)
    total = []
    for quarter in quarters:
        for flipped in (False, True):
            view = torch.rot90(batch, quarter, (2, 3))
            with torch.inference_mode():
                output = network(view.flip(2) if flipped else view)
            upright = torch.rot90(output.flip(2) if flipped else output, -quarter, (2, 3))
            total.append(upright[0].double().softmax(0).numpy())
    return _cropped(np.mean(total, axis=0), offset, image)


def _cropped(output: NDArray[Any], offset: int, image: NDArray[Any]) -> NDArray[Any]:
    rows, columns, _ = image.shape
    return np.ascontiguousarray(output[:, offset : offset + rows, offset : offset + columns])


def _whole_input(
    config: UNetConfig,
    image: NDArray[np.uint8] | NDArray[np.float32],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    odd: bool,
) -> tuple[torch.Tensor, int]:
    """Return the network's input, and where the image begins in the output, px.

    `odd`: it takes any size as it is.
    """
    rows, columns, _ = image.shape
    period = 2**config.depth
    if odd:
        padding, offset = [(0, 0)] * 3, 0
    elif config.padding == "same":
        # The image mirrored right and bottom to what the poolings divide.
        padding = [(0, -rows % period), (0, -columns % period), (0, 0)]
        offset = 0
    else:
        # The image mirrored all around; the first output pixel must be the image's first.
        eaten = config.convolutions * (3 * period - 2)
        offset = period if config.upsampling == "bilinear" else 0
        padding = [
            (eaten + offset, _after(side, eaten, offset, period, config.convolutions))
            for side in (rows, columns)
        ]
        padding.append((0, 0))
    padded = np.pad(image, padding, mode="reflect")
    shift, spread = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    scaled = (padded.astype(np.float32) / 255 - shift) / spread
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))[None], offset


def _after(side: int, eaten: int, offset: int, period: int, convolutions: int) -> int:
    """Return the padding after an image with which the network takes it and covers it."""
    after = eaten + offset
    while (eaten + offset + side + after + 2 * convolutions) % period:
        after += 1
    return after


def balanced_model(
    config: UNetConfig,
    image: NDArray[np.uint8] | NDArray[np.float32],
    path: Path,
    *,
    seed: int = 0,
    mpp: float | None = None,
    name: str = "random",
    **changes: Any,
) -> tuple[Model, UNet]:
    """Save a random network of which every class wins on a large part of `image`.

    Its head is shifted and scaled so that all logits have the same mean and spread. `changes` are
    fields of its spec.

    Returns:
        The model on disk and the same network, for the oracle.
    """
    torch.manual_seed(seed)
    network = UNet(config).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean = torch.rand(module.num_features) - 0.5
            module.running_var = torch.rand(module.num_features) + 0.5
    logits = whole_image_logits(network, config, image)
    means = torch.from_numpy(logits.mean(axis=(1, 2)))
    spreads = torch.from_numpy(logits.std(axis=(1, 2)) + 1e-9)
    head = last_convolution(network)
    with torch.no_grad():
        head.weight /= spreads[:, None, None, None]
        if head.bias is not None:
            head.bias.copy_((head.bias - means) / spreads)
    channels = config.in_channels
    fields = {
        "name": name,
        "architecture": config,
        "classes": tuple(
            ModelClass(name=f"class-{index}", color=f"#{40 * index:02x}80ff")
            for index in range(config.classes)
        ),
        "background": "class-0",
        "mpp": mpp,
        "normalisation": Normalisation(mean=(MEAN,) * channels, std=(STD,) * channels),
        "license": "CC0-1.0",
    }
    save_model(network, ModelSpec.model_validate(fields | changes), path)
    return load_model(path), network


class ArrayRaster:
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.shape = (pixels.shape[0], pixels.shape[1])

    def read(self, box: Box) -> NDArray[np.uint8]:
        return self.pixels[box.slices()]


def last_convolution(network: nn.Module) -> nn.Conv2d:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]


def write_png(path: Path, image: NDArray[np.uint8]) -> Path:
    Image.fromarray(image).save(path)
    return path


def textured(rows: int, columns: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return an RGB image (rows, columns, 3) with structure at several scales."""
    generator = np.random.default_rng(seed)
    image = np.zeros((rows, columns, 3))
    for cell in (1, 4, 16, 64):
        coarse = generator.random((-(-rows // cell), -(-columns // cell), 3))
        image += np.kron(coarse, np.ones((cell, cell, 1)))[:rows, :columns]
    scaled: NDArray[np.uint8] = (255 * image / image.max()).astype(np.uint8)
    return scaled
