"""What is remembered between runs, and what is not believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from wsi_unet import user_cache

KEY = {"measured": "tile", "sides": [256, 512], "device": "CPU"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "wsi-unet"


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_values_come_back_under_their_key_alone(folder: Path) -> None:
    assert user_cache.recall(KEY) is None
    user_cache.remember(KEY, {"tile": 512})
    user_cache.remember(KEY, {"tile": 768})
    assert user_cache.recall(KEY) == {"tile": 768}
    assert user_cache.recall({**KEY, "device": "another"}) is None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert only_file(folder).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[" * 5000,
        b"[" * 4000,
        b"null",
        json.dumps({"key": {"measured": "other"}, "value": 1}).encode(),
        json.dumps({"key": KEY, "value": "x" * 5000}).encode(),
    ],
)
def test_damaged_and_foreign_documents_count_as_missing(folder: Path, content: bytes) -> None:
    user_cache.remember(KEY, 1)
    only_file(folder).write_bytes(content)
    assert user_cache.recall(KEY) is None
    user_cache.remember(KEY, 2)
    assert user_cache.recall(KEY) == 2


def test_links_and_pipes_are_not_read(folder: Path, tmp_path: Path) -> None:
    user_cache.remember(KEY, 1)
    path = only_file(folder)
    moved = path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(moved)
    assert user_cache.recall(KEY) is None
    path.unlink()
    os.mkfifo(path)
    assert user_cache.recall(KEY) is None
    user_cache.remember(KEY, 2)
    assert user_cache.recall(KEY) == 2
    assert json.loads(moved.read_bytes())["value"] == 1


def test_a_folder_that_others_may_write_is_not_used(folder: Path, tmp_path: Path) -> None:
    user_cache.remember(KEY, 1)
    folder.chmod(0o777)
    assert user_cache.recall(KEY) is None
    before = only_file(folder).read_bytes()
    user_cache.remember(KEY, 2)
    assert only_file(folder).read_bytes() == before
    folder.chmod(0o700)
    folder.rename(tmp_path / "other")
    folder.symlink_to(tmp_path / "other")
    assert user_cache.recall(KEY) is None


def test_the_oldest_go_and_foreign_files_stay(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_cache, "MOST_DOCUMENTS", 3)
    user_cache.remember({"n": 0}, 0)
    (folder / "notes.txt").write_text("mine")
    killed = folder / f".{'0' * 32}.json.{'0' * 16}.partial"
    killed.write_text("{")
    os.utime(killed, (0, 0))
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    for n in range(1, 4):
        user_cache.remember({"n": n}, n)
    assert [user_cache.recall({"n": n}) for n in range(4)] == [None, 1, 2, 3]
    assert len([*folder.iterdir()]) == 4
    assert (folder / "notes.txt").read_text() == "mine"


def test_the_folder_that_the_user_names_is_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_UNET_CACHE", str(tmp_path / "named"))
    user_cache.remember(KEY, 1)
    assert user_cache.recall(KEY) == 1
    only_file(tmp_path / "named")
    assert not folder.exists()
    (tmp_path / "named").chmod(0o770)  # others may write there
    assert user_cache.recall(KEY) is None


@pytest.mark.parametrize("home", ["relative/cache", "/dev/null/cache", "/proc/none"])
def test_without_a_folder_nothing_is_remembered(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("HOME", "/dev/null")  # a relative folder doesn't count
    user_cache.remember(KEY, 1)
    assert user_cache.recall(KEY) is None
