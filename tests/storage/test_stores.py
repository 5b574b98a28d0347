"""Properties that hold for every store, in a folder or in a bucket."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wsi_unet.storage.keys import LOCK_KEY
from wsi_unet.storage.opening import open_store
from wsi_unet.storage.store import ByteStore


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "out.ome.zarr")
    return f"{request.getfixturevalue('bucket')}/some folder/out.ome.zarr"


@pytest.fixture
def store(location: str) -> ByteStore:
    return open_store(location)


def test_they_are_picklable_and_named_after_their_place(store: ByteStore, location: str) -> None:
    assert str(store) == location
    store.put("a", b"x")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"x"
    assert open_store(f"{location}/") == store


def test_what_is_put_is_there(store: ByteStore) -> None:
    key = "labels/ü #1?%41/0"
    assert store.get(key) is None
    assert store.size(key) is None
    store.put(key, b"first")
    store.put(key, b"second")
    assert store.get(key) == b"second"
    assert store.size(key) == 6
    assert list(store.list("")) == [key]
    store.delete(key)
    store.delete(key)
    store.delete(f"{key}/below")
    assert store.get(key) is None
    assert list(store.list("")) == []


def test_large_objects_are_put_whole(store: ByteStore) -> None:
    data = bytes(range(256)) * (12 << 12)
    store.put("large", data)
    assert store.get("large") == data


def test_keys_are_listed_by_folder(store: ByteStore) -> None:
    for key in ("b/2", "b/1", "a", "b/c/3", "bb"):
        store.put(key, b"x")
    assert sorted(store.list("")) == ["a", "b/1", "b/2", "b/c/3", "bb"]
    assert list(store.list("b")) == ["b/1", "b/2", "b/c/3"]
    store.put("b/2", b"longer")
    assert list(store.list_sizes("b")) == [("b/1", 1), ("b/2", 6), ("b/c/3", 1)]
    assert list(store.list("nothing")) == []


def test_thousands_of_keys_are_listed_and_removed(store: ByteStore) -> None:
    keys = [f"blocks/{number:04}.json" for number in range(1100)]  # S3 lists 1000 at a time
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), keys))
    assert list(store.list("blocks")) == keys
    store.delete_all("blocks")
    assert list(store.list("")) == []


def test_a_folder_is_removed_whole(store: ByteStore) -> None:
    for key in ("b/2", "b/c/3", "bb/1"):
        store.put(key, b"x")
    store.delete_all("b")
    store.delete_all("b")
    assert list(store.list("")) == ["bb/1"]


def test_an_object_is_created_once(store: ByteStore) -> None:
    assert store.create(LOCK_KEY, b"mine")
    assert not store.create(LOCK_KEY, b"yours")
    assert store.get(LOCK_KEY) == b"mine"


def test_an_object_is_swapped_only_if_it_is_what_was_expected(store: ByteStore) -> None:
    assert not store.swap(LOCK_KEY, b"anything", b"new")
    assert store.create(LOCK_KEY, b"old")
    assert not store.swap(LOCK_KEY, b"other", b"new")
    assert not store.swap(LOCK_KEY, b"other", None)
    assert store.get(LOCK_KEY) == b"old"
    assert store.swap(LOCK_KEY, b"old", b"new")
    assert store.get(LOCK_KEY) == b"new"


def test_what_is_swapped_for_nothing_is_gone_and_can_be_created_again(store: ByteStore) -> None:
    assert store.create(LOCK_KEY, b"old")
    assert store.swap(LOCK_KEY, b"old", None)
    assert store.get(LOCK_KEY) is None
    assert store.size(LOCK_KEY) is None
    assert list(store.list("")) == []
    assert not store.swap(LOCK_KEY, b"old", b"new")
    assert store.create(LOCK_KEY, b"new")
    assert not store.create(LOCK_KEY, b"newer")
    assert store.get(LOCK_KEY) == b"new"


@pytest.mark.parametrize("before", [None, b"gone"])
def test_of_many_creators_one_wins(store: ByteStore, before: bytes | None) -> None:
    if before is not None:
        assert store.create(LOCK_KEY, before)
        assert store.swap(LOCK_KEY, before, None)
    offers = [b"by %d" % number for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda offer: store.create(LOCK_KEY, offer), offers))
    assert won.count(True) == 1
    assert store.get(LOCK_KEY) == offers[won.index(True)]


def test_no_swap_is_lost(store: ByteStore) -> None:
    store.create("count", b"0")

    def count(times: int) -> None:
        while times:
            found = store.get("count")
            assert found is not None
            times -= store.swap("count", found, b"%d" % (int(found) + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, [10] * 4))
    assert store.get("count") == b"40"


def test_cleaning_leaves_the_objects(store: ByteStore) -> None:
    store.remove_leftovers()
    store.put("a", b"x")
    store.remove_leftovers()
    assert list(store.list("")) == ["a"]
    free = store.free_bytes()
    assert free is None or free > 1 << 20


def test_opening_touches_nothing(store: ByteStore) -> None:
    assert list(store.list("")) == []
    for look in (store.get, store.size):
        found: Callable[[str], object] = look
        assert found("zarr.json") is None
