"""What this process and its children listen on, as the kernel says."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

LISTEN = "0A"


@contextmanager
def watched_listeners(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], set[str]]]:
    """Yield a function that looks, and returns all addresses that were listened on so far.

    What listened before doesn't count. This process's sockets are looked at as they start to listen
    too, however short they live.
    """
    before, found = listeners(), set[str]()
    listen = socket.socket.listen

    def look() -> set[str]:
        found.update(listeners() - before)
        return found

    def watched(self: socket.socket, *backlog: int) -> None:
        listen(self, *backlog)
        look()

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "listen", watched)
        yield look


def listeners(process: int | None = None) -> set[str]:
    """Return the TCP addresses, "HOST:PORT", that a process and its children listen on."""
    parent = psutil.Process(process)
    inodes = set[str]()
    for one in (parent, *parent.children(recursive=True)):
        with suppress(OSError):  # it has ended
            for link in Path(f"/proc/{one.pid}/fd").iterdir():
                with suppress(OSError):
                    inodes.add(str(link.readlink()))
    return {
        address
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
        for address, inode in _parse(line)
        if f"socket:[{inode}]" in inodes
    }


def _parse(line: str) -> Iterator[tuple[str, str]]:
    """Yield the address and the inode of a line of /proc/net/tcp, if that socket listens."""
    _, local, _, state, *rest = line.split()
    if state == LISTEN:
        host, port = local.split(":")
        words = [bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8)]
        yield f"{ipaddress.ip_address(b''.join(words))}:{int(port, 16)}", rest[5]


def loopback(addresses: set[str]) -> bool:
    """Return whether all addresses are on loopback."""
    return all(
        ipaddress.ip_address(address.rpartition(":")[0]).is_loopback for address in addresses
    )
