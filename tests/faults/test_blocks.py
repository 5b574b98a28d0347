"""Blocks that hang, fail, are slow or kill their workers; and two clients at one output."""

from __future__ import annotations

import json
import time
from pathlib import Path

from support.fault_account import FAILED
from support.fault_cluster import Cluster
from support.fault_kinds import fault
from support.fault_study import LABEL, FaultStudy, differences
from support.fault_trial import Trial

BLOCK = "2.3"


def test_a_read_that_hangs_past_its_deadline(
    cluster: Cluster, study: FaultStudy, tmp_path: Path
) -> None:
    """The block is given up and computed elsewhere; the late read does no harm."""
    trial = Trial(cluster, study, tmp_path / "out", deadline=5.0)
    trial.run([fault("hang a read", after=4)])
    assert trial.injected == ["hang a read"]
    assert trial.complaints() == [], trial.story()
    assert trial.account().recomputed["hang a read"] == 1


def test_the_last_block_is_started_a_second_time_if_it_is_slow(
    cluster: Cluster, study: FaultStudy, tmp_path: Path
) -> None:
    """The run doesn't wait for the slow one; when that ends after all, nothing changes."""
    last = study.blocks()[-1]
    cluster.orders.give("hold")
    cluster.orders.give("hang", last, times=1)
    trial = Trial(cluster, study, tmp_path / "out", slow=1.0)
    try:
        assert trial.finish().code == 0
        assert trial.complaints() == [], trial.story()
        cluster.orders.withdraw("hold")
        while ended(trial, last) < 2:
            trial.tick()
        assert differences(study, trial.output, trial.last.report) == []
        assert trial.account().recomputed == {"hang a read": 1}
    finally:
        trial.close()


def ended(trial: Trial, block: str) -> int:
    """Return how many computations of a label block have ended, one way or the other."""
    return sum(
        event["event"] in ("marked", "failed") and (event["run"], event["block"]) == (LABEL, block)
        for event in trial.cluster.orders.events()
        if event.get("output") == str(trial.output)
    )


def test_a_block_that_kills_every_worker_is_the_only_one_that_fails(
    cluster: Cluster, study: FaultStudy, tmp_path: Path
) -> None:
    cluster.set_allowed_failures(0)  # so that fewer workers have to die
    trial = Trial(cluster, study, tmp_path / "out")
    try:
        cluster.orders.give("die", BLOCK)
        ended = trial.finish()
        assert ended.code == 1
        assert ended.report is not None
        assert ended.report["state"] == "incomplete"
        assert ended.report["blocks"]["done"] == len(study.blocks()) - 1
        [failure] = ended.report["failures"]
        assert f"{failure['block'][0]}.{failure['block'][1]}" == BLOCK
        assert "every worker process that ran it died" in failure["error"]
        lines = [line for line in ended.said.splitlines() if line.strip()]
        assert not any("Traceback" in line for line in lines), ended.said
        cluster.orders.withdraw("die")
        trial.run([])
        assert trial.last.report is not None
        assert trial.last.report["blocks"]["resumed"] == len(study.blocks()) - 1
        assert trial.complaints() == [], trial.story()
    finally:
        trial.close()
        cluster.set_allowed_failures(3)


def test_a_block_that_fails_twice_and_a_second_client(
    cluster: Cluster, study: FaultStudy, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    cluster.orders.give("fail", BLOCK, times=2)
    cluster.orders.give("slow")
    trial = Trial(cluster, study, output, options=("--max-retries", "3"))
    try:
        while trial.account().begun < 4:
            trial.tick()
        started = time.monotonic()
        second = study.run(output, *cluster.connection, log=tmp_path / "second.log")
        assert second.code == 1
        assert f"is being written by process {trial.client.pid} " in second.said
        assert second.said.count("error: ") == 1
        assert time.monotonic() - started < 20
        assert trial.client.ended() is None, "the second client came too late to mean anything"
        cluster.orders.withdraw("slow")
        trial.run([])
        assert trial.restarts == 0
        assert trial.complaints() == [], trial.story()
        assert trial.account().recomputed == {FAILED: 2}
        marker = json.loads((output / f".wsi_unet/{LABEL}/blocks/{BLOCK}.json").read_text())
        assert marker["attempts"] == 3
    finally:
        trial.close()
