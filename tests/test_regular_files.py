"""Files that are opened only if they are regular ones."""

from __future__ import annotations

import os
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from wsi_unet.regular_files import check_regular, open_regular, read_regular


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_pipe, "it is a named pipe, not a file"),
        (link_to_pipe, "it is a named pipe, not a file"),
        (make_socket, "it is a socket, not a file"),
        (link_to_device, "it is a device, not a file"),
        (Path.mkdir, "Is a directory"),
    ],
)
def test_anything_else_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], message: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = tmp_path / "file"
    make(path)
    for read in (check_regular, open_regular, read_regular):
        with pytest.raises(OSError, match=message) as caught:
            read(path)
        assert caught.value.filename == str(path)


def test_regular_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"content")
    link.symlink_to(file)
    with open_regular(link) as opened:
        assert opened.read() == b"content"
    assert read_regular(link, limit=7) == b"content"


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with pytest.raises(OSError, match="more than"):
        read_regular(file, limit=6)


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, 1 << 33)
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="more than 64 MiB"):
            read_regular(file, limit=1 << 26)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
