"""A factory of small label stores whose pixels are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.labelled import write_store

StoreFactory = Callable[..., Path]


@pytest.fixture
def make_store(tmp_path: Path) -> StoreFactory:
    """Write labels as `segment` would have: one label group of a slide, finished."""

    def make(labels: NDArray[np.uint8], folder: str = "out.ome.zarr", **details: Any) -> Path:
        return write_store(tmp_path / folder, labels, **details)

    return make
