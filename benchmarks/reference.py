"""Compute one forward pass over a whole image, in float64, with which every tiling has to agree.

It doesn't use the package's windows and borders; only the network is shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_unet.models import Model, UNetConfig

MARGIN = 1e-4
"""Difference of the two largest logits above which float32 has to agree."""


@dataclass(frozen=True)
class ReferenceLabels:
    """The labels of one forward pass over a whole image.

    Attributes:
        labels: label values, uint8 (rows, columns).
        decided: whether the two largest logits differ by more than `MARGIN`, bool (rows, columns).
    """

    labels: NDArray[np.uint8]
    decided: NDArray[np.bool_]


def run_whole_image(model: Model, image: NDArray[np.uint8], device: str) -> ReferenceLabels:
    """Return the labels of one forward pass over a whole image.

    Args:
        model: a model whose architecture is the package's U-Net.
        image: RGB uint8 (rows, columns, 3).
        device: the device to compute on.
    """
    architecture = model.spec.architecture
    assert isinstance(architecture, UNetConfig)
    rows, columns, _ = image.shape
    period, k = architecture.period, architecture.convolutions
    before = extra = 0
    if architecture.padding == "valid":
        extra = period if architecture.upsampling == "bilinear" else 0
        before = k * (3 * period - 2) + extra
    # As much after as before, and what the poolings need to divide evenly.
    wanted = 0 if architecture.padding == "same" else -2 * k
    after = [before + (wanted - side - 2 * before) % period for side in (rows, columns)]
    padding = [(before, after[0]), (before, after[1]), (0, 0)]
    mirrored = np.pad(image, padding, mode="reflect")
    mean, std = (
        torch.tensor(part, dtype=torch.float64)
        for part in (model.spec.normalisation.mean, model.spec.normalisation.std)
    )
    scaled = (torch.from_numpy(mirrored).double() / 255 - mean) / std
    network = model.build().to(device=device, dtype=torch.float64)
    with torch.inference_mode():
        output = network(scaled.permute(2, 0, 1)[None].to(device))[0]
        logits = output[:, extra : extra + rows, extra : extra + columns]
        best, second = logits.topk(2, dim=0).values
        values = torch.tensor(model.spec.label_values, dtype=torch.uint8, device=device)
        labels = values[logits.argmax(0)]
    return ReferenceLabels(labels.cpu().numpy(), (best - second > MARGIN).cpu().numpy())
