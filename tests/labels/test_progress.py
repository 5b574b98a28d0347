from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsi_unet.errors import OutputError
from wsi_unet.labels.progress import BlockFailure, BlockMarker, Progress, RunRecord, ShardRecord
from wsi_unet.storage.local_store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


@pytest.fixture
def progress(store: LocalStore) -> Progress:
    return Progress(store, "nuclei")


def a_marker(store: LocalStore, index: tuple[int, int] = (3, 12)) -> BlockMarker:
    """Return a marker of one shard with an object and one without."""
    key = f"labels/nuclei/0/c/{index[0]}/{index[1]}"
    store.put(key, b"some shard")
    shards = {
        key: ShardRecord.from_shard(b"some shard"),
        key.replace("/0/c", "/1/c"): ShardRecord.from_shard(None),
    }
    return BlockMarker(
        block=index,
        signature="s",
        counts=(5, 0, 7),
        predicted=12,
        seconds={"read": 0.5},
        attempts=1,
        shards=shards,
    )


A_RUN = RunRecord(
    name="nuclei",
    signature="ab12",
    parameters={"mpp": 0.5, "outputs": ["labels"]},
    created="2026-01-02T03:04:05+00:00",
)


def test_a_run_is_remembered(progress: Progress) -> None:
    assert progress.read_run() is None
    progress.write_run(A_RUN)
    assert progress.read_run() == A_RUN


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format_version": 2}', b"\xff\xfe"])
def test_a_damaged_run_is_one_clear_line(
    store: LocalStore, progress: Progress, damage: bytes
) -> None:
    store.put(".wsi_unet/nuclei/run.json", damage)
    with pytest.raises(OutputError, match=r"run\.json is damaged.*`overwrite=True`") as caught:
        progress.read_run()
    assert "\n" not in str(caught.value)


def test_a_marker_is_remembered(store: LocalStore, progress: Progress) -> None:
    marker = a_marker(store)
    assert progress.read_marker((3, 12), "s") is None
    progress.write_marker(marker)
    assert progress.read_marker((3, 12), "s") == marker
    assert list(progress.read_markers("s")) == [marker]
    assert list(Progress(store, "image").read_markers("s")) == []
    stored = json.loads(store.get(".wsi_unet/nuclei/blocks/3.12.json") or b"")
    assert stored["format_version"] == 1
    assert stored["shards"]["labels/nuclei/1/c/3/12"] == {"length": 0, "sha256": None}


@given(st.integers(0, 400), st.binary(max_size=3))
def test_a_torn_marker_is_no_marker(
    tmp_path_factory: pytest.TempPathFactory, kept: int, more: bytes
) -> None:
    store = LocalStore(tmp_path_factory.mktemp("out"))
    progress = Progress(store, "nuclei")
    progress.write_marker(a_marker(store))
    key = ".wsi_unet/nuclei/blocks/3.12.json"
    whole = store.get(key)
    assert whole is not None
    torn = whole[: min(kept, len(whole) - 1)] + more
    store.put(key, torn)
    if torn.strip() != whole:
        assert progress.read_marker((3, 12), "s") is None
        assert list(progress.read_markers("s")) == []


def test_a_marker_of_another_version_or_block_is_no_marker(
    store: LocalStore, progress: Progress
) -> None:
    progress.write_marker(a_marker(store))
    whole = store.get(".wsi_unet/nuclei/blocks/3.12.json") or b""
    store.put(".wsi_unet/nuclei/blocks/0.0.json", whole)
    assert progress.read_marker((0, 0), "s") is None
    assert [marker.block for marker in progress.read_markers("s")] == [(3, 12)]
    newer = whole.replace(b'"format_version":1', b'"format_version":2')
    store.put(".wsi_unet/nuclei/blocks/3.12.json", newer)
    assert progress.read_marker((3, 12), "s") is None


def test_shards_are_looked_for_and_checked(store: LocalStore, progress: Progress) -> None:
    marker = a_marker(store)
    key, empty = marker.shards
    assert progress.shards_exist(marker)
    assert progress.shards_intact(marker)

    store.put(key, b"other bytes"[:10])
    assert progress.shards_exist(marker)
    assert not progress.shards_intact(marker)

    store.put(key, b"torn")
    assert not progress.shards_exist(marker)
    assert not progress.shards_intact(marker)

    store.delete(key)
    assert not progress.shards_exist(marker)
    assert not progress.shards_intact(marker)

    store.put(key, b"some shard")
    store.put(empty, b"stale")
    assert not progress.shards_exist(marker)
    assert not progress.shards_intact(marker)


