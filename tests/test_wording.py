"""Messages write values as people do: no brackets, quotes or names of Python's types."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsi_unet.errors import OptionError
from wsi_unet.segmentation.differences import describe_differences
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.wording import count, plain

IDENTITY = {
    "mpp": [0.25, 0.2501], "sampling": [0, [1.0, 1.0], [300, 200]], "model": "a" * 64,
    "slide": "b" * 64, "tissue": "auto:" + "c" * 64, "precision": "float32", "block": 512,
    "outputs": ["labels"], "levels": 3, "statistics": [[[0.5, 0.5], [0.25, 0.25]]],
}  # fmt: skip
OTHER = {
    "mpp": None, "sampling": [1, [1.25, 1.25], [240, 160]], "model": "d" * 64,
    "slide": "e" * 64, "tissue": "none", "precision": "bfloat16", "block": 1024,
    "outputs": ["labels", "probabilities"], "levels": 4, "statistics": [[[0.4], [0.2]]],
}  # fmt: skip


@pytest.mark.parametrize("name", IDENTITY)
def test_differences_are_words(name: str) -> None:
    (words,) = describe_differences({name: IDENTITY[name]}, {name: OTHER[name]})
    assert not re.search(r"[\[\]{}']|None|\(.*\(", words), words
    assert re.fullmatch(r"[a-z -]+ \(.+ stored, .+ requested\)", words)


def test_what_only_one_has_is_a_difference_if_nothing_else_is() -> None:
    assert describe_differences({"block": 1}, {"block": 1, "tta": "flips"}) == [
        "test-time augmentation (none stored, flips requested)"
    ]
    assert describe_differences({"block": 1, "tile": 5}, {"block": 2}) == [
        "block (1 stored, 2 requested)"
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Path("a/b"), "a/b"), ((1, (2.0, None)), "1, 2, none"), (False, "no"), ({}, "none"),
        ({"a": {"b": (1, 2)}}, "a b 1, 2"), (0.1 + 0.2, "0.3"),
    ],
)  # fmt: skip
def test_values_are_plain(value: object, text: str) -> None:
    assert plain(value) == text


def test_one_and_several() -> None:
    assert [count(n, "box", "boxes") for n in (0, 1, 2)] == ["0 boxes", "1 box", "2 boxes"]


def test_a_wrong_region_is_written_as_it_is_typed() -> None:
    with pytest.raises(OptionError, match=r"region 0, 0, 0, 5 is not"):
        Options(region=(0, 0, 0, 5))
