"""Asking for many small things at once, where each answer takes a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from wsi_unet import locations

Item = TypeVar("Item")
Result = TypeVar("Result")

REQUESTS = 16
"""How many small things an object store is asked for at once."""


def map_concurrently(
    work: Callable[[Item], Result], items: Iterable[Item], location: str
) -> Iterator[Result]:
    """Yield what some work returns for each item, in order.

    A bounded number of items is ahead of what has been yielded, so there may be millions. On a
    disk, which answers at once, there are no threads and nothing is ahead.

    Args:
        work: what is done for an item.
        items: the items.
        location: where they are.
    """
    if not locations.is_url(location):
        yield from map(work, items)
        return
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="ahead") as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) > 2 * REQUESTS:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for one in begun:
                one.cancel()
