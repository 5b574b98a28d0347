"""The package's public names; specs and costs don't need torch."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import import_module

import pytest

import wsi_unet.models


def test_everything_exported_is_there() -> None:
    for name in wsi_unet.models.__all__:
        assert getattr(wsi_unet.models, name) is not None
    assert sorted(wsi_unet.models.__all__) == wsi_unet.models.__all__


def test_specs_and_costs_need_no_torch(tmp_path: object) -> None:
    code = """
import sys
from wsi_unet.models import UNetConfig, bundled_models, read_spec
from wsi_unet.models.architectures.costs import tile_memory, window_flops
for name in bundled_models():
    read_spec(name).border()
tile_memory(UNetConfig(), 512)
assert "torch" not in sys.modules, "torch was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    "module",
    [
        "model",
        "saving",
        "architectures.reach",
        "architectures.unet",
        "networks.build",
        "importing.hints",
        "importing.imported_spec",
    ],
)
def test_examples_in_docstrings_hold(module: str) -> None:
    results = doctest.testmod(import_module(f"wsi_unet.models.{module}"))
    assert results.attempted
    assert not results.failed
