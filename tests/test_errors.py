from __future__ import annotations

import pytest

from wsi_unet import errors
from wsi_unet.errors import MaskError, SlideError, first_line, foreign_errors_as, os_errors_as


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("\n  one\ntwo"), "one"),
        (ValueError(""), "ValueError"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "a.svs: can't be read: Permission denied"),
        (OSError("answers 503, after 3 tries"), "a.svs: can't be read: answers 503, after 3 tries"),
    ],
)
def test_os_errors_become_ours(error: OSError, message: str) -> None:
    with pytest.raises(SlideError) as caught, os_errors_as(SlideError, "a.svs"):
        raise error
    assert str(caught.value) == message
    assert caught.value.__cause__ is error


def test_other_errors_stay() -> None:
    with pytest.raises(ZeroDivisionError), os_errors_as(SlideError, "a.svs"):
        raise ZeroDivisionError


def test_the_tree_of_errors_names_each_of_them() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    tree = errors.__doc__ or ""
    ours = [kind for kind in kinds if issubclass(kind, errors.WsiUnetError)]
    assert len(ours) > 10
    assert all(f"{kind.__name__} " in tree for kind in ours)
    assert {kind.exit_code for kind in ours} == {1, 2}


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), OverflowError("big")])
def test_foreign_errors_become_ours_and_ours_pass(error: Exception) -> None:
    with pytest.raises(SlideError) as caught, foreign_errors_as(SlideError, "a.png: is damaged"):
        raise error
    assert str(caught.value) == f"a.png: is damaged ({str(error) or 'MemoryError'})"
    assert caught.value.__cause__ is error
    ours = MaskError("ours")
    with pytest.raises(MaskError) as passed, foreign_errors_as(SlideError, "a.png"):
        raise ours
    assert passed.value is ours


def test_a_librarys_message_is_cut() -> None:
    assert len(first_line(ValueError("x" * 10_000))) < 400
