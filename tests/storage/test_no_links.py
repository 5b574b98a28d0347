"""A folder that somebody else filled: nothing outside of it is read, changed or removed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from wsi_unet.errors import OutputError
from wsi_unet.locations import Location
from wsi_unet.storage.keys import LOCK_KEY, check_key
from wsi_unet.storage.local_store import TEMPORARY_FOLDER, LocalStore
from wsi_unet.storage.locking.lock import acquire
from wsi_unet.storage.opening import open_store
from wsi_unet.storage.remote_store import RemoteStore
from wsi_unet.storage.store import ByteStore, TooLargeError

BAD_KEYS = (
    "..",
    "../x",
    "a/../b",
    "a/..",
    "/etc/passwd",
    "a//b",
    "a/",
    "./a",
    "a/./b",
    "a\0b",
    "a" * 1025,
    "caf\udce9",
)
OLD = time.time() - 2 * 86400

USES: dict[str, Callable[[ByteStore, str], object]] = {
    "get": lambda store, key: store.get(key),
    "put": lambda store, key: store.put(key, b"x"),
    "create": lambda store, key: store.create(key, b"x"),
    "swap": lambda store, key: store.swap(key, b"x", b"y"),
    "size": lambda store, key: store.size(key),
    "delete": lambda store, key: store.delete(key),
    "delete_all": lambda store, key: store.delete_all(key),
    "list": lambda store, key: list(store.list(key)),
    "list_sizes": lambda store, key: list(store.list_sizes(key)),
}


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """Return a folder outside of the store, with old files; checked for changes."""
    folder = tmp_path / "victim"
    (folder / "data").mkdir(parents=True)
    for path in (folder / "thesis.txt", folder / "data" / "raw", folder / "made"):
        path.write_bytes(b"years of work")
        os.utime(path, (OLD, OLD))
    os.utime(folder / "data", (OLD, OLD))
    before = snapshot(folder)
    yield folder
    assert snapshot(folder) == before


def snapshot(folder: Path) -> dict[str, tuple[int, float, bytes]]:
    return {
        str(path): (
            path.lstat().st_ino,
            path.lstat().st_mtime,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *sorted(folder.rglob("*"))]
    }


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "out.ome.zarr")
    store.put("zarr.json", b"{}")
    return store


def refused(use: Callable[[], object], match: str) -> None:
    with pytest.raises(OutputError, match=match) as caught:
        use()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["a", "a/b", ".wsi_unet/.tmp", "...", "a..b/..c", "ä b"])
def test_what_lies_below_the_root_is_a_key(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("key", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_no_key_leads_out_of_a_store(
    store: LocalStore, tmp_path: Path, victim: Path, use: str, key: str
) -> None:
    """On a disk as in a bucket, which isn't even asked."""
    remote = RemoteStore(Location.parse("s3://nowhere/out.ome.zarr"))
    for place in (store, remote):
        refused(lambda place=place: USES[use](place, key), "can't be a key")  # type: ignore[misc]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ome.zarr", "victim"]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("key", ["a/data/raw", "a/data"])
def test_no_linked_folder_is_followed(store: LocalStore, victim: Path, use: str, key: str) -> None:
    (store.root / "a").symlink_to("../victim")
    refused(lambda: USES[use](store, key), "/a is a link")


