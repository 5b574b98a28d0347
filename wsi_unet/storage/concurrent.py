"""Working on several items at once, a few ahead of those that were asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from wsi_unet.locations import Location

Item = TypeVar("Item")
Result = TypeVar("Result")

REQUESTS = 16
"""How many requests a bucket gets at once."""


def map_concurrently(
    work: Callable[[Item], Result], items: Iterable[Item], location: str | Location
) -> Iterator[Result]:
    """Yield the result of `work` for each item, in order.

    In a bucket several items are processed at once, at most a fixed number ahead of what has been
    yielded, so there may be millions. A disk answers immediately, so there are no threads.

    Args:
        work: called with an item.
        items: the items.
        location: where they are.
    """
    if not Location.parse(location).is_url:
        return map(work, items)
    return map_in_threads(work, items, REQUESTS)


def map_in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Yield the result of `work` for each item, in order, computed by threads.

    Args:
        work: called with an item.
        items: the items; at most `2 * threads` are taken ahead of what has been yielded.
        threads: number of threads.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="map") as pool:
        started: deque[Future[Result]] = deque()
        try:
            for item in items:
                started.append(pool.submit(work, item))
                if len(started) > 2 * threads:
                    yield started.popleft().result()
            while started:
                yield started.popleft().result()
        finally:
            for future in started:
                future.cancel()
