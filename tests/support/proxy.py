"""An HTTP proxy that delays, counts and spoils requests on their way to a server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """One request as the proxy saw it.

    Attributes:
        method: "GET", "PUT", …
        path: with the query.
        headers: by name in lower case.
        body: what was sent.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last byte of the requested range; None if there isn't exactly one."""
        first, _, last = self.headers.get("range", "").removeprefix("bytes=").partition("-")
        return (int(first), int(last)) if first and last else None


Answer = int | str | None
"""Treatment of a request: it is passed on (None), answered with a status, or
"hang": never answered · "drop": the connection is closed · "cut": half of the answer's body comes ·
"lose": it is passed on, and answered with 500."""


@dataclass
class Proxy:
    """A running proxy; its attributes may be set at any time.

    Attributes:
        endpoint: "http://127.0.0.1:port".
        delay: seconds that every request waits.
        spoil: decides how a request is treated.
        requests: all requests so far.
        in_flight: how many requests wait for their answer now.
        most_in_flight: the largest number of them at any time.
    """

    endpoint: str
    delay: float = 0.0
    spoil: Callable[[Request], Answer] = lambda request: None
    requests: list[Request] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def forget(self) -> None:
        """Reset the counts."""
        self.requests, self.most_in_flight = [], 0


@contextmanager
def running_proxy(server: str) -> Iterator[Proxy]:
    """Run a proxy in front of the server at a URL, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    upstream = urlsplit(server)
    proxy = Proxy("")
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            # Cancelled when the proxy ends, which asyncio would otherwise print.
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await _pass_on(proxy, reader, writer, str(upstream.hostname), upstream.port):
                    pass
        finally:
            connections.discard(task)
            writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    running = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    proxy.endpoint = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(stop(running), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _pass_on(
    proxy: Proxy,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    host: str,
    port: int | None,
) -> bool:
    """Handle one request; return whether the connection stays open."""
    request = await _read_request(reader)
    if request is None:
        return False
    proxy.requests.append(request)
    proxy.in_flight += 1
    proxy.most_in_flight = max(proxy.most_in_flight, proxy.in_flight)
    try:
        await asyncio.sleep(proxy.delay)
        answer = proxy.spoil(request)
        if answer == "hang":
            await asyncio.sleep(3600)
        if answer == "drop":
            return False
        if isinstance(answer, int):
            writer.write(b"HTTP/1.1 %d Spoiled\r\nContent-Length: 0\r\n\r\n" % answer)
            await writer.drain()
            return True
        head, body = await _ask(request, host, port)
        if answer == "lose":
            head, body = b"HTTP/1.1 500 Spoiled\r\nContent-Length: 0\r\n\r\n", b""
        writer.write(head + (body[: len(body) // 2] if answer == "cut" else body))
        await writer.drain()
        return answer != "cut"
    finally:
        proxy.in_flight -= 1


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    head = b""
    with suppress(asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head:
        return None
    line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = line.split(" ", 2)
    pairs = (one.partition(":") for one in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


async def _ask(request: Request, host: str, port: int | None) -> tuple[bytes, bytes]:
    """Forward a request over a connection of its own; return the answer's head and body."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        headers = {**request.headers, "connection": "close"}
        lines = [f"{request.method} {request.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        return head.replace(b"Connection: close\r\n", b""), await reader.read()
    finally:
        writer.close()


def wait_until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition that another thread fulfils.

    Raises:
        AssertionError: if it doesn't.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
