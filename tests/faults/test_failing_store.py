"""A store that always fails affects its own slide, and no other one of the cohort."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fault_study import FaultStudy

import wsi_unet
from wsi_unet.errors import OutputError
from wsi_unet.storage.local_store import LocalStore


def test_one_of_two_stores_fails_for_good(
    study: FaultStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, get = LocalStore.put, LocalStore.get
    failing: list[str] = []

    def failing_put(self: LocalStore, key: str, data: bytes) -> None:
        if "/blocks/1." in key and self.root.name == "bad":
            failing.append(key)
        if failing and self.root.name == "bad":
            raise OutputError(f"{self.root}: can't write {key!r}: Input/output error")
        put(self, key, data)

    def failing_get(self: LocalStore, key: str, *limits: int) -> bytes | None:
        if failing and self.root.name == "bad":
            raise OutputError(f"{self.root}: can't read {key!r}: Input/output error")
        return get(self, key, *limits)

    monkeypatch.setattr(LocalStore, "put", failing_put)
    monkeypatch.setattr(LocalStore, "get", failing_get)
    outcomes = {
        Path(str(outcome.job.output)).name: outcome
        for outcome in wsi_unet.segment_cohort([study.job(tmp_path / n) for n in ("bad", "good")])
    }
    assert failing
    assert outcomes["bad"].state in ("failed", "incomplete")
    assert outcomes["good"].state == "finished"
    good, truth = (wsi_unet.open_labels(place).values for place in (tmp_path / "good", study.truth))
    assert (good == truth).all()
