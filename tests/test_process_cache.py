"""The cache of a process, against a list kept by hand; threads, forks and pickles."""

from __future__ import annotations

import doctest
import multiprocessing
import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_unet import process_cache
from wsi_unet.process_cache import ProcessCache

KEYS = "abcde"
COSTS = {key: 10 * (number + 1) for number, key in enumerate(KEYS)}
ACTIONS = st.lists(st.tuples(st.sampled_from(["get", "release"]), st.sampled_from(KEYS)))


def test_the_example_is_right() -> None:
    result = doctest.testmod(process_cache)
    assert result.attempted
    assert not result.failed


class Value:
    """A value that counts how often it was closed."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def keep_by_hand(kept: list[str], key: str, capacity: int) -> list[str]:
    """Return what is kept after a key was used: the shortest list's end that fits, or the key."""
    order = [*(other for other in kept if other != key), key]
    fitting = [
        order[first:]
        for first in range(len(order))
        if sum(COSTS[key] for key in order[first:]) <= capacity
    ]
    return fitting[0] if fitting else [key]


@given(ACTIONS, st.integers(1, 160))
def test_it_keeps_what_was_used_last(actions: list[tuple[str, str]], capacity: int) -> None:
    cache = ProcessCache[Value](capacity, Value.close)
    made: list[Value] = []
    expected: list[str] = []
    released = []

    def make(key: str) -> Value:
        made.append(Value(key))
        return made[-1]

    for action, key in actions:
        before = len(made)
        if action == "get":
            value = cache.get(key, lambda key=key: make(key), COSTS[key])  # type: ignore[misc]
            assert value.key == key
            assert not value.closed
            assert len(made) - before == (key not in expected)
            expected = keep_by_hand(expected, key, capacity)
        else:
            taken = cache.release(key)
            assert (taken is not None) == (key in expected)
            released += [taken] if taken is not None else []
            expected = [other for other in expected if other != key]
        alive = [value.key for value in made if not value.closed and value not in released]
        assert Counter(alive) == Counter(expected)
        assert all(value.closed <= 1 for value in made)
        assert not any(value.closed for value in released)


@given(ACTIONS, st.integers(1, 60))
def test_nothing_is_closed_while_it_is_used(actions: list[tuple[str, str]], capacity: int) -> None:
    cache = ProcessCache[Value](capacity, Value.close)
    made: list[Value] = []

    def nested(rest: list[tuple[str, str]]) -> None:
        """Use each key inside of the use of the one before."""
        if rest:
            (_, key), *later = rest
            make = lambda: made.append(Value(key)) or made[-1]  # type: ignore[func-returns-value] # noqa: E731
            with cache.use(key, make, COSTS[key]) as value:
                assert not value.closed
                nested(later)
                assert not value.closed

    nested(actions[:20])
    assert all(value.closed <= 1 for value in made)
    open_now = [value.key for value in made if not value.closed]
    assert len(set(open_now)) == len(open_now)
    assert sum(COSTS[key] for key in open_now) <= max(capacity, max(COSTS.values()))


def test_threads_share_one_value() -> None:
    cache, together, made = ProcessCache[int](1), threading.Barrier(8), []

    def get(_: int) -> int:
        together.wait()
        return cache.get("key", lambda: made.append(1) or len(made))  # type: ignore[func-returns-value]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(get, range(8))) == {1}


def test_another_key_does_not_wait() -> None:
    cache, go = ProcessCache[str](2), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cache.get, "slow", lambda: str(go.wait(60)))
        assert cache.get("fast", lambda: "made") == "made"
        go.set()
        assert slow.result() == "True"


def test_releasing_waits_for_what_is_being_made() -> None:
    cache, started, go = ProcessCache[str](2), threading.Event(), threading.Event()

    def make() -> str:
        started.set()
        return str(go.wait(60))

    with ThreadPoolExecutor(2) as pool:
        using = pool.submit(cache.get, "key", make)
        started.wait(60)
        released = pool.submit(cache.release, "key")
        assert not released.done()
        go.set()
        assert released.result() == using.result() == "True"


def test_what_cannot_be_made_takes_no_place() -> None:
    cache = ProcessCache[str](2)
    cache.get("a", lambda: "kept")
    with pytest.raises(ZeroDivisionError):
        cache.get("b", lambda: str(1 // 0))
    cache.get("c", lambda: "kept")
    assert cache.get("a", lambda: "made again") == "kept"
    assert cache.get("b", lambda: "made at last") == "made at last"


def test_none_is_a_value() -> None:
    cache, made = ProcessCache[None](1), []
    for _ in range(2):
        cache.get("key", lambda: made.append("key"))
    assert made == ["key"]


def test_what_is_pickled_is_empty() -> None:
    cache = ProcessCache[Value](30, Value.close)
    cache.get("a", lambda: Value("a"), 20)
    other = pickle.loads(pickle.dumps(cache))
    assert other.release("a") is None
    for key in "bc":
        other.get(key, lambda key=key: Value(key), 20)
    assert other.release("b") is None
    assert other.release("c").key == "c"


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes can't fork here"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads
def test_what_a_forked_process_inherits_is_empty() -> None:
    cache = ProcessCache[str](2)
    cache.get("key", lambda: "the parent's")
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(cache.get("key", lambda: "the child's")))
    child.start()
    assert answers.get() == "the child's"
    child.join()
    assert cache.get("key", lambda: "made again") == "the parent's"