def test_listing_names_links_and_stays_outside(store: LocalStore, victim: Path) -> None:
    (store.root / "a").symlink_to(victim)
    (store.root / "b").symlink_to(victim / "thesis.txt")
    assert list(store.list("")) == ["a", "b", "zarr.json"]
    refused(lambda: list(store.list("a")), "/a is a link")
    refused(lambda: list(store.list_sizes("")), "/a is a link")


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "socket", "folder", "device"])
def test_only_files_are_read(store: LocalStore, victim: Path, kind: str) -> None:
    path = store.root / "a"
    if kind == "link":
        path.symlink_to(victim / "thesis.txt")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with closing(socket.socket(socket.AF_UNIX)) as listening:
            here = Path.cwd()
            os.chdir(store.root)  # the names of sockets are short
            try:
                listening.bind("a")
            finally:
                os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    else:
        try:
            os.mknod(path, 0o020666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes devices")
    for use in (store.get, store.size):
        refused(lambda use=use: use("a"), r"/a is a [a-z ]+, and wsi-unet neither")  # type: ignore[misc]
    if kind != "folder":
        store.put("a", b"ours")
        assert store.get("a") == b"ours"
        store.delete("a")
        assert store.get("a") is None


def test_a_link_is_removed_and_not_what_it_points_to(store: LocalStore, victim: Path) -> None:
    (store.root / "a").symlink_to(victim)
    store.delete_all("a")
    assert list(store.list("")) == ["zarr.json"]
    (store.root / "b").mkdir()
    (store.root / "b" / "c").symlink_to(victim)
    store.delete_all("b")
    assert list((store.root / TEMPORARY_FOLDER).iterdir()) == []


@pytest.mark.parametrize("linked", [".wsi_unet", TEMPORARY_FOLDER])
def test_temporaries_stay_inside(store: LocalStore, victim: Path, linked: str) -> None:
    """What is older than an hour there was taken for abandoned."""
    (store.root / TEMPORARY_FOLDER).rmdir()
    (store.root / ".wsi_unet").rmdir()
    path = store.root / linked
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(victim)
    for use in (
        store.remove_leftovers,
        lambda: store.put("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: store.swap("zarr.json", b"{}", b"x"),
        lambda: store.swap("zarr.json", b"{}", None),
        lambda: store.delete_all("zarr.json"),
        lambda: acquire(store),
    ):
        refused(use, f"{linked} is a link")
    assert store.get("zarr.json") == b"{}"


@pytest.mark.parametrize("name", ["guard", "made"])
def test_the_locks_own_files_lead_nowhere(store: LocalStore, victim: Path, name: str) -> None:
    (store.root / TEMPORARY_FOLDER / name).symlink_to(victim / "thesis.txt")
    try:
        acquire(store).release()
    except OutputError as error:
        assert "is a link" in str(error)  # noqa: PT017
    store.delete(LOCK_KEY)


@pytest.mark.parametrize(
    "name",
    [
        "thesis.txt",
        "elsewhere-1-4567.partial",
        "elsewhere-1-0123456789abcdef0123456789ABCDEF.partial",
        "elsewhere-x-0123456789abcdef0123456789abcdef.partial",
        "elsewhere-1-0123456789abcdef0123456789abcdef.txt",
        "data/",
        "elsewhere-1-0123456789abcdef0123456789abcdef.partial/",
        "guard.held/",
    ],
)
def test_only_our_own_temporaries_are_removed(store: LocalStore, name: str) -> None:
    path = store.root / TEMPORARY_FOLDER / name
    if name.endswith("/"):
        path.mkdir()
        (path / "inside").touch()
    else:
        path.touch()
    os.utime(path, (OLD, OLD))
    store.remove_leftovers()
    assert path.exists()


@pytest.mark.parametrize("note", ["3", "3 1", "9" * 10_000, "-1 0", "", "\xff"])
def test_a_foreign_note_has_no_folder_removed(tmp_path: Path, note: str) -> None:
    """It says how many folders, from the output's upwards, a killed run has made."""
    store = LocalStore(tmp_path / "a" / "b" / "out")
    folder = store.root / TEMPORARY_FOLDER
    folder.mkdir(parents=True)
    (folder / "made").write_text(note, encoding="latin-1")
    acquire(store).release()
    assert (tmp_path / "a" / "b").is_dir()


def test_what_is_too_large_is_not_read(store: LocalStore) -> None:
    store.put("a", b"12345")
    assert store.get("a", 5) == b"12345"
    with pytest.raises(TooLargeError, match="'a' has 5 bytes, but at most 4"):
        store.get("a", 4)


def test_the_output_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    store = open_store(tmp_path / "out")
    store.put("a/b", b"x")
    assert list(store.list("")) == ["a/b"]
    assert (tmp_path / "disk" / "a" / "b").read_bytes() == b"x"


@pytest.mark.parametrize("output", ["out", "out/below"])
@pytest.mark.parametrize("target", ["nowhere", "out"])
def test_an_output_that_is_a_link_to_nothing_is_refused(
    tmp_path: Path, output: str, target: str
) -> None:
    (tmp_path / "out").symlink_to(target)
    refused(lambda: open_store(tmp_path / output), "out is a link to something that isn't there")
    assert not (tmp_path / "nowhere").exists()
