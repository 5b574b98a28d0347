"""Answering requests: routes lead to keys of tables, and nothing in a request names a file."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Event
from types import TracebackType
from typing import Any, TypeVar

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, MissingArgumentError, RequestHandler
from typing_extensions import override

from wsi_unet.errors import WsiUnetError, first_line
from wsi_unet.logs import warn
from wsi_unet.viewer.access import HEADERS, Access
from wsi_unet.viewer.following import Follower, State
from wsi_unet.viewer.gallery import describe_gallery, make_thumbnail
from wsi_unet.viewer.library import Library
from wsi_unet.viewer.object_tables import ObjectTables
from wsi_unet.viewer.page_files import read_page_files
from wsi_unet.viewer.painting import STYLES, paint_unreadable
from wsi_unet.viewer.pictures import PAPER
from wsi_unet.viewer.region_measures import measure_regions
from wsi_unet.viewer.rendering import (
    ClassesOrder,
    HeatOrder,
    LooksOrder,
    PictureOrder,
    TileOrder,
)
from wsi_unet.viewer.tile_cache import TileCache
from wsi_unet.viewer.tile_files import encode_jpeg, encode_png
from wsi_unet.viewer.viewed import ViewedSlide, describe

MOST_LISTENERS = 100
"""Pages that are told about runs at once."""

HEARTBEAT_SECONDS = 15.0
"""A page that listens hears something at least this often, so that lost ones are noticed."""

MOST_VALUES = 256
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
        text = self._get_text(name)
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > most:
            raise HTTPError(HTTPStatus.BAD_REQUEST)
        return int(text)

    def parse_numbers(self, name: str, count: int) -> list[float]:
        """Return an argument that is so many numbers, divided by commas.

        Raises:
            HTTPError: it isn't.
        """
        parts = self._get_text(name).split(",")
        number = r"-?[0-9]{1,9}(\.[0-9]{1,6})?"
        if len(parts) != count or not all(re.fullmatch(number, part) for part in parts):
            raise HTTPError(HTTPStatus.BAD_REQUEST)
        return [float(part) for part in parts]

    def _get_text(self, name: str) -> str:
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


class PageHandler(Handler):
    """Answers with a file of the page; the first visit is told its cookie."""

    async def get(self, *path: str) -> None:
        """Answer with the gallery, a slide's page, or a file of either by its name."""
        if self.get_query_argument("token", None) is not None:
            self._give_cookie()
            return
        if self.request.path == "/" and self.service.library.folder is None:
            self.redirect("slides/0/")
            return
        if self.request.path == "/":
            self._send("gallery.html")
        elif self.request.path.startswith("/slides/"):
            self.parse_slide(path[0])
            self._send("slide.html")
        else:
            self._send(path[0])

    head = get

    def _give_cookie(self) -> None:
        """Put the token into a cookie and take it out of the address."""
        access = self.service.access
        self.set_cookie(
            access.cookie,
            access.token,
            httponly=True,
            samesite="Lax",
            secure=self.request.protocol == "https",
        )
        self.redirect("./")

    def _send(self, name: str) -> None:
        file = read_page_files().get(name)
        if file is None:
            raise HTTPError(HTTPStatus.NOT_FOUND)
        self.set_header("Content-Type", file.kind)
        self.finish(file.content)


class DescriptionHandler(Handler):
    """Says what there is to show of a slide."""

    async def get(self, slide: str) -> None:
        """Answer with the slide's description."""
        described = await self.use(self.parse_slide(slide), describe)
        self.send_json(described | {"key": self.service.key})


