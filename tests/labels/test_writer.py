from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from support import warm

from wsi_unet.errors import OutputError
from wsi_unet.geometry import Box
from wsi_unet.labels.layout import create_labels, ensure_root
from wsi_unet.labels.metadata import Frame
from wsi_unet.labels.progress import BlockMarker, Progress
from wsi_unet.labels.pyramid import Pyramid, reduce_mean, reduce_mode
from wsi_unet.labels.shards import ShardRecord
from wsi_unet.labels.writer import build_tail, read_box, write_block
from wsi_unet.locations import Location
from wsi_unet.storage.local_store import LocalStore
from wsi_unet.storage.store import MOST_BYTES

SHAPE = (1300, 1100)
GROUP = "labels/nuclei"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


@pytest.fixture
def pyramid() -> Pyramid:
    return Pyramid(SHAPE, 1024)


@pytest.fixture
def labels() -> NDArray[np.uint8]:
    return (np.random.default_rng(0).random(SHAPE) * 3).astype(np.uint8)


@dataclass
class DictStore:
    """A store in a dictionary."""

    data: dict[str, bytes] = field(default_factory=dict)

    @property
    def location(self) -> Location:
        return Location("memory")

    def get(self, key: str, most: int = MOST_BYTES) -> bytes | None:
        return self.data.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.data[key] = data

    def create(self, key: str, data: bytes) -> bool:
        return self.data.setdefault(key, data) is data

    def swap(self, key: str, expected: bytes, data: bytes | None) -> bool:
        raise NotImplementedError

    def list_sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        return ((key, len(self.data[key])) for key in self.list(prefix))

    def remove_leftovers(self) -> None:
        pass

    def free_bytes(self) -> int | None:
        return None

    def size(self, key: str) -> int | None:
        return len(self.data[key]) if key in self.data else None

    def delete(self, key: str) -> None:
        self.data.pop(key, None)

    def delete_all(self, prefix: str) -> None:
        for key in list(self.list(prefix)):
            del self.data[key]

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self.data if key.startswith(prefix)))


def write(
    store: LocalStore, pyramid: Pyramid, labels: NDArray[np.uint8], index: tuple[int, int]
) -> dict[str, ShardRecord]:
    part = labels[pyramid.grid.core(index).slices()]
    return write_block(store, GROUP, pyramid, index, part, reduce_mode)


def lay_out(store: LocalStore, pyramid: Pyramid) -> None:
    ensure_root(store, {})
    create_labels(store, "nuclei", pyramid, Frame.from_downsample((1, 1), None), [], {})


def read(store: LocalStore, level: int) -> NDArray[np.uint8]:
    stored = zarr.open_array(store.root, path=f"{GROUP}/{level}", mode="r")
    return np.asarray(stored[...], np.uint8)


@pytest.mark.parametrize("block", [512, 1024, 4096])
@pytest.mark.parametrize("shape", [SHAPE, (513, 3), (1, 1), (2048, 512)])
def test_blocks_and_tail_make_the_pyramid_of_the_whole(
    store: LocalStore, block: int, shape: tuple[int, int]
) -> None:
    pyramid = Pyramid(shape, block, 5)
    expected = (np.random.default_rng(0).random(shape) * 3).astype(np.uint8)
    lay_out(store, pyramid)
    records: dict[str, ShardRecord] = {}
    for index in pyramid.grid:
        records |= write(store, pyramid, expected, index)
    records |= build_tail(store, GROUP, pyramid, reduce_mode)
    for level in range(5):
        assert np.array_equal(read(store, level), expected)
        box = Box.from_shape(expected.shape)
        assert np.array_equal(read_box(store, GROUP, pyramid, level, box), expected)
        expected = reduce_mode(expected)
    for key, record in records.items():
        data = store.get(key)
        assert ShardRecord.from_shard(data) == record
    shards = [key for key in store.list(GROUP) if "/c/" in key]
    assert sorted(shards) == sorted(key for key, record in records.items() if not record.empty)