def test_many_markers_are_checked_as_each_of_them_is(store: LocalStore, progress: Progress) -> None:
    sound, longer, other, gone, stale = (a_marker(store, (0, j)) for j in range(5))
    store.put("labels/nuclei/0/c/0/1", b"some longer shard")
    store.put("labels/nuclei/0/c/0/2", b"other bytes"[:10])
    store.delete("labels/nuclei/0/c/0/3")
    store.put("labels/nuclei/1/c/0/4", b"stale")
    markers = [stale, sound, longer, other, gone]
    for contents, exists in ((False, progress.shards_exist), (True, progress.shards_intact)):
        found = list(progress.check_shards(iter(markers), contents=contents))
        assert found == [(marker, exists(marker)) for marker in markers]
    assert [good for _, good in progress.check_shards(markers)] == [False, True, False, True, False]
    assert list(progress.check_shards([])) == []


def test_a_block_fails_until_it_is_done(store: LocalStore, progress: Progress) -> None:
    failure = BlockFailure(block=(3, 12), error="the slide went away", attempts=2)
    progress.write_failure(failure)
    assert list(progress.read_failures()) == [failure]
    progress.write_marker(a_marker(store))
    assert list(progress.read_failures()) == []
    assert progress.read_marker((3, 12), "s") is not None


def test_a_forgotten_block_is_computed_again(store: LocalStore, progress: Progress) -> None:
    progress.write_marker(a_marker(store))
    progress.write_failure(BlockFailure(block=(3, 12), error="damaged", attempts=1))
    progress.forget_block((3, 12))
    progress.forget_block((3, 12))
    assert progress.read_marker((3, 12), "s") is None
    assert list(progress.read_failures()) == []
    assert store.get("labels/nuclei/0/c/3/12") == b"some shard"


@pytest.mark.parametrize("shape", [(1, 1), (31, 17), (300, 8)])
def test_the_mask_is_remembered(progress: Progress, shape: tuple[int, int]) -> None:
    assert progress.read_mask() is None
    mask = np.random.default_rng(0).random(shape) < 0.5
    progress.write_mask(mask)
    stored = progress.read_mask()
    assert stored is not None
    assert stored.dtype == bool
    assert np.array_equal(stored, mask)


def test_a_mask_beyond_pillows_limit_is_read(
    progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.random.default_rng(0).random((90, 70)) < 0.5
    progress.write_mask(mask)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # refused from twice that on
    stored = progress.read_mask()
    assert stored is not None
    assert np.array_equal(stored, mask)
    monkeypatch.setattr("wsi_unet.labels.progress.MOST_MASK_CELLS", 1000)
    with pytest.raises(OutputError, match=r"mask\.png is damaged.*`overwrite=True`"):
        progress.read_mask()


def test_a_damaged_mask_is_one_clear_line(store: LocalStore, progress: Progress) -> None:
    progress.write_mask(np.ones((50, 60), bool))
    key = ".wsi_unet/nuclei/mask.png"
    whole = store.get(key)
    assert whole is not None
    for damage in (b"", b"no picture", whole[:40], whole[: len(whole) // 2]):
        store.put(key, damage)
        with pytest.raises(OutputError, match=r"mask\.png is damaged.*`overwrite=True`"):
            progress.read_mask()


def test_the_tail_is_remembered(store: LocalStore, progress: Progress) -> None:
    assert progress.read_tail("s") is None
    store.put("labels/nuclei/4/c/0/0", b"tail")
    progress.write_tail({"labels/nuclei/4/c/0/0": ShardRecord.from_shard(b"tail")}, "s")
    tail = progress.read_tail("s")
    assert tail is not None
    assert progress.shards_intact(tail)
    assert list(progress.read_markers("s")) == []


def test_clearing_leaves_other_files_and_other_runs(store: LocalStore, progress: Progress) -> None:
    other = Progress(store, "other")
    for each in (progress, other):
        each.write_run(A_RUN)
        each.write_mask(np.ones((2, 2), bool))
        each.write_marker(a_marker(store))
        each.write_failure(BlockFailure(block=(0, 0), error="x", attempts=1))
        each.write_tail({}, "s")
    store.put(".wsi_unet/nuclei/lock", b"")
    progress.clear()
    assert list(store.list(".wsi_unet/nuclei")) == [".wsi_unet/nuclei/lock"]
    assert len(list(store.list(".wsi_unet/other"))) == 5


def test_no_marker_outlives_its_run(
    store: LocalStore, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress.write_run(A_RUN)
    progress.write_marker(a_marker(store))

    def fail(self: LocalStore, key: str) -> None:
        raise OutputError("interrupted")

    monkeypatch.setattr(LocalStore, "delete", fail)
    with pytest.raises(OutputError, match="interrupted"):
        progress.clear()
    assert list(progress.read_markers("s")) == []
    assert progress.read_run() == A_RUN
