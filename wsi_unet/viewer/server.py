"""The server: listening, telling where, and ending when asked to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from tornado.httpserver import HTTPServer
from tornado.web import Application

from wsi_unet.cores import usable_cores
from wsi_unet.errors import OptionError
from wsi_unet.signals import interrupting_signals
from wsi_unet.viewer.access import Access, is_loopback
from wsi_unet.viewer.handler import NothingHandler, Service
from wsi_unet.viewer.handlers import ROUTES
from wsi_unet.viewer.library import Library, open_library

MOST_HEADER_BYTES = 1 << 14
MOST_BODY_BYTES = 1 << 18
"""The most bytes of a request's headers, and of the regions that it may send."""

IDLE_SECONDS = 60.0
BODY_SECONDS = 15.0
"""How long a connection may keep silent between requests, and take to send what it announced."""

MOST_THREADS = 8


@dataclass(frozen=True)
class ServerOptions:
    """Where the server listens.

    Attributes:
        host: name or address of an interface; others than loopback let other machines ask.
        port: 0 takes any free one.
        tls_cert: file with the certificate, PEM; None: the connection isn't encrypted.
        tls_key: file with its key, PEM; None: it is in the same file.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls_cert: str | None = None
    tls_key: str | None = None


@dataclass(frozen=True)
class Serving:
    """What there is to say of a server that has started.

    Attributes:
        address: the page's address, with the token.
        notes: what the user should know, one line each.
        stop: ends the server; any thread may call it.
    """

    address: str = field(repr=False)
    notes: tuple[str, ...]
    stop: Callable[[], None]


def view(
    target: str,
    slide: str | None = None,
    *,
    series: str | None = None,
    options: ServerOptions | None = None,
    on_start: Callable[[Serving], None] = lambda _: None,
) -> None:
    """Serve a page that shows a result, a folder of results or a slide, until a signal ends it.

    Args:
        target: path or URL.
        slide: the slide of a result; None looks where the run found it, and beside the result.
        series: number or name of one of several images in the file of a slide; a result knows its
            own.
        options: where to listen.
        on_start: called once the page can be asked for.

    Raises:
        OptionError: the host, port or certificate can't be used.
        OutputError: there is nothing to show, or it is damaged.
        InputError: a slide can't be opened, or isn't the result's.
    """
    chosen = options or ServerOptions()
    context = _open_tls(chosen)
    library = open_library(target, slide, series)
    try:
        with _listen(chosen) as listening:
            asyncio.run(_serve(library, chosen, listening, context, on_start))
    finally:
        library.close()


def _open_tls(options: ServerOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        if options.tls_key is not None:
            raise OptionError("`tls_key` needs `tls_cert`, its certificate", option="tls_key")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        raise OptionError(
            f"{options.tls_cert}: can't be used as certificate ({reason}); give PEM files as "
            "`tls_cert` and `tls_key`",
            option="tls_cert",
        ) from error
    return context


@contextmanager
def _listen(options: ServerOptions) -> Iterator[socket.socket]:
    """Yield a listening socket.

    Raises:
        OptionError: the port is in use, or there is no such interface.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listening = socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"port {options.port} of {options.host} is in use; choose another `port`, or 0 "
                "for any free one",
                option="port",
            ) from error
        raise OptionError(
            f"{options.host}:{options.port}: can't listen there ({error.strerror or error}); "
            "choose another `host` or `port`",
            option="host",
        ) from error
    with listening:
        listening.setblocking(False)
        yield listening


async def _serve(
    library: Library,
    options: ServerOptions,
    listening: socket.socket,
    context: ssl.SSLContext | None,
    on_start: Callable[[Serving], None],
) -> None:
    """Answer requests until a signal comes."""
    access = Access(options.host, listening.getsockname()[1])
    threads = min(MOST_THREADS, usable_cores() + 1)
    with (
        ThreadPoolExecutor(threads, thread_name_prefix="tiles") as executor,
        ThreadPoolExecutor(1, thread_name_prefix="watching") as watching,
    ):
        service = Service(library, access, executor, watching)
        server = HTTPServer(
            make_application(service),
            ssl_options=context,
            max_header_size=MOST_HEADER_BYTES,
            max_body_size=MOST_BODY_BYTES,
            idle_connection_timeout=IDLE_SECONDS,
            body_timeout=BODY_SECONDS,
        )
        server.add_socket(listening)
        with _stopping() as stop:
            address = _write_address(access, encrypted=context is not None)
            notes = _list_notes(library, access, encrypted=context is not None)
            loop = asyncio.get_running_loop()
            on_start(Serving(address, notes, partial(_stop, loop, stop)))
            await stop.wait()
        server.stop()
        await server.close_all_connections()
        executor.shutdown(wait=False, cancel_futures=True)


def _stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # it has ended already
        loop.call_soon_threadsafe(stop.set)


def make_application(service: Service) -> Application:
    """Return what answers requests; they aren't logged."""
    own = {"service": service}
    return Application(
        [(route, handler, own) for route, handler in ROUTES],
        default_handler_class=NothingHandler,
        default_handler_args=own,
        log_function=lambda handler: None,
        serve_traceback=False,
    )


@contextmanager
def _stopping() -> Iterator[asyncio.Event]:
    """Yield an event that a signal to end the program sets, where signals can be handled."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = interrupting_signals()
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _write_address(access: Access, *, encrypted: bool) -> str:
    """Return the page's address, with the token."""
    host = access.host if access.host not in ("0.0.0.0", "::", "") else socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if encrypted else "http"
    return f"{scheme}://{shown}:{access.port}/?token={access.token}"


def _list_notes(library: Library, access: Access, *, encrypted: bool) -> tuple[str, ...]:
    """Return what the user should know before looking."""
    notes = []
    if library.folder is None:
        with library.use(0) as viewed:
            notes += [viewed.source.note] if viewed.source.note else []
    if not is_loopback(access.host) and not encrypted:
        notes.append(
            "other machines can connect, and the connection isn't encrypted: whoever listens in "
            "reads token and slide; give `tls_cert` and `tls_key`, or keep to loopback and ssh -L"
        )
    return tuple(notes)