def test_channels_are_reduced_by_the_mean(store: LocalStore) -> None:
    pyramid = Pyramid((700, 900), 512)
    expected = np.random.default_rng(0).integers(0, 256, (3, 700, 900), np.uint8)
    for index in pyramid.grid:
        rows, columns = pyramid.grid.core(index).slices()
        write_block(store, "", pyramid, index, expected[:, rows, columns], reduce_mean)
    build_tail(store, "", pyramid, reduce_mean, 3)
    assert store.size("0/c/0/1/1") is not None
    for level in range(pyramid.levels):
        box = Box.from_shape(pyramid.level_shape(level))
        assert np.array_equal(read_box(store, "", pyramid, level, box, 3), expected)
        expected = reduce_mean(expected)


def test_a_box_is_read_from_the_shards_it_touches(
    store: LocalStore, labels: NDArray[np.uint8]
) -> None:
    pyramid = Pyramid(SHAPE, 512)
    for index in pyramid.grid:
        write(store, pyramid, labels, index)
    box = Box(500, 3, 1100, 1030)
    assert np.array_equal(read_box(store, GROUP, pyramid, 0, box), labels[box.slices()])


@pytest.mark.parametrize("shape", [(1024, 1024), (276, 1100), (275, 76), (3, 4, 276, 76)])
def test_only_exactly_a_block_is_written(
    store: LocalStore, pyramid: Pyramid, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="exactly its own block"):
        write_block(store, GROUP, pyramid, (1, 1), np.zeros(shape, np.uint8), reduce_mode)
    wrong = np.zeros((276, 76))
    with pytest.raises(ValueError, match="float64"):
        write_block(store, GROUP, pyramid, (1, 1), wrong, reduce_mode)  # type: ignore[arg-type, type-var]
    with pytest.raises(IndexError, match="no block"):
        write_block(store, GROUP, pyramid, (2, 0), np.zeros(shape, np.uint8), reduce_mode)
    assert not store.root.exists()


def test_blocks_never_share_an_object(store: LocalStore, labels: NDArray[np.uint8]) -> None:
    pyramid = Pyramid(SHAPE, 512)
    written: list[str] = []
    for index in pyramid.grid:
        written += write(store, pyramid, labels + 1, index)
    written += build_tail(store, GROUP, pyramid, reduce_mode)
    assert len(written) == len(set(written))
    assert sorted(written) == list(store.list(GROUP))


@pytest.mark.parametrize("index", [(0, 0), (1, 1)])
@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_torn_shard_is_noticed_and_replaced(
    store: LocalStore,
    pyramid: Pyramid,
    labels: NDArray[np.uint8],
    index: tuple[int, int],
    kept: int,
) -> None:
    lay_out(store, pyramid)
    for block in pyramid.grid:
        records = write(store, pyramid, labels, block)
        marker = BlockMarker(
            block=block, signature="s", counts=(), seconds={}, attempts=1, shards=records
        )
        Progress(store, "nuclei").write_marker(marker)
    key = f"{GROUP}/0/c/{index[0]}/{index[1]}"
    whole = store.get(key)
    assert whole is not None
    (store.root / key).write_bytes(whole[:kept])

    progress = Progress(store, "nuclei")
    torn = progress.read_marker(index, "s")
    assert torn is not None
    assert not progress.shards_exist(torn)
    assert not progress.shards_intact(torn)
    with pytest.raises(OutputError, match=r"damaged index.*verify=True"):
        read_box(store, GROUP, pyramid, 0, pyramid.grid.core(index))

    assert write(store, pyramid, labels, index) == torn.shards
    assert store.get(key) == whole
    assert progress.shards_intact(torn)
    assert np.array_equal(read(store, 0), labels)


def test_a_torn_shard_stops_the_tail(store: LocalStore, labels: NDArray[np.uint8]) -> None:
    pyramid = Pyramid(SHAPE, 512)
    for index in pyramid.grid:
        write(store, pyramid, labels, index)
    (store.root / GROUP / "0/c/1/1").write_bytes(b"torn")
    with pytest.raises(OutputError, match="'labels/nuclei/0/c/1/1' is a shard with a damaged"):
        build_tail(store, GROUP, pyramid, reduce_mode)


