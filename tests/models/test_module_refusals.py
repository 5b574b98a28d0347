"""Modules that can't be models, or don't match their spec: one line each."""

from __future__ import annotations

import threading

import pytest
import torch
from support.programs import Hourglass, alive, spec_for
from torch import Tensor, nn

from wsi_unet.errors import ModelError
from wsi_unet.models import measure_module
from wsi_unet.models.importing.modules import model_from_module


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, image: Tensor) -> Tensor:
        return image


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda image: image, "a function isn't a torch module"),
        (Locked(), "Locked can't be copied: cannot pickle"),
        (nn.Conv2d(3, 300, 1), "has 300 outputs; networks with up to 255 are run"),
        (nn.LazyConv2d(2, 3), "LazyConv2d has layers without weights yet; run it once"),
    ],
)
def test_what_can_be_no_model(module: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        measure_module(module)


def test_outputs_are_as_many_as_classes() -> None:
    spec = spec_for(measure_module(alive(Hourglass(classes=2))))
    with pytest.raises(ModelError, match=r"Hourglass returns 3×.* its spec asks for 2×"):
        model_from_module(alive(Hourglass(classes=3)), spec)


@pytest.mark.parametrize(
    ("end", "classes", "head"),
    [(nn.Sigmoid(), 1, "sigmoid"), (nn.Sigmoid(), 2, "sigmoid"), (nn.Softmax(1), 2, "softmax")],
)
def test_a_head_is_not_applied_twice(end: nn.Module, classes: int, head: str) -> None:
    torch.set_num_threads(1)
    bare = alive(Hourglass(classes=classes))
    whole = nn.Sequential(bare, end)
    architecture = measure_module(whole)
    changes = {"head": head, "background": "a" if head == "softmax" else None}
    with pytest.raises(ModelError, match=rf"a {head} already: .* activated=True"):
        model_from_module(whole, spec_for(architecture, **changes))
    with pytest.raises(ModelError, match=r"no probabilities .* activated=False"):
        model_from_module(bare, spec_for(architecture, activated=True, **changes))
    model_from_module(whole, spec_for(architecture, activated=True, **changes))
    model_from_module(bare, spec_for(architecture, **changes))
