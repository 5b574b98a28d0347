"""Answering requests: routes lead to keys of tables, and nothing in a request names a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from wsi_unet.viewer.following import State
from wsi_unet.viewer.gallery import describe_gallery, make_thumbnail
from wsi_unet.viewer.handler import Handler
from wsi_unet.viewer.object_tables import ObjectTables
from wsi_unet.viewer.page_files import read_page_files
from wsi_unet.viewer.region_measures import measure_regions
from wsi_unet.viewer.tile_handlers import ClassesHandler, HeatHandler, LooksHandler, PictureHandler
from wsi_unet.viewer.viewed import ViewedSlide, describe

MOST_LISTENERS = 100
"""Pages that are told about runs at once."""

HEARTBEAT_SECONDS = 15.0
"""A page that listens hears something at least this often, so that lost ones are noticed."""


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
