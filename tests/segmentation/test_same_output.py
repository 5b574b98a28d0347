"""A second run into an output: the same run, a larger one, or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.oracle import balanced_model, textured, write_png
from support.runs import OPTIONS, Study, array_objects, every_file, marker_times

import wsi_unet
from wsi_unet.errors import OutputError, SignatureError
from wsi_unet.labels.progress import Progress
from wsi_unet.models import UNetConfig
from wsi_unet.segmentation.status import run_status
from wsi_unet.segmentation.worker.task import Run, Task, run_task
from wsi_unet.storage.opening import open_store

SHAPE = (1700, 1300)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"model": "other"}, "model"),
        ({"outputs": ("labels", "probabilities")}, "outputs"),
        ({"precision": "bfloat16"}, "precision"),
        ({"block": 1024}, "block"),
        ({"tissue": "auto"}, "tissue"),
    ],
)
def test_another_run_is_refused_by_name_and_changes_nothing(
    study: Study, change: dict[str, Any], names: str
) -> None:
    before = every_file(study.whole)
    with pytest.raises(SignatureError, match=rf"another {names} .*`overwrite=True`"):
        study.run(study.whole, **change)
    assert every_file(study.whole) == before


def test_float32_may_resume_with_another_tile(study: Study, tmp_path: Path) -> None:
    output = tmp_path / "out"
    study.run(output, region=(0, 0, 1024, 1024))
    report = study.run(output, tile=256)
    assert report.state == "finished"
    assert report.blocks.resumed == 4


def test_another_slide_is_refused(study: Study, tmp_path: Path) -> None:
    slide = write_png(tmp_path / "other.png", textured(*SHAPE, seed=5))
    before = every_file(study.whole)
    with pytest.raises(SignatureError, match=r"holds another slide \(slide.png\)"):
        wsi_unet.segment(slide, study.whole, study.folder / "model", **OPTIONS)
    assert every_file(study.whole) == before


def test_overwrite_replaces(study: Study, tmp_path: Path) -> None:
    output = tmp_path / "out"
    study.run(output, "other")
    report = study.run(output, overwrite=True)
    assert report.blocks.resumed == 0
    assert array_objects(output) == array_objects(study.whole)


def test_overwrite_takes_another_slide_when_asked(study: Study, tmp_path: Path) -> None:
    output = study.finished(tmp_path / "out")
    image = textured(700, 600, seed=5)
    slide = write_png(tmp_path / "other.png", image)
    report = wsi_unet.segment(slide, output, study.folder / "model", overwrite=True, **OPTIONS)
    assert report.state == "finished"
    assert report.blocks.resumed == 0
    assert wsi_unet.open_labels(output).shape == (700, 600)
    fresh = tmp_path / "fresh"
    wsi_unet.segment(slide, fresh, study.folder / "model", **OPTIONS)
    assert array_objects(output) == array_objects(fresh)


def test_a_second_model_on_another_slide_is_refused_without_an_image_too(
    study: Study, tmp_path: Path
) -> None:
    """Nothing but the first label group then says which slide the output is about."""
    output = tmp_path / "out"
    study.run(output, image="none")
    image = textured(*SHAPE, seed=5)
    slide = write_png(tmp_path / "other.png", image)
    balanced_model(UNetConfig(depth=1, base_width=4), image, tmp_path / "model", name="second")
    before = every_file(output)
    with pytest.raises(SignatureError, match=r"another slide"):
        wsi_unet.segment(slide, output, tmp_path / "model", **OPTIONS)
    assert every_file(output) == before


def test_regions_grow_into_the_whole(study: Study, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = study.run(output, region=(700, 100, 10, 10))
    assert (first.blocks.total, first.blocks.done) == (1, 1)
    second = study.run(output, region=(0, 1024, 1024, 600))  # two blocks and parts of two
    assert (second.blocks.total, second.blocks.resumed) == (5, 1)
    whole = study.run(output)
    assert (whole.blocks.total, whole.blocks.resumed) == (study.blocks, 2)
    assert array_objects(output) == array_objects(study.whole)


def test_a_grown_region_is_unfinished_until_its_small_levels_are_built(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks are done when it dies; what was finished before is out of date."""
    from wsi_unet.segmentation.runs import execution

    output = tmp_path / "out"
    study.run(output, region=(700, 100, 10, 10))

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(execution, "complete_labels", die)
        with pytest.raises(Killed):
            study.run(output, region=(100, 1200, 500, 400))
    status = run_status(output)[0]
    assert status.blocks.done == status.blocks.total == 5
    assert status.state == "unfinished"
    assert wsi_unet.open_labels(output).attrs["finished"] is None
    report = study.run(output, region=(100, 1200, 500, 400))
    assert (report.state, report.blocks.resumed) == ("finished", 5)
    assert run_status(output)[0].state == "finished"
    assert wsi_unet.open_labels(output).attrs["finished"] is not None


def test_a_marker_of_another_run_does_not_count(study: Study, tmp_path: Path) -> None:
    """A straggler of the run before --overwrite may store its block late."""
    output, earlier = tmp_path / "out", tmp_path / "earlier"
    study.run(earlier, "other", image="none")
    study.run(output, image="none", region=(0, 0, 512, 512))
    key = "labels/random/0/c/1/1"
    (output / key).parent.mkdir(exist_ok=True)
    (output / key).write_bytes((earlier / key).read_bytes())
    marker = ".wsi_unet/random/blocks/1.1.json"
    (output / marker).write_bytes((earlier / marker).read_bytes())
    report = study.run(output, image="none")
    assert report.blocks.resumed == 1
    labels = {key: value for key, value in array_objects(study.whole).items() if "labels" in key}
    assert array_objects(output) == labels


@pytest.mark.parametrize("tissue", ["auto", "mask"])
def test_a_missing_mask_is_an_error_not_a_whole_slide_of_tissue(
    study: Study, tmp_path: Path, tissue: str
) -> None:
    output = tmp_path / "out"
    chosen = "auto"
    if tissue == "mask":
        chosen = str(tmp_path / "mask.png")
        Image.fromarray(np.eye(17, 13, dtype=bool)).save(chosen)
    study.run(output, tissue=chosen, region=(0, 0, 10, 10))
    progress = Progress(open_store(output), "random")
    record = progress.read_run()
    assert record is not None
    (output / ".wsi_unet/random/mask.png").unlink()
    run = Run(str(output), "random", record.signature, "mine")
    before = marker_times(output)
    with pytest.raises(OutputError, match=r"mask"):
        run_task(Task(run, (1, 1)))
    assert marker_times(output) == before
