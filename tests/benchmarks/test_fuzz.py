"""The fuzzer finds what it looks for, and a short run of it finds nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support import warm

from benchmarks.common import ROOT
from benchmarks.fuzz import judge
from benchmarks.fuzz_inputs import KINDS
from benchmarks.fuzz_mutations import mutate_json, mutate_tree

CASES = 506


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a short run says."""
    numbers = tmp_path_factory.mktemp("fuzz") / "numbers.json"
    command = [sys.executable, "-m", "benchmarks.fuzz", "--cases", str(CASES), "--seed", "7"]
    done = warm.run([*command, "--json", str(numbers)], cwd=ROOT, capture_output=True, text=True)
    assert numbers.exists(), done.stderr
    found: dict[str, Any] = json.loads(numbers.read_text())
    return found


def test_no_input_ends_in_a_raw_error_a_hang_or_harm(numbers: dict[str, Any]) -> None:
    assert numbers["bad"] == {}
    assert numbers["cases"] == CASES


def test_good_inputs_are_read_and_damage_is_met(numbers: dict[str, Any]) -> None:
    """Else the run would have shown nothing."""
    assert numbers["good_inputs_refused"] == []
    assert min(numbers["done"], numbers["refused"]) > CASES / 10


@pytest.mark.parametrize(
    ("code", "said", "command", "how"),
    [
        (0, "", "info a", "done"),
        (2, "error: a: no such file; check the path\n", "info a", "refused"),
        (2, "Usage: wsi-unet\n\nError: No such option '--x'.\n", "info a", "refused"),
        (1, "error: unexpected KeyError: 'a' (run again …)\n", "info a", "raw error"),
        (1, "error: a: block 0.0: ValueError: no\n", "info a", "raw error"),
        (1, "error: a: block 0.0: SlideError: no\n", "info a", "refused"),
        (1, "Traceback (most recent call last):\n", "info a", "raw error"),
        (1, "", "info a", "raw error"),
        (1, "", "status a --verify", "refused"),
        (-11, "", "info a", "raw error"),
        (0, "UserWarning: something\n", "info a", "raw error"),
    ],
)
def test_ends_are_judged(code: int, said: str, command: str, how: str) -> None:
    assert judge(code, said, command).how == how


def test_a_case_is_decided_by_its_seed(tmp_path: Path) -> None:
    document = json.dumps({"a": [1, {"b": "c"}], "d": 0.5}).encode()
    found = [mutate_json(document, Random(seed)) for seed in (*range(40), *range(40))]
    assert found[:40] == found[40:]
    assert len(set(found[:40])) > 30
    trees = []
    for turn in range(2):
        root = tmp_path / str(turn)
        (root / "in").mkdir(parents=True)
        (root / "in" / "zarr.json").write_bytes(document)
        mutate_tree(root / "in", tmp_path / "victim", Random(5))
        trees.append({path.relative_to(root): path.lstat().st_mode for path in root.rglob("*")})
    assert trees[0] == trees[1]


def test_every_kind_has_commands() -> None:
    assert all(kind.commands for kind in KINDS.values())
