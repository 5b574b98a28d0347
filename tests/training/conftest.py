"""Fixtures of training tests: a trained model to copy, and one thread for PyTorch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.training import small_recipe, train_small


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that `small_recipe()` was trained to; copy it before writing to it."""
    model = tmp_path_factory.mktemp("trained") / "model"
    train_small(small_recipe(), model)
    return model


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the trained model."""
    return Path(shutil.copytree(trained, tmp_path / "model"))