def test_a_background_block_removes_what_was_there(
    store: LocalStore, pyramid: Pyramid, labels: NDArray[np.uint8]
) -> None:
    write(store, pyramid, labels, (1, 0))
    assert list(store.list(GROUP))
    records = write(store, pyramid, np.zeros(SHAPE, np.uint8), (1, 0))
    assert list(records) == [f"{GROUP}/0/c/1/0", f"{GROUP}/1/c/1/0"]
    assert all(record.empty for record in records.values())
    assert list(store.list(GROUP)) == []


def test_a_lone_pixel_leaves_coarse_levels_without_objects(
    store: LocalStore, pyramid: Pyramid
) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[700, 5] = 2
    records = write(store, pyramid, labels, (0, 0))
    assert [record.empty for record in records.values()] == [False, True]


def test_the_tail_is_rebuilt_byte_for_byte(store: LocalStore, labels: NDArray[np.uint8]) -> None:
    pyramid = Pyramid(SHAPE, 512)
    for index in pyramid.grid:
        write(store, pyramid, labels, index)
    first = build_tail(store, GROUP, pyramid, reduce_mode)
    assert build_tail(store, GROUP, pyramid, reduce_mode) == first
    assert len(first) == pyramid.levels - 1


def test_the_tail_needs_memory_for_one_shard_only() -> None:
    store = DictStore()
    pyramid = Pyramid((512 * 40, 512 * 40), 512)
    block = np.zeros((512, 512), np.uint8)
    block[::3] = 1
    for index in pyramid.grid:
        if sum(index) % 2:
            write_block(store, GROUP, pyramid, index, block, reduce_mode)
    tracemalloc.start()
    try:
        build_tail(store, GROUP, pyramid, reduce_mode)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3.5 * 4096 * 4096, "the whole level would be 25 of these"


def test_a_block_written_twice_at_once_is_right(
    store: LocalStore, pyramid: Pyramid, labels: NDArray[np.uint8]
) -> None:
    lay_out(store, pyramid)
    expected = write(store, pyramid, labels, (0, 0))
    results: list[dict[str, ShardRecord]] = []
    threads = [
        threading.Thread(target=lambda: results.append(write(store, pyramid, labels, (0, 0))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4
    assert all(ShardRecord.from_shard(store.get(key)) == record for key, record in expected.items())


WRITE_BLOCKS = """
import sys
import numpy as np
from wsi_unet.storage.opening import open_store
from wsi_unet.labels.pyramid import Pyramid, reduce_mode
from wsi_unet.labels.writer import write_block
store, pyramid = open_store(sys.argv[1]), Pyramid((1300, 1100), 1024)
labels = (np.random.default_rng(0).random(pyramid.shape) * 3).astype(np.uint8)
print("ready", flush=True)
while True:
    for index in pyramid.grid:
        part = labels[pyramid.grid.core(index).slices()]
        write_block(store, "labels/nuclei", pyramid, index, part, reduce_mode)
"""


def test_a_killed_writer_leaves_what_can_be_read(
    store: LocalStore, pyramid: Pyramid, labels: NDArray[np.uint8]
) -> None:
    lay_out(store, pyramid)
    moments = random.Random(1)
    for _ in range(3):
        command = [sys.executable, "-c", WRITE_BLOCKS, str(store.root)]
        # The same blocks are written here at the same time: one writer dies, one doesn't.
        with warm.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            end = time.monotonic() + moments.uniform(0.01, 0.15)
            while time.monotonic() < end:
                write(store, pyramid, labels, (1, 1))
            process.send_signal(signal.SIGKILL)
            process.wait()
        stored = read(store, 0)
        for index in pyramid.grid:
            rows, columns = pyramid.grid.core(index).slices()
            block = stored[rows, columns]
            assert not block.any() or np.array_equal(block, labels[rows, columns])
    store.remove_leftovers()
    for index in pyramid.grid:
        write(store, pyramid, labels, index)
    assert np.array_equal(read(store, 0), labels)
    group = zarr.open_group(store.root, mode="r")
    assert {name for name, _ in group.members(max_depth=None)} >= {"labels/nuclei/0"}
