"""Answering with tiles."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Hashable
from http import HTTPStatus

from tornado.web import HTTPError
from typing_extensions import override

from wsi_unet.errors import WsiUnetError
from wsi_unet.viewer.handler import Handler, LeftError
from wsi_unet.viewer.painting import STYLES, paint_unreadable
from wsi_unet.viewer.pictures import PAPER
from wsi_unet.viewer.rendering import (
    ClassesOrder,
    HeatOrder,
    LooksOrder,
    PictureOrder,
    TileOrder,
)
from wsi_unet.viewer.tile_files import encode_jpeg, encode_png
from wsi_unet.viewer.viewed import ViewedSlide

MOST_VALUES = 256
"""Label values that a tile can show."""


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
        text, style = self.get_text("show"), self.get_text("style")
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