class TileHandler(Handler):
    """Answers with tiles."""

    async def get(self, slide: str, *path: str) -> None:
        """Answer with a tile; one that can't be read is hatched, and the page told why."""
        *layer, zoom, row, column = path
        number, place = self.parse_slide(slide), (int(zoom), int(row), int(column))
        order = self.parse_order([*map(int, layer)])
        viewed_before = await self.use(number, lambda viewed: _identify(viewed, order, place))
        if viewed_before is None:
            raise HTTPError(HTTPStatus.NOT_FOUND)
        key = number, order, place, viewed_before
        tile = self.service.tiles.get(key)
        if tile is None:
            tile = await self._make(number, order, place, key)
        self.set_header("Content-Type", "image/jpeg" if order.is_jpeg else "image/png")
        self.set_header("Cache-Control", "private, max-age=600")
        self.finish(tile)

    def parse_order(self, layer: list[int]) -> TileOrder:
        """Return which tile of a layer is wanted.

        Raises:
            HTTPError: the request's arguments aren't those of such a layer.
        """
        raise NotImplementedError

    async def _make(
        self, number: int, order: TileOrder, place: tuple[int, int, int], key: Hashable
    ) -> bytes:
        """Return a tile that isn't kept; several who ask for it share it."""
        making = self.service.making
        while key in making:
            try:
                return await asyncio.shield(making[key])
            except LeftError:
                continue
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        making[key] = future
        try:
            tile, whole = await self.use(number, lambda viewed: _render(viewed, order, place))
        except BaseException as error:
            future.set_exception(error if isinstance(error, Exception) else LeftError())
            future.exception()  # nobody else may be waiting
            raise
        finally:
            del making[key]
        if whole:
            self.service.tiles.put(key, tile)
        future.set_result(tile)
        return tile


def _identify(
    viewed: ViewedSlide, order: TileOrder, place: tuple[int, int, int]
) -> Hashable | None:
    """Return what a tile depends on; None if there is no such tile."""
    if viewed.grid.place(*place) is None:
        return None
    try:
        return viewed.revision, order.version(viewed)
    except IndexError:
        return None


def _render(
    viewed: ViewedSlide, order: TileOrder, place: tuple[int, int, int]
) -> tuple[bytes, bool]:
    """Return a tile, and whether it shows what it should."""
    found = viewed.grid.place(*place)
    assert found is not None
    try:
        return order.render(viewed, found), True
    except WsiUnetError as error:
        viewed.note_problem(error)
        painted = paint_unreadable()
        if not order.is_jpeg:
            return encode_png(painted), False
        alpha = painted[..., 3:].astype(float) / 255
        blended = painted[..., :3] * alpha + PAPER * (1 - alpha)
        return encode_jpeg(blended.astype("uint8")), False


class PictureHandler(TileHandler):
    """Answers with tiles of the slide."""

    @override
    def parse_order(self, layer: list[int]) -> TileOrder:
        return PictureOrder()


class ClassesHandler(TileHandler):
    """Answers with tiles of classes."""

    @override
    def parse_order(self, layer: list[int]) -> TileOrder:
        text, style = self._get_text("show"), self._get_text("style")
        parts = text.split(",") if text else []
        if len(parts) > MOST_VALUES or not all(re.fullmatch(r"[0-9]{1,3}", p) for p in parts):
            raise HTTPError(HTTPStatus.BAD_REQUEST)
        shown = frozenset(map(int, parts))
        for known in STYLES:
            if style == known and max(shown, default=0) < MOST_VALUES:
                return ClassesOrder(layer[0], shown, known)
        raise HTTPError(HTTPStatus.BAD_REQUEST)


class LooksHandler(TileHandler):
    """Answers with tiles of where a model looked."""

    @override
    def parse_order(self, layer: list[int]) -> TileOrder:
        return LooksOrder(layer[0])


class HeatHandler(TileHandler):
    """Answers with tiles of probabilities."""

    @override
    def parse_order(self, layer: list[int]) -> TileOrder:
        return HeatOrder(layer[0], layer[1], self.parse_whole("threshold", 255))


class EventsHandler(Handler):
    """Tells a page about the runs of a slide, for as long as it listens (server-sent events)."""

    async def get(self, slide: str) -> None:
        """Answer with what changes, as it does."""
        follower = self.service.follow(self.parse_slide(slide))
        if self.service.listeners >= MOST_LISTENERS:
            raise HTTPError(HTTPStatus.SERVICE_UNAVAILABLE)
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("X-Accel-Buffering", "no")
        self.service.listeners += 1
        news = follower.listen(HEARTBEAT_SECONDS)
        try:
            await self._tell(news)
        except StreamClosedError:
            return
        finally:
            self.service.listeners -= 1
            await news.aclose()

    async def _tell(self, news: AsyncGenerator[State | None, None]) -> None:
        waiting: asyncio.Future[State | None] | None = None
        try:
            while not self.left.is_set():
                waiting = waiting or asyncio.ensure_future(anext(news))
                done, _ = await asyncio.wait({waiting}, timeout=1.0)
                if not done:
                    continue
                state, waiting = waiting.result(), None
                self.write(":\n\n" if state is None else _write_event(state))
                await self.flush()
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.wait({waiting})


def _write_event(state: State) -> str:
    return f"data: {json.dumps(state, allow_nan=False)}\n\n"


