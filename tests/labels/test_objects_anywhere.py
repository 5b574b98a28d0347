"""What holds of objects wherever they are: in a folder, or in a bucket."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wsi_unet.storage.store import LOCK_KEY, Objects, open_objects


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "out.ome.zarr")
    return f"{request.getfixturevalue('bucket')}/some folder/out.ome.zarr"


@pytest.fixture
def objects(location: str) -> Objects:
    return open_objects(location)


def test_they_are_picklable_and_named_after_their_place(objects: Objects, location: str) -> None:
    assert str(objects) == location
    objects.put("a", b"x")
    assert pickle.loads(pickle.dumps(objects)).get("a") == b"x"
    assert open_objects(f"{location}/") == objects


def test_what_is_put_is_there(objects: Objects) -> None:
    key = "labels/ü #1?%41/0"
    assert objects.get(key) is None
    assert objects.size(key) is None
    objects.put(key, b"first")
    objects.put(key, b"second")
    assert objects.get(key) == b"second"
    assert objects.size(key) == 6
    assert list(objects.list("")) == [key]
    objects.delete(key)
    objects.delete(key)
    objects.delete(f"{key}/below")
    assert objects.get(key) is None
    assert list(objects.list("")) == []


def test_large_objects_are_put_whole(objects: Objects) -> None:
    data = bytes(range(256)) * (12 << 12)
    objects.put("large", data)
    assert objects.get("large") == data


def test_keys_are_listed_by_folder(objects: Objects) -> None:
    for key in ("b/2", "b/1", "a", "b/c/3", "bb"):
        objects.put(key, b"x")
    assert sorted(objects.list("")) == ["a", "b/1", "b/2", "b/c/3", "bb"]
    assert list(objects.list("b")) == ["b/1", "b/2", "b/c/3"]
    objects.put("b/2", b"longer")
    assert list(objects.sizes("b")) == [("b/1", 1), ("b/2", 6), ("b/c/3", 1)]
    assert list(objects.list("nothing")) == []


def test_thousands_of_keys_are_listed_and_removed(objects: Objects) -> None:
    keys = [f"blocks/{number:04}.json" for number in range(1100)]  # S3 lists 1000 at a time
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: objects.put(key, b"x"), keys))
    assert list(objects.list("blocks")) == keys
    objects.delete_all("blocks")
    assert list(objects.list("")) == []


def test_a_folder_is_removed_whole(objects: Objects) -> None:
    for key in ("b/2", "b/c/3", "bb/1"):
        objects.put(key, b"x")
    objects.delete_all("b")
    objects.delete_all("b")
    assert list(objects.list("")) == ["bb/1"]


def test_an_object_is_created_once(objects: Objects) -> None:
    assert objects.create(LOCK_KEY, b"mine")
    assert not objects.create(LOCK_KEY, b"yours")
    assert objects.get(LOCK_KEY) == b"mine"


def test_an_object_is_swapped_only_if_it_is_what_was_expected(objects: Objects) -> None:
    assert not objects.swap(LOCK_KEY, b"anything", b"new")
    assert objects.create(LOCK_KEY, b"old")
    assert not objects.swap(LOCK_KEY, b"other", b"new")
    assert not objects.swap(LOCK_KEY, b"other", None)
    assert objects.get(LOCK_KEY) == b"old"
    assert objects.swap(LOCK_KEY, b"old", b"new")
    assert objects.get(LOCK_KEY) == b"new"


def test_what_is_swapped_for_nothing_is_gone_and_can_be_created_again(objects: Objects) -> None:
    assert objects.create(LOCK_KEY, b"old")
    assert objects.swap(LOCK_KEY, b"old", None)
    assert objects.get(LOCK_KEY) is None
    assert objects.size(LOCK_KEY) is None
    assert list(objects.list("")) == []
    assert not objects.swap(LOCK_KEY, b"old", b"new")
    assert objects.create(LOCK_KEY, b"new")
    assert not objects.create(LOCK_KEY, b"newer")
    assert objects.get(LOCK_KEY) == b"new"


@pytest.mark.parametrize("before", [None, b"gone"])
def test_of_many_creators_one_wins(objects: Objects, before: bytes | None) -> None:
    if before is not None:
        assert objects.create(LOCK_KEY, before)
        assert objects.swap(LOCK_KEY, before, None)
    offers = [b"by %d" % number for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda offer: objects.create(LOCK_KEY, offer), offers))
    assert won.count(True) == 1
    assert objects.get(LOCK_KEY) == offers[won.index(True)]


def test_no_swap_is_lost(objects: Objects) -> None:
    objects.create("count", b"0")

    def count(times: int) -> None:
        while times:
            found = objects.get("count")
            assert found is not None
            times -= objects.swap("count", found, b"%d" % (int(found) + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, [10] * 4))
    assert objects.get("count") == b"40"


def test_cleaning_leaves_the_objects(objects: Objects) -> None:
    objects.clean()
    objects.put("a", b"x")
    objects.clean()
    assert list(objects.list("")) == ["a"]
    free = objects.free_bytes()
    assert free is None or free > 1 << 20


def test_opening_touches_nothing(objects: Objects) -> None:
    assert list(objects.list("")) == []
    for look in (objects.get, objects.size):
        found: Callable[[str], object] = look
        assert found("zarr.json") is None
