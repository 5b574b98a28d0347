"""The long fault benchmark runs, draws every kind of fault equally often, and can fail."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from random import Random

from support import warm

from benchmarks.common import ROOT
from benchmarks.faults import Deck, Totals, make_table


def test_two_faults_are_survived(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--tiny", "--json"]
    command.append(str(tmp_path / "numbers"))
    done = warm.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "numbers").read_text())
    assert numbers["faults"] == numbers["survived"] == {"kill a worker": 1, "kill the client": 1}
    assert numbers["bad"] == {}
    assert "2 faults in 1 runs" in done.stdout


def test_every_kind_comes_up_as_often_as_the_others_and_comes_again_if_it_did_not_happen() -> None:
    deck = Deck(["a", "b", "c"], Random(0))
    happened: Counter[str] = Counter()
    for _ in range(10):
        drawn = deck.draw(3)
        happened.update(drawn[:2])
        deck.put_back(drawn, drawn[:2])
    assert happened.total() == 20
    assert max(happened.values()) - min(happened.values()) <= 2


def test_the_table_has_what_was_computed_again_for_other_reasons_too() -> None:
    totals = Totals(runs=1, faults=Counter(a=1), recomputed=Counter(a=2, b=1))
    assert list(make_table(totals).columns[0].cells) == ["a", "b"]
    assert list(make_table(totals).columns[4].cells) == ["2", "1"]
