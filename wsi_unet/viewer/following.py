"""Following runs while pages look at them: one look per slide and second, however many pages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from typing import Any

from wsi_unet.errors import WsiUnetError
from wsi_unet.viewer.library import Library
from wsi_unet.viewer.viewed import describe_run, read_revision

SECONDS = 0.8
"""Time between two looks at a result on a disk."""

REMOTE_SECONDS = 10.0
"""Time between two looks at a result in an object store, where each is a few requests."""

State = dict[str, Any]


class Follower:
    """Looks at a slide's runs for as long as somebody listens.

    Args:
        library: what is shown.
        number: number of the slide.
        executor: where looks are made, since they read files.
    """

    def __init__(self, library: Library, number: int, executor: Executor) -> None:
        self._library = library
        self._number = number
        self._executor = executor
        self._state: State = {}
        self._news = asyncio.Condition()
        self._listeners = 0
        self._task: asyncio.Task[None] | None = None

    async def listen(self, seconds: float) -> AsyncGenerator[State | None, None]:
        """Yield the state whenever it changes; None if it hasn't for some seconds."""
        self._listeners += 1
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        seen: State = {}
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wait_for_other(seen), seconds)
                yield self._state if self._state != seen else None
                seen = self._state
        finally:
            self._listeners -= 1
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None
                self._state = {}

    async def _wait_for_other(self, seen: State) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._state != seen)

    async def _follow(self) -> None:
        place = self._library.entries[self._number].place
        pause = REMOTE_SECONDS if place is not None and place.is_url else SECONDS
        loop = asyncio.get_running_loop()
        while True:
            state = await loop.run_in_executor(self._executor, self._look)
            async with self._news:
                self._state = state
                self._news.notify_all()
            await asyncio.sleep(pause)

    def _look(self) -> State:
        """Return the state of the slide's runs now."""
        try:
            with self._library.use(self._number) as viewed:
                if viewed.store is None:
                    return {"problems": [*viewed.problems]}
                revision = read_revision(viewed.store)
                if revision != viewed.revision:
                    self._library.renew(self._number)
                else:
                    viewed.look()
                return {
                    "revision": revision,
                    "live": viewed.live,
                    "runs": [describe_run(run) for run in viewed.runs],
                    "problems": [*viewed.problems],
                }
        except WsiUnetError as error:
            return {"problems": [str(error)]}
