"""The coordinate `predicted` of open labels: where 0 means background."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.base import is_dask_collection
from numpy.typing import NDArray
from support.labelled import blobs, write_store

from wsi_unet.errors import OutputError
from wsi_unet.labels.progress import BlockMarker, Progress
from wsi_unet.labels.reading import open_labels
from wsi_unet.predicted_area import PredictedArea
from wsi_unet.storage.local_store import LocalStore

SHAPE = (1100, 1300)
REGIONS = [[0, 0, 513, 511], [700, 301, 1100, 1205]]


def in_regions() -> NDArray[np.bool_]:
    inside = np.zeros(SHAPE, bool)
    for y0, x0, y1, x1 in REGIONS:
        inside[y0:y1, x0:x1] = True
    return inside


def reduce_any(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(pixels, [(0, side % 2) for side in pixels.shape])
    rows = padded[::2] | padded[1::2]
    result: NDArray[np.bool_] = rows[:, ::2] | rows[:, 1::2]
    return result


def stretch(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = (
        (np.arange(side) + 0.5) * cells / side
        for side, cells in zip(SHAPE, mask.shape, strict=True)
    )
    result: NDArray[np.bool_] = mask[rows.astype(int)[:, None], columns.astype(int)]
    return result


@pytest.mark.parametrize("regions", [None, REGIONS], ids=["whole", "regions"])
@pytest.mark.parametrize("cells", [None, (11, 13), (70, 41), (2000, 1999)], ids=str)
def test_every_level_says_where_the_model_looked(
    tmp_path: Path, regions: Any, cells: tuple[int, int] | None
) -> None:
    tissue = None if cells is None else np.random.default_rng(1).random(cells) < 0.3
    expected = in_regions() if regions else np.ones(SHAPE, bool)
    if tissue is not None:
        expected &= stretch(tissue)
    write_store(tmp_path / "s", blobs(SHAPE) * expected, regions=regions, tissue=tissue)
    for level in range(open_labels(tmp_path / "s").attrs["levels"]):
        labels = open_labels(tmp_path / "s", level=level)
        assert labels.predicted.dims == ("y", "x")
        assert labels.predicted.dtype == bool
        assert labels.predicted.chunks == labels.chunks
        assert np.array_equal(labels.predicted.values, expected)
        assert not labels.values[~expected].any(), "what has a class was predicted"
        expected = reduce_any(expected)


def test_it_is_lazy_and_goes_along_with_a_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "s", blobs(SHAPE), regions=REGIONS, mpp=(0.5, 0.5))
    reads = []
    read = PredictedArea.read

    def watched(self: PredictedArea, box: Any, level: int = 0) -> Any:
        reads.append(box.area)
        return read(self, box, level)

    monkeypatch.setattr(PredictedArea, "read", watched)
    labels = open_labels(tmp_path / "s")
    assert is_dask_collection(labels.predicted)
    piece = labels.sel(y=slice(250, 260), x=slice(240, 300))
    same = labels == open_labels(tmp_path / "s")
    assert is_dask_collection(same.predicted)
    assert not reads
    inside = in_regions()
    assert np.array_equal(piece.predicted.values, inside[500:521, 480:601])
    assert sum(reads) == piece.size, "nothing is computed but what is selected"
    for key in (np.s_[::7, 5], np.s_[::-3], np.s_[3:3], np.s_[[900, 2, 2], 300:400:9], np.s_[-1]):
        assert np.array_equal(labels[key].predicted.values, inside[key])
        assert np.array_equal(labels[key].values, blobs(SHAPE)[key])
    kept = labels.where(labels.predicted)
    assert int(kept.notnull().sum()) == inside.sum()


@pytest.mark.parametrize("finished", [True, False])
def test_markers_are_read_once_and_only_when_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    write_store(tmp_path / "s", blobs(SHAPE), regions=REGIONS, finished=finished)
    reads = []
    read = Progress.read_markers

    def watched(self: Progress, signature: str) -> Any:
        reads.append(signature)
        return read(self, signature)

    monkeypatch.setattr(Progress, "read_markers", watched)
    labels = open_labels(tmp_path / "s")
    assert np.array_equal(labels.values, blobs(SHAPE))
    assert not reads
    assert np.array_equal(labels.predicted.values, in_regions())
    assert np.array_equal(labels[::3].predicted.values, in_regions()[::3])
    assert len(reads) == 1
    elsewhere = pickle.loads(pickle.dumps(labels))  # as another process gets it
    assert np.array_equal(elsewhere.predicted.values, in_regions())


def test_what_an_unfinished_run_has_predicted_is_compared_by_its_pixels(tmp_path: Path) -> None:
    write_store(tmp_path / "s", blobs(SHAPE), finished=False)
    before = open_labels(tmp_path / "s")
    assert (before == open_labels(tmp_path / "s")).predicted.all()
    assert before.predicted.all()
    Progress(LocalStore(tmp_path / "s"), "nuclei").forget_block((1, 0))
    assert "predicted" not in (before == open_labels(tmp_path / "s")).coords, "they differ"


def test_missing_blocks_of_an_unfinished_run_were_not_predicted(tmp_path: Path) -> None:
    write_store(tmp_path / "s", blobs(SHAPE), finished=False)
    progress = Progress(LocalStore(tmp_path / "s"), "nuclei")
    progress.forget_block((1, 0))
    progress.forget_block((2, 2))
    expected = np.ones(SHAPE, bool)
    expected[512:1024, :512] = expected[1024:, 1024:] = False
    assert np.array_equal(open_labels(tmp_path / "s").predicted.values, expected)
    every = reduce_any(reduce_any(expected))
    assert np.array_equal(open_labels(tmp_path / "s", level=2).predicted.values, every)


def test_markers_that_say_more_than_there_is_are_not_believed(tmp_path: Path) -> None:
    write_store(tmp_path / "s", blobs(SHAPE), regions=[[0, 0, 10, 10]])
    progress = Progress(LocalStore(tmp_path / "s"), "nuclei")
    facts: Any = {"signature": "0", "counts": (), "seconds": {}, "attempts": 1, "shards": {}}
    progress.write_marker(BlockMarker(block=(7, 7), **facts))
    beyond = ((0, 0, 1024, 600), (1024, 1024, 1050, 10**6))
    progress.write_marker(BlockMarker(block=(2, 2), boxes=beyond, **facts))
    progress.write_marker(BlockMarker(block=(1, 1), **(facts | {"signature": "another"})))
    expected = np.zeros(SHAPE, bool)
    expected[:10, :10] = expected[1024:1050, 1024:] = True
    assert np.array_equal(open_labels(tmp_path / "s").predicted.values, expected)


def test_nothing_is_said_where_nothing_is_known(tmp_path: Path) -> None:
    write_store(tmp_path / "s", blobs(SHAPE))
    shutil.rmtree(tmp_path / "s" / ".wsi_unet")
    labels = open_labels(tmp_path / "s")
    assert "predicted" not in labels.coords
    with pytest.raises(AttributeError, match="predicted"):
        _ = labels.predicted


@pytest.mark.parametrize("other", [None, np.ones((4, 5), bool)], ids=["none", "another"])
def test_a_mask_that_is_not_the_run_s_is_an_error(
    tmp_path: Path, other: NDArray[np.bool_] | None
) -> None:
    write_store(tmp_path / "s", blobs(SHAPE), tissue=np.eye(5, dtype=bool))
    mask = tmp_path / "s" / ".wsi_unet" / "nuclei" / "mask.png"
    mask.unlink()
    if other is not None:
        Progress(LocalStore(tmp_path / "s"), "nuclei").write_mask(other)
    with pytest.raises(OutputError, match=r"mask of 'nuclei' is missing or belongs to another"):
        open_labels(tmp_path / "s")
