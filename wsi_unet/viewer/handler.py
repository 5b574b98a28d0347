"""What all handlers share: who may ask, how arguments are parsed, and how errors are told."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Event
from types import TracebackType
from typing import Any, TypeVar

from tornado.web import HTTPError, MissingArgumentError, RequestHandler
from typing_extensions import override

from wsi_unet.errors import WsiUnetError, first_line
from wsi_unet.logs import warn
from wsi_unet.viewer.access import HEADERS, Access
from wsi_unet.viewer.following import Follower
from wsi_unet.viewer.library import Library
from wsi_unet.viewer.tile_cache import TileCache
from wsi_unet.viewer.viewed import ViewedSlide

T = TypeVar("T")


class LeftError(Exception):
    """Whoever asked has gone, so nothing is computed for them."""


@dataclass(eq=False)
class Service:
    """What all handlers share.

    Attributes:
        library: what is shown.
        access: who may ask.
        executor: where slides and results are read.
        watching: where runs are looked at, so that tiles can't keep them waiting.
        tiles: tiles that were made.
        making: tiles that are being made.
        followers: by number of the slide.
        listeners: number of pages that are told about runs.
        measuring: held while regions are measured.
        key: part of the addresses of tiles, so that browsers don't show those of another server
            that was at the same port.
    """

    library: Library
    access: Access
    executor: Executor
    watching: Executor
    tiles: TileCache = field(default_factory=TileCache)
    making: dict[Hashable, asyncio.Future[bytes]] = field(default_factory=dict)
    followers: dict[int, Follower] = field(default_factory=dict)
    listeners: int = 0
    measuring: asyncio.Lock = field(default_factory=asyncio.Lock)
    key: str = field(default_factory=lambda: secrets.token_hex(6))

    def follow(self, number: int) -> Follower:
        """Return who follows the runs of a slide."""
        if number not in self.followers:
            self.followers[number] = Follower(self.library, number, self.watching)
        return self.followers[number]


class Handler(RequestHandler):
    """Answers nobody but who knows the token and the server's name."""

    SUPPORTED_METHODS: tuple[str, ...] = ("GET", "HEAD")

    def initialize(self, service: Service) -> None:
        """Take what all handlers share."""
        self.service = service
        self.left = Event()

    @override
    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    @override
    def prepare(self) -> None:
        access = self.service.access
        if not access.knows_host(self.request.headers.get("Host")):
            raise HTTPError(HTTPStatus.MISDIRECTED_REQUEST)
        if not (access.knows_token(self.get_cookie(access.cookie)) or self._gave_token()):
            raise HTTPError(HTTPStatus.FORBIDDEN)

    def _gave_token(self) -> bool:
        """Return whether the address, or the Authorization header, has the token."""
        header = self.request.headers.get("Authorization", "")
        bearer = header.removeprefix("Bearer ") if header.startswith("Bearer ") else None
        given = self.get_query_argument("token", None)
        return self.service.access.knows_token(bearer) or self.service.access.knows_token(given)

    @override
    def on_connection_close(self) -> None:
        self.left.set()

    @override
    def compute_etag(self) -> None:
        return None

    @override
    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        known = isinstance(error, WsiUnetError)
        self.finish(first_line(error) if known and error else _explain(status_code))

    @override
    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if value is not None and not isinstance(value, HTTPError | WsiUnetError | LeftError):
            warn(f"a request failed: {type(value).__name__}: {first_line(value)}")

    @override
    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        if self._headers_written:  # news of runs that end with the server
            return
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        if isinstance(error, WsiUnetError):
            status_code = HTTPStatus.UNPROCESSABLE_ENTITY
        super().send_error(status_code, **kwargs)

    async def work(self, compute: Callable[[], T]) -> T:
        """Return what a function returns in a thread, unless whoever asked has gone by then."""

        def run() -> T:
            if self.left.is_set():
                raise LeftError
            return compute()

        return await asyncio.get_running_loop().run_in_executor(self.service.executor, run)

    async def use(self, number: int, compute: Callable[[ViewedSlide], T]) -> T:
        """Return what a function returns of a slide, in a thread."""

        def run() -> T:
            with self.service.library.use(number) as viewed:
                return compute(viewed)

        return await self.work(run)

    def parse_slide(self, text: str) -> int:
        """Return the number of a slide.

        Raises:
            HTTPError: there is none.
        """
        number = int(text)
        if number >= len(self.service.library.entries):
            raise HTTPError(HTTPStatus.NOT_FOUND)
        return number

    def parse_whole(self, name: str, most: int) -> int:
        """Return an argument that is a whole number from 0.

        Raises:
            HTTPError: it isn't.
        """
        text = self.get_text(name)
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > most:
            raise HTTPError(HTTPStatus.BAD_REQUEST)
        return int(text)

    def parse_numbers(self, name: str, count: int) -> list[float]:
        """Return an argument that is so many numbers, divided by commas.

        Raises:
            HTTPError: it isn't.
        """
        parts = self.get_text(name).split(",")
        number = r"-?[0-9]{1,9}(\.[0-9]{1,6})?"
        if len(parts) != count or not all(re.fullmatch(number, part) for part in parts):
            raise HTTPError(HTTPStatus.BAD_REQUEST)
        return [float(part) for part in parts]

    def get_text(self, name: str) -> str:
        """Return an argument.

        Raises:
            HTTPError: it isn't there.
        """
        try:
            return self.get_query_argument(name)
        except MissingArgumentError as error:
            raise HTTPError(HTTPStatus.BAD_REQUEST) from error

    def send_json(self, document: Any) -> None:
        """Answer with a JSON document."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(document, allow_nan=False, separators=(",", ":")))


def _explain(status: int) -> str:
    """Return what an answer without a page says."""
    if status == HTTPStatus.FORBIDDEN:
        return "open the address that wsi-unet view has printed: it holds the token\n"
    try:
        return f"{HTTPStatus(status).phrase.lower()}\n"
    except ValueError:
        return "refused\n"


class NothingHandler(Handler):
    """Answers what isn't there."""

    @override
    def prepare(self) -> None:
        super().prepare()
        raise HTTPError(HTTPStatus.NOT_FOUND)
