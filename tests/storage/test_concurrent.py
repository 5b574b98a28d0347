from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from wsi_unet.storage.concurrent import REQUESTS, map_concurrently


@pytest.mark.parametrize("location", ["/folder", "s3://bucket"])
def test_results_come_in_order(location: str) -> None:
    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * item

    assert list(map_concurrently(work, iter(range(200)), location)) == [
        item**2 for item in range(200)
    ]
    assert list(map_concurrently(work, [], location)) == []


def test_a_bounded_number_is_ahead_of_what_was_taken() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in itertools.count():
            taken.append(item)
            yield item

    results = map_concurrently(lambda item: item, items(), "s3://bucket")
    assert list(itertools.islice(results, 10)) == list(range(10))
    assert len(taken) <= 10 + 2 * REQUESTS + 1


def test_nothing_is_ahead_on_a_disk() -> None:
    threads = set()

    def work(item: int) -> int:
        threads.add(threading.current_thread())
        return item

    assert next(map_concurrently(work, itertools.count(), "/folder")) == 0
    assert threads == {threading.main_thread()}


def test_an_error_ends_it() -> None:
    def work(item: int) -> int:
        if item == 20:
            raise OSError("broken")
        return item

    results = map_concurrently(work, itertools.count(), "s3://bucket")
    assert list(itertools.islice(results, 20)) == list(range(20))
    with pytest.raises(OSError, match="broken"):
        next(results)
