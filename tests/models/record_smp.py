"""Record what segmentation_models.pytorch computes, in `smp.npz`.

    PYTHONPATH=tests python tests/models/record_smp.py tests/models/smp.npz

Run once, with segmentation_models.pytorch 0.6.0 and torchvision 0.28.0, where these are installed;
they aren't here, since torchvision brings CUDA. Only every eighth pixel is kept.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from models.named_weights import image_of, named_weights

SIZES = ((64, 96), (96, 32))
ENCODERS = ("resnet18", "resnet34", "resnet50")


def main(path: str) -> None:
    import segmentation_models_pytorch as smp

    vectors: dict[str, Any] = {}
    for encoder in ENCODERS:
        network = smp.Unet(encoder, encoder_weights=None, classes=3).eval()
        network.load_state_dict(named_weights(network.state_dict()))
        shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        vectors[encoder] = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
        with torch.inference_mode():
            for rows, columns in SIZES:
                output = network(image_of(rows, columns))[0, :, 3::8, 5::8].numpy()
                vectors[f"{encoder}-{rows}x{columns}"] = output
                print(encoder, output.std(), output.min(), output.max())
    np.savez_compressed(path, **vectors)


if __name__ == "__main__":
    main(sys.argv[1])
