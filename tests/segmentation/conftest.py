"""What the tests of interrupted, damaged and repeated runs share."""

from __future__ import annotations

import pytest
from support.oracle import balanced_model, textured, write_png
from support.runs import Study

from wsi_unet.models import UNetConfig

SHAPE = (1700, 1300)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Four by three blocks; only the first model's run is there, and nobody may change it."""
    image = textured(*SHAPE)
    study = Study(tmp_path_factory.mktemp("study"), blocks=4 * 3)
    write_png(study.slide, image)
    config = UNetConfig(depth=2, base_width=4)
    balanced_model(config, image, study.folder / "model")
    balanced_model(config, image, study.folder / "other", seed=1)
    assert study.run(study.whole).state == "finished"
    return study
