"""Fixtures of the tests of interrupted, damaged and repeated runs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.oracle import balanced_model, textured, write_png
from support.runs import CONFIG, Study

SHAPE = (1700, 1300)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return a study of four by three blocks with the first model's run; read-only."""
    image = textured(*SHAPE)
    study = Study(tmp_path_factory.mktemp("study"), blocks=4 * 3)
    write_png(study.slide, image)
    balanced_model(CONFIG, image, study.folder / "model")
    balanced_model(CONFIG, image, study.folder / "other", seed=1)
    assert study.run(study.whole).state == "finished"
    return study


@pytest.fixture(scope="session")
def small_image() -> NDArray[np.uint8]:
    return textured(1100, 1100)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, small_image: NDArray[np.uint8]) -> Study:
    """Return a study of three by three blocks without a run; read-only."""
    small = Study(tmp_path_factory.mktemp("small"), blocks=3 * 3)
    write_png(small.slide, small_image)
    balanced_model(CONFIG, small_image, small.folder / "model")
    return small