class ObjectsHandler(Handler):
    """Answers with the outlines of the objects in view."""

    async def get(self, slide: str, group: str) -> None:
        """Answer with the objects in `box`: x0, y0, x1, y1, px of the slide."""
        x0, y0, x1, y1 = self.parse_numbers("box", 4)
        number, position = self.parse_slide(slide), int(group)
        self.send_json(
            await self.use(number, lambda v: _objects_of(v, position).find_in((x0, y0, x1, y1)))
        )


class ObjectHandler(Handler):
    """Answers with one object."""

    async def get(self, slide: str, group: str) -> None:
        """Answer with the object at `at`: x, y, px of the slide; null for none."""
        x, y = self.parse_numbers("at", 2)
        number, position = self.parse_slide(slide), int(group)
        self.send_json(await self.use(number, lambda v: _objects_of(v, position).find_at(x, y)))


class HistogramHandler(Handler):
    """Answers with the histogram of a measurement."""

    async def get(self, slide: str, group: str) -> None:
        """Answer with the histogram of the measurement and the class with these numbers."""
        measurement, value = self.parse_whole("measurement", 999), self.parse_whole("value", 255)
        number, position = self.parse_slide(slide), int(group)

        def make(viewed: ViewedSlide) -> dict[str, Any]:
            objects = _objects_of(viewed, position)
            names = objects.list_measurements()
            if measurement >= len(names):
                raise HTTPError(HTTPStatus.NOT_FOUND)
            return objects.make_histogram(names[measurement], value)

        self.send_json(await self.use(number, make))


def _objects_of(viewed: ViewedSlide, group: int) -> ObjectTables:
    objects = viewed.objects[group] if group < len(viewed.objects) else None
    if objects is None:
        raise HTTPError(HTTPStatus.NOT_FOUND)
    return objects


class RegionsHandler(Handler):
    """Measures regions; nothing is kept of them."""

    SUPPORTED_METHODS = ("POST",)

    async def post(self, slide: str) -> None:
        """Answer with the rows of `measure` for the regions in the body, GeoJSON."""
        number, body = self.parse_slide(slide), self.request.body
        async with self.service.measuring:
            self.send_json(await self.use(number, lambda v: measure_regions(v, body)))


class GalleryHandler(Handler):
    """Says what the gallery shows."""

    async def get(self) -> None:
        """Answer with the results of the folder, and what was found in each."""
        library = self.service.library
        if library.folder is None:
            raise HTTPError(HTTPStatus.NOT_FOUND)
        self.send_json(await self.work(lambda: describe_gallery(library)))


class ThumbnailHandler(Handler):
    """Answers with the whole slide in small."""

    async def get(self, slide: str) -> None:
        """Answer with the slide and its classes."""
        picture = await self.use(self.parse_slide(slide), make_thumbnail)
        self.set_header("Content-Type", "image/jpeg")
        self.finish(picture)


_SLIDE = r"/slides/([0-9]{1,6})"
_PLACE = r"/([0-9]{1,2})/([0-9]{1,7})/([0-9]{1,7})"
_NUMBER = r"/([0-9]{1,3})"

ROUTES: tuple[tuple[str, type[Handler]], ...] = (
    (r"/", PageHandler),
    (rf"{_SLIDE}/", PageHandler),
    (r"/page/([A-Za-z0-9.-]{1,60})", PageHandler),
    (r"/gallery", GalleryHandler),
    (rf"{_SLIDE}/description", DescriptionHandler),
    (rf"{_SLIDE}/thumbnail", ThumbnailHandler),
    (rf"{_SLIDE}/events", EventsHandler),
    (rf"{_SLIDE}/picture{_PLACE}", PictureHandler),
    (rf"{_SLIDE}/classes{_NUMBER}{_PLACE}", ClassesHandler),
    (rf"{_SLIDE}/looks{_NUMBER}{_PLACE}", LooksHandler),
    (rf"{_SLIDE}/heat{_NUMBER}{_NUMBER}{_PLACE}", HeatHandler),
    (rf"{_SLIDE}/objects{_NUMBER}", ObjectsHandler),
    (rf"{_SLIDE}/object{_NUMBER}", ObjectHandler),
    (rf"{_SLIDE}/histogram{_NUMBER}", HistogramHandler),
    (rf"{_SLIDE}/regions", RegionsHandler),
)
"""Which handler answers which path; docs/guides/view.md lists them."""
